"""A run as one self-contained HTML page.

Shapes are SVG without text, stretched to the available width; all text is HTML beside the shapes. So the page is
readable at any width and follows the reader's colour scheme, unlike the images of a plotting library."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from bench.templates import render_page
from tests.torture.faults.monitor import leader_changes
from tests.torture.faults.nemesis import MadeFault
from tests.torture.faults.plan import Fault
from tests.torture.faults.result import BIN_S, LATENCY_BIN_S, FaultsResult

MAX_BINS = 600
"""Maximum number of bins in a plot, as many as a screen can show."""
MAX_LABELS = 60
"""Maximum number of faults labelled with their victims; with more faults, only tooltips name the victims."""
HEIGHT = 1000
"""Height of a drawing, in its own units."""

FAMILIES = {
    "process": (Fault.KILL, Fault.STORM, Fault.PAUSE),
    "network": (Fault.PARTITION, Fault.ONE_WAY, Fault.SLOW_NETWORK),
    "disk": (Fault.DISK_FULL, Fault.EIO, Fault.SLOW_FSYNC),
}
CUTS = (Fault.PARTITION, Fault.ONE_WAY)


LEGEND = {
    "Faults": {"process": "process", "network": "network", "disk": "disk"},
    "Calls": {"answered": "answered", "unknown": "write of unknown outcome", "refused": "refused"},
    "Latency": {"p50": "median", "p99": "99th percentile"},
    "Replicas": {
        "leader": "leader",
        "follower": "follower",
        "candidate": "candidate",
        "silent": "starting, or without an answer",
        "paused": "paused",
        "down": "down",
        "cut": "partitioned",
    },
}


class TimeBlock(msgspec.Struct, frozen=True):
    """A span of time in a row: `left` and `width` in percent, `title` as tooltip."""

    kind: str
    left: float
    width: float
    title: str
    label: str = ""


class ScaleTick(msgspec.Struct, frozen=True):
    """A line of a scale, at a percentage of its length."""

    at: float
    label: str


class PagePlot(msgspec.Struct, frozen=True):
    """Paths by kind, in a box of `width` by HEIGHT."""

    width: float
    paths: dict[str, str]
    ticks: list[ScaleTick]


def render(result: FaultsResult) -> str:
    """Return the page."""
    total_s = max(len(result.bins) * BIN_S, result.seconds)
    block = partial(_block, total_s, result.nodes)
    blocks = [(made.fault, block(family_of(made.fault), made)) for made in result.faults]
    return render_page(
        Path(__file__).with_name("page.html"),
        result=result,
        height=HEIGHT,
        tiles=_tiles(result),
        bands=[drawn for _, drawn in blocks],
        faults={
            fault: [drawn for kind, drawn in blocks if kind is fault]
            for fault in Fault
            if any(kind is fault for kind, _ in blocks)
        },
        dense=len(blocks) > MAX_LABELS,
        lanes={name: [*_states(result, name, total_s), *_cuts(result, name, block)] for name in result.spans},
        plots=[
            ("throughput", "calls per second", throughput(result, total_s)),
            ("latency", "of answers", latency(result, total_s)),
        ],
        legend=LEGEND,
        seconds=_time_ticks(total_s),
    )


def _tiles(result: FaultsResult) -> dict[str, str]:
    history = result.history
    sound = history.keys - len(history.unverified) - len(history.illegal)
    return {
        "calls answered": f"{result.count('answered'):,}",
        "of unknown outcome": f"{result.count('unknown'):,}",
        "refused": f"{result.count('refused'):,}",
        "writes acknowledged": f"{result.acknowledged:,}",
        "lost writes": f"{len(history.lost):,}",
        "keys linearizable": f"{sound:,} of {history.keys:,}",
        "keys unverified": f"{len(history.unverified):,}",
        "effective faults": f"{result.effective:,} of {len(result.faults):,}",
        "kills with SIGKILL": f"{result.kills:,}",
        "leader changes": f"{leader_changes(result.spans):,}",
    }


def family_of(fault: Fault) -> str:
    """Return the kind of component that a fault affects: process, network or disk."""
    return next(family for family, some in FAMILIES.items() if fault in some)


def throughput(result: FaultsResult, total_s: float) -> PagePlot:
    """Return calls per second by outcome, stacked."""
    step = math.ceil(len(result.bins) / MAX_BINS) or 1
    groups = [result.bins[start : start + step] for start in range(0, len(result.bins), step)]
    rates = [
        [sum(getattr(one, outcome) for one in group) / (len(group) * BIN_S) for group in groups]
        for outcome in ("answered", "unknown", "refused")
    ]
    most = _round_up(max(map(sum, zip(*rates, strict=True)), default=1) or 1)
    paths, lower = {}, [0.0] * len(groups)
    for outcome, of_outcome in zip(("answered", "unknown", "refused"), rates, strict=True):
        upper = [low + more for low, more in zip(lower, of_outcome, strict=True)]
        paths[outcome] = _area([low / most for low in lower], [high / most for high in upper])
        lower = upper
    return PagePlot(
        total_s / BIN_S / step, paths, [ScaleTick(100 * part, f"{most * part:,.0f}") for part in (0, 0.5, 1)]
    )


def latency(result: FaultsResult, total_s: float) -> PagePlot:
    """Return percentiles in milliseconds on a logarithmic scale."""
    step = math.ceil(len(result.latencies) / MAX_BINS) or 1
    groups = [result.latencies[start : start + step] for start in range(0, len(result.latencies), step)]
    lines = {
        "p99": [max((one.p99_ms for one in group if one.p99_ms is not None), default=None) for group in groups],
        "p50": [max((one.p50_ms for one in group if one.p50_ms is not None), default=None) for group in groups],
    }
    known = [value for line in lines.values() for value in line if value]
    least = math.floor(math.log10(min(known, default=1)))
    most = max(math.ceil(math.log10(max(known, default=10))), least + 1)

    def height(value: float | None) -> float | None:
        return (math.log10(value) - least) / (most - least) if value else None

    paths = {name: _line([height(value) for value in line]) for name, line in lines.items()}
    ticks = [ScaleTick(100 * (power - least) / (most - least), _duration(power)) for power in range(least, most + 1)]
    return PagePlot(total_s / LATENCY_BIN_S / step, paths, ticks)


def _block(total_s: float, replicas: int, kind: str, fault: MadeFault) -> TimeBlock:
    label = "all" if len(fault.victims) == replicas else " ".join(fault.victims)
    effect = f"{fault.effect:,} {fault.what}" if fault.effect else "without effect"
    detail = f", {fault.detail}" if fault.detail else ""
    title = f"{fault.words}{detail}: {fault.began_s:.1f} to {fault.ended_s:.1f} s, {effect}"
    return TimeBlock(kind, *_percent_span(fault.began_s, fault.ended_s, total_s), title, label)


def _states(result: FaultsResult, name: str, total_s: float) -> Iterator[TimeBlock]:
    for span in result.spans[name]:
        title = f"{name} {span.state}: {span.began_s:.1f} to {span.ended_s:.1f} s"
        yield TimeBlock(span.state, *_percent_span(span.began_s, span.ended_s, total_s), title)


def _cuts(result: FaultsResult, name: str, block: partial[TimeBlock]) -> Iterator[TimeBlock]:
    for fault in result.faults:
        if fault.fault in CUTS and name in fault.victims:
            yield block("cut", fault)


def _percent_span(began_s: float, ended_s: float, total_s: float) -> tuple[float, float]:
    began_s, ended_s = min(began_s, total_s), min(ended_s, total_s)
    return round(100 * began_s / total_s, 3), round(100 * (ended_s - began_s) / total_s, 3)


def _area(lower: Sequence[float], upper: Sequence[float]) -> str:
    """Return the path along the steps of `upper` and back along those of `lower`, which are shares of the height."""
    forth = [f"{x},{_y(value)}" for index, value in enumerate(upper) for x in (index, index + 1)]
    back = [f"{x},{_y(value)}" for index, value in enumerate(lower) for x in (index, index + 1)]
    return f"M{' '.join([*forth, *reversed(back)])}Z"


def _line(heights: Sequence[float | None]) -> str:
    """Return a path from bin to bin, broken at unknown values; a single point is a short dash."""
    parts: list[str] = []
    for index, value in enumerate(heights):
        if value is None:
            continue
        joined = index > 0 and heights[index - 1] is not None
        parts.append(f"{'L' if joined else 'M'}{index + 0.5},{_y(value)}")
        if not joined:
            parts.append("h0.01")
    return "".join(parts)


def _y(share: float) -> int:
    return round(HEIGHT * (1 - share))


def _round_up(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value)


def _duration(power: int) -> str:
    return f"{10 ** (power - 3):g} s" if power >= 3 else f"{10**power:g} ms"


def _time_ticks(total_s: float) -> list[ScaleTick]:
    step = next(step for step in (1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600, 1 << 40) if total_s / step <= 10)
    times = range(0, int(total_s) + 1, step)
    return [ScaleTick(100 * time / total_s, f"{time // 60} min" if step >= 60 else f"{time} s") for time in times]
