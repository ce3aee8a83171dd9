"""The diagram as text: one lane for each process, time runs downwards, and labels are at the right.

An arrow is drawn in the row in which the message arrives; the SVG (`paxos.lecture.svg`) also shows when it left.
"""

from collections.abc import Iterator, Sequence
from textwrap import wrap

from paxos.lecture.stage import Arrow, Mark, Note, Row, Stage
from paxos.types import NodeId

WIDTH = 100
"""Width of a diagram in columns."""
STEP = 9
"""Columns from one lane to the next."""
MARGIN = 2
CLOCK = 9
"""Columns for the time in a timed diagram."""


def draw(stage: Stage) -> str:
    """Return the whole diagram."""
    lines = [stage.title, "", *(line for _, line in steps(stage))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def steps(stage: Stage) -> Iterator[tuple[Row | None, str]]:
    """Yield each line of the diagram with its row; the line with the names of the lanes has none."""
    lanes = stage.lanes
    width = MARGIN + STEP * (len(lanes) - 1) + 4
    down: set[NodeId] = set()
    gutter = CLOCK if stage.timed else 0
    yield None, " " * gutter + "".join(_put([" "] * width, {_column(lanes, lane): lane for lane in lanes}))
    for number, row in enumerate(stage.rows):
        clock = stage.clock(number).rjust(gutter)
        canvas = _put([" "] * width, {_column(lanes, lane): "|" for lane in lanes if lane not in down})
        match row:
            case Arrow(sender=sender, to=to, label=label):
                _arrow(canvas, _column(lanes, sender), _column(lanes, to), lost=row.lost)
                yield row, clock + "".join(canvas) + label + (" (lost)" if row.lost else "")
            case Note(lane=lane, text=text):
                yield row, clock + "".join(_put(canvas, {_column(lanes, lane): "*"})) + f"{lane} {text}"
            case Mark(lane=lane, text=text, up=up):
                (down.discard if up else down.add)(lane)
                canvas = _put(canvas, {_column(lanes, lane): "|" if up else "x"})
                yield row, clock + "".join(canvas) + f"{lane} {text}"
            case _:
                heads = clock + ("  -- " if gutter else "-- ")
                for line in wrap(row.text, WIDTH, initial_indent=heads, subsequent_indent=" " * len(heads)):
                    yield row, line


def _column(lanes: Sequence[NodeId], lane: NodeId) -> int:
    return MARGIN + STEP * lanes.index(lane)


def _put(canvas: list[str], marks: dict[int, str]) -> list[str]:
    for column, mark in marks.items():
        canvas[column : column + len(mark)] = mark
    return canvas


def _arrow(canvas: list[str], start: int, end: int, *, lost: bool) -> None:
    """Draw an arrow across the lanes in between. The arrow of a lost message ends before its receiver."""
    right = end > start
    reached = (end - 3 if right else end + 3) if lost else end
    low, high = sorted((start, reached))
    for column in range(low + 1, high):
        canvas[column] = "-"
    head = "x" if lost else ">" if right else "<"
    canvas[reached - 1 if right else reached + 1] = head
