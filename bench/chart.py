"""Charts: as SVG that needs nothing else and follows the reader's colour scheme, or as PNG by matplotlib."""

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench.errors import BenchError

WIDTH, HEIGHT = 420, 260
"""Of one chart: it can be read on a phone as it is, and several stand beside each other on a wider screen."""
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 44, 38
COLOURS = ("#2f7fc1", "#c8641b", "#0c8f8f", "#b0469a", "#7a8b1c", "#8155c6")
DARK_COLOURS = ("#4ea3e6", "#ea9150", "#3bbcbc", "#dd83cb", "#b9cb4a", "#a786e6")

LETTER = 6.2
"""Width of a letter of a legend, about."""
FEW = 30

Scale = Literal["linear", "log"]
Point = tuple[float, float]


class Axis(msgspec.Struct, frozen=True):
    """Linear from 0 on, or logarithmic. `ticks`: what stands at some values, instead of the values themselves. `span`:
    where it begins and ends, if not there where the values do."""

    label: str
    scale: Scale = "linear"
    ticks: dict[float, str] | None = None
    span: tuple[float, float] | None = None


class Series(msgspec.Struct, frozen=True):
    """Points that a line joins, in the order of x. Where there are few each is seen."""

    name: str
    points: list[Point]


class Chart(msgspec.Struct, frozen=True):
    """Series over one pair of axes. `bar`: a horizontal line, a limit."""

    title: str
    x: Axis
    y: Axis
    series: list[Series]
    bar: float | None = None


def style() -> str:
    """The style sheet of the charts of a page."""
    light = "".join(f".s{number}{{--c:{colour}}}" for number, colour in enumerate(COLOURS))
    dark = "".join(f".s{number}{{--c:{colour}}}" for number, colour in enumerate(DARK_COLOURS))
    return (
        ".chart{--ink:#16202c;--soft:#5b6878;--line:#dfe4ea;--bad:#c3272e;font:11px system-ui,sans-serif}"
        ".chart text{fill:var(--soft)}.chart .title{fill:var(--ink);font-weight:600;font-size:12px}"
        ".chart .grid{stroke:var(--line);stroke-width:1}.chart .bar{stroke:var(--bad);stroke-dasharray:5 3}"
        ".chart .curve{fill:none;stroke:var(--c);stroke-width:1.7;stroke-linejoin:round}.chart .dot{fill:var(--c)}"
        f"{light}@media (prefers-color-scheme:dark){{"
        f".chart{{--ink:#e8edf3;--soft:#94a2b3;--line:#2a3442;--bad:#ff6b6b}}{dark}}}"
    )


def inline(chart: Chart) -> str:
    """The chart as an element of a page that has `style`."""
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{_drawing(chart)}</svg>'


def write(path: Path, charts: Sequence[Chart]) -> None:
    """A file with these charts, one below the other: SVG or PNG, as its name ends."""
    if path.suffix == ".png":
        _write_png(path, charts)
        return
    total = HEIGHT * len(charts)
    parts = [
        f'<g transform="translate(0 {HEIGHT * number})">{_drawing(chart)}</g>' for number, chart in enumerate(charts)
    ]
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {total}" width="{2 * WIDTH}">'
        f"<style>{style()}svg{{background:#fff}}@media (prefers-color-scheme:dark){{svg{{background:#171e28}}}}</style>"
        f"{''.join(parts)}</svg>\n"
    )


def check(path: Path | None) -> None:
    """Raises BenchError when a chart is wanted and cannot be made: better now than after the run."""
    if path is None or path.suffix == ".svg":
        return
    if path.suffix != ".png":
        raise BenchError(f"{path}: a plot is written as .svg or .png, name it so")
    _pyplot()


