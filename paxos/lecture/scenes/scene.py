"""The result of a scene."""

from typing import NamedTuple

from paxos.lecture.stage import Stage


class Scene(NamedTuple):
    """The diagrams of a scene, and the text below them."""

    stages: list[Stage]
    summary: str


def table(*rows: tuple[str, ...]) -> str:
    """Return a text table with aligned columns. The first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
