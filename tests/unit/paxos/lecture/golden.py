"""`python -m tests.unit.paxos.lecture.golden`: what the scenes print, beside this file and in docs/lecture.md."""

import re
from pathlib import Path

from paxos.lecture.__main__ import render
from paxos.lecture.scenes import SCENES

KEPT = Path(__file__).parent / "golden"
LECTURE = Path(__file__).parents[4] / "docs" / "lecture.md"
_BLOCK = re.compile(r"(<!-- scene: ([a-z-]+) -->\n```text\n).*?(```\n)", re.DOTALL)


def shown(document: str) -> str:
    """The lecture with what the scenes print now."""
    return _BLOCK.sub(lambda block: f"{block[1]}{render(SCENES[block[2]]()).rstrip()}\n{block[3]}", document)


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    for name, play in SCENES.items():
        (KEPT / f"{name}.txt").write_text(render(play()))
    LECTURE.write_text(shown(LECTURE.read_text()))