def _pyplot() -> Any:
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra, SVG needs none

        mpl.use("agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415 - as above
    except ImportError as error:
        raise BenchError("PNG is drawn by matplotlib: pip install --group bench, or write .svg") from error
    return plt


def _write_png(path: Path, charts: Sequence[Chart]) -> None:
    plt = _pyplot()
    figure, rows = plt.subplots(len(charts), 1, figsize=(8, 5 * len(charts)), squeeze=False)
    for chart, (axes,) in zip(charts, rows, strict=True):
        for each in chart.series:
            xs, ys = [x for x, _ in each.points], [y for _, y in each.points]
            axes.plot(xs, ys, label=each.name, marker="." if len(xs) <= FEW else "")
        if chart.bar is not None:
            axes.axhline(chart.bar, linestyle="--", color="red")
        axes.set(title=chart.title, xlabel=chart.x.label, ylabel=chart.y.label)
        axes.set_xscale(chart.x.scale)
        axes.set_yscale(chart.y.scale)
        if chart.y.scale == "linear":
            axes.set_ylim(bottom=0)
        if chart.x.ticks:
            axes.set_xticks(list(chart.x.ticks), labels=list(chart.x.ticks.values()), minor=False)
        if any(each.name for each in chart.series):
            axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _drawing(chart: Chart) -> str:
    xs = [x for each in chart.series for x, _ in each.points] + list(chart.x.ticks or ())
    ys = [y for each in chart.series for _, y in each.points] + ([] if chart.bar is None else [chart.bar])
    x_ticks, across = _axis(chart.x, xs, LEFT, WIDTH - RIGHT)
    y_ticks, up = _axis(chart.y, ys, HEIGHT - BOTTOM, TOP)
    parts = [f'<text class="title" x="8" y="16">{escape(chart.title)}</text>']
    for value, label in y_ticks.items():
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(value):.1f}" y2="{up(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{up(value) + 4:.1f}" text-anchor="end">{escape(label)}</text>')
    for value, label in x_ticks.items():
        parts.append(
            f'<text x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{escape(label)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(chart.x.label)}</text>')
    parts.append(f'<text x="8" y="34">{escape(chart.y.label)}</text>')
    if chart.bar is not None:
        at = f"{up(chart.bar):.1f}"
        parts.append(f'<line class="bar" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
    for number, each in enumerate(chart.series):
        parts.append(_series(each, number % len(COLOURS), across, up))
    return "".join([*parts, *_legend([each.name for each in chart.series])])


def _series(series: Series, number: int, across: Callable[[float], float], up: Callable[[float], float]) -> str:
    points = [(across(x), up(y)) for x, y in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    seen = points if len(points) <= FEW else []
    dots = "".join(f'<circle class="dot s{number}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in seen)
    return f'<polyline class="curve s{number}" points="{path}"/>{dots}'


def _legend(names: Sequence[str]) -> Iterator[str]:
    """At the right, the last one at the edge."""
    x = WIDTH - RIGHT
    for number, name in reversed(list(enumerate(names))):
        if name:
            x -= round(LETTER * len(name)) + 22
            yield (
                f'<circle class="dot s{number % len(COLOURS)}" cx="{x + 4}" cy="30" r="4"/>'
                f'<text x="{x + 11}" y="34">{escape(name)}</text>'
            )


def _axis(
    axis: Axis, values: Sequence[float], begin: float, end: float
) -> tuple[dict[float, str], Callable[[float], float]]:
    """What stands where, and from a value to its place between `begin` and `end`."""
    if axis.scale == "log":
        known = [value for value in values if value > 0] or [1.0]
        low, high = math.log10(min(known)), math.log10(max(known))
        if not axis.ticks:
            low, high = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
        ticks = axis.ticks or {10.0**power: label(10.0**power) for power in range(int(low), int(high) + 1)}
        return ticks, lambda value: begin + (end - begin) * (math.log10(max(value, 10**low)) - low) / (high - low)
    step = _step(max([*values, 1e-9]) / 5)
    least, most = axis.span or (0.0, step * math.ceil(max([*values, 1e-9]) / step - 1e-9))
    linear = axis.ticks or {step * number: label(step * number) for number in range(round(most / step) + 1)}
    return linear, lambda value: begin + (end - begin) * (value - least) / (most - least)


def _step(least: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def label(value: float) -> str:
    """A value as it stands at an axis."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
