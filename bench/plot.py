"""Plots by matplotlib, as SVG or PNG."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import BenchError

Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Also draw the figures to FILE: .svg or .png.")
]
Points = Sequence[tuple[float, float]]


def check_plot(path: Path | None) -> None:
    """Raise BenchError when a plot could not be drawn to `path` after the run."""
    if path is None:
        return
    if path.suffix not in {".svg", ".png"}:
        raise BenchError(f"--plot {path}: the name must end in .svg or .png")
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("--plot needs matplotlib: run `pip install --group bench` in the checkout, or omit --plot")


def draw_lines(
    path: Path | None, title: str, x: str, y: str, lines: Mapping[str, Points], *, log: bool = False
) -> None:
    """Draw lines by name to `path`, if it is given; `log` makes the vertical axis logarithmic."""
    if path is None:
        return
    import matplotlib as mpl  # noqa: PLC0415 - only --plot needs it

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, points in lines.items():
        axes.plot([at for at, _ in points], [value for _, value in points], label=name, marker=".")
    axes.set(title=title, xlabel=x, ylabel=y)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    if len(lines) > 1:
        axes.legend()
    figure.savefig(path)
    plt.close(figure)
