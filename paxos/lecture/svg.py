"""The diagram as a self-contained SVG, for light and dark colour schemes."""

from collections.abc import Iterator
from html import escape

from paxos.lecture.stage import Arrow, Mark, Note, Remark, Row, Stage

_LANE = 110
_ROW = 26
_LEFT = 50
_CLOCK = 70
_TOP = 70
_LABELS = 360
_CHARACTER = 8
_TEXT_MARGIN = 22

_STYLE = """\
svg { background: #ffffff; color: #1f2328; font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
text { fill: currentColor }
.title { font-size: 16px; font-weight: 600 }
.lane { stroke: #8c959f; stroke-width: 1 }
.name { font-weight: 600; text-anchor: middle }
.arrow { stroke: #0969da; stroke-width: 1.5; fill: none }
.head { fill: #0969da }
.lost { stroke: #cf222e; stroke-dasharray: 5 4 }
.refusal { stroke: #cf222e }
.cross { stroke: #cf222e; stroke-width: 1.5 }
.bad { fill: #cf222e }
.note { fill: #1a7f37 }
.time { fill: #656d76; text-anchor: end }
.remark { fill: #656d76; font-style: italic; stroke: #ffffff; stroke-width: 5; paint-order: stroke }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; color: #e6edf3 }
  .lane { stroke: #484f58 }
  .arrow { stroke: #58a6ff } .head { fill: #58a6ff }
  .lost, .refusal, .cross { stroke: #ff7b72 } .bad { fill: #ff7b72 }
  .note { fill: #3fb950 }
  .time { fill: #8b949e }
  .remark { fill: #8b949e; stroke: #0d1117 }
}"""


_DEFINITIONS = """\
<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path class="head" d="M0 0 L8 4 L0 8 z"/></marker>
<marker id="no" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path class="bad" d="M0 0 L8 4 L0 8 z"/></marker>
<marker id="lost" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="9" markerHeight="9">
<path class="cross" d="M1 1 L7 7 M7 1 L1 7"/></marker></defs>"""


def picture(stage: Stage) -> str:
    """Return the SVG of a stage. The comments of the lecturer are drawn last, over the arrows."""
    lanes, left = stage.lanes, _left(stage)
    right = left + _LANE * (len(lanes) - 1)
    width = max(right + _LABELS, *(_end_of_text(row, left, right) for row in stage.rows), 0)
    height = _TOP + _ROW * (len(stage.rows) + 1)
    rows = sorted(enumerate(stage.rows), key=lambda row: isinstance(row[1], Remark))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {_size(width, height)} role="img">',
        f"<title>{escape(stage.title)}</title>",
        f"<style>{_STYLE}</style>",
        _DEFINITIONS,
        f'<text class="title" x="{_LEFT - 30}" y="24">{escape(stage.title)}</text>',
        *(f'<text class="name" x="{_x(stage, lane)}" y="{_TOP - 18}">{escape(lane)}</text>' for lane in lanes),
        *_lanes(stage),
        *(part for number, row in rows for part in _row(stage, number, row, right)),
        *_clock(stage),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _end_of_text(row: Row, left: int, right: int) -> int:
    """Return the x coordinate at which the text of a row ends."""
    match row:
        case Arrow(label=label):
            return right + _CHARACTER * (len(label) + len(" (lost)")) + _TEXT_MARGIN
        case Note(lane=lane, text=text) | Mark(lane=lane, text=text):
            return right + _CHARACTER * len(f"{lane} {text}") + _TEXT_MARGIN
        case _:
            return left + _CHARACTER * len(row.text)


def _size(width: int, height: int) -> str:
    return f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'


def _left(stage: Stage) -> int:
    """Return the x coordinate of the first lane."""
    return _LEFT + (_CLOCK if stage.timed else 0)


def _x(stage: Stage, lane: str) -> int:
    return _left(stage) + _LANE * stage.lanes.index(lane)


def _y(number: float) -> float:
    return _TOP + _ROW * number


def _lanes(stage: Stage) -> Iterator[str]:
    """Yield the lines of the lanes, with a gap while a process is down."""
    for lane in stage.lanes:
        since: float | None = -0.5
        for number, row in enumerate(stage.rows):
            if isinstance(row, Mark) and row.lane == lane:
                if not row.up and since is not None:
                    yield _line(stage, lane, since, number)
                since = number if row.up else None
        if since is not None:
            yield _line(stage, lane, since, len(stage.rows))


def _line(stage: Stage, lane: str, since: float, until: float) -> str:
    x = _x(stage, lane)
    return f'<line class="lane" x1="{x}" y1="{_y(since):g}" x2="{x}" y2="{_y(until):g}"/>'


def _row(stage: Stage, number: int, row: Row, right: int) -> Iterator[str]:
    y = _y(number)
    match row:
        case Arrow(label=label, lost=lost, refusal=refusal):
            yield _arrow(stage, row, y)
            yield _words("bad" if lost or refusal else "", right, y, label + (" (lost)" if lost else ""))
        case Note(lane=lane, text=text):
            yield f'<circle class="note" cx="{_x(stage, lane)}" cy="{y:g}" r="4"/>'
            yield _words("note", right, y, f"{lane} {text}")
        case Mark(lane=lane, text=text, up=up):
            kind = "note" if up else "bad"
            yield f'<circle class="{kind}" cx="{_x(stage, lane)}" cy="{y:g}" r="5"/>'
            yield _words(kind, right, y, f"{lane} {text}")
        case _:
            yield _words("remark", _left(stage) - _LANE // 4 - _TEXT_MARGIN, y, row.text)


def _arrow(stage: Stage, arrow: Arrow, y: float) -> str:
    """Return the arrow of a message, from the time it left to the time it arrived."""
    start, end = _x(stage, arrow.sender), _x(stage, arrow.to)
    end = round(start + 0.75 * (end - start)) if arrow.lost else end
    kind, head = (" lost", "lost") if arrow.lost else (" refusal", "no") if arrow.refusal else ("", "head")
    return (
        f'<line class="arrow{kind}" x1="{start}" y1="{_y(arrow.sent - 0.5):g}" x2="{end}" y2="{y:g}" '
        f'marker-end="url(#{head})"><title>{escape(arrow.why)}</title></line>'
    )


def _clock(stage: Stage) -> Iterator[str]:
    for number in range(len(stage.rows)):
        if time := stage.clock(number):
            yield f'<text class="time" x="{_left(stage) - 36}" y="{_y(number) + 4:g}">{time}</text>'


def _words(kind: str, x: int, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x + _TEXT_MARGIN}" y="{y + 4:g}">{escape(text)}</text>'
