"""What a scene leaves behind."""

from typing import NamedTuple

from paxos.lecture.stage import Stage


class Scene(NamedTuple):
    """Its diagrams, and what is to be said or counted below them."""

    stages: list[Stage]
    summary: str


def table(*rows: tuple[str, ...]) -> str:
    """Columns as wide as they need to be; the first row is their heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
