"""`python -m paxos.lecture [SCENE]`: Paxos to look at, by the code that the server runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from paxos.lecture.scenes import SCENES
from paxos.lecture.scenes.duel import duel
from paxos.lecture.scenes.scene import Scene
from paxos.lecture.stage import Arrow
from paxos.lecture.svg import picture
from paxos.lecture.text import WIDTH, draw, steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 on wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m paxos.lecture",
        description="Scripted runs of the proposers, acceptors and learners that the server runs, as diagrams: a lane "
        "for each process, time runs down. Every arrow was a message on the wire.",
    )
    parser.add_argument("scene", nargs="*", metavar="SCENE", help=f"any of {', '.join(SCENES)}; all by default")
    parser.add_argument("--step", action="store_true", help="message by message, with the rule that was applied")
    parser.add_argument(
        "--svg", type=Path, metavar="FILE", help="draw one scene into FILE (-2, -3 where it has several)"
    )
    parser.add_argument("--rounds", type=int, default=None, metavar="N", help="rounds of the endless duel")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.scene if name not in SCENES]
    if unknown:
        parser.error(f"there is no scene {unknown[0]!r}: take one of {', '.join(SCENES)}")
    names = given.scene or list(SCENES)
    if given.svg is not None and len(names) != 1:
        parser.error("--svg draws one scene: name it")
    for name in names:
        scene = _play(name, given.rounds)
        if given.svg is not None:
            _paint(scene, given.svg)
        elif given.step:
            _step_through(scene)
        else:
            sys.stdout.write(told(scene))
    return 0


def told(scene: Scene) -> str:
    """Its diagrams and its summary."""
    return "\n".join([*(draw(stage) for stage in scene.stages), scene.summary, "", ""])


def _play(name: str, rounds: int | None) -> Scene:
    if name == "duel" and rounds is not None:
        return duel(rounds)
    return SCENES[name]()


def _step_through(scene: Scene) -> None:
    """A line, the rule behind it, and the next one at Enter where somebody sits there."""
    waits = sys.stdin.isatty() and sys.stdout.isatty()
    for stage in scene.stages:
        sys.stdout.write(f"{stage.title}\n\n")
        for row, line in steps(stage):
            sys.stdout.write(line.rstrip() + "\n")
            if isinstance(row, Arrow):
                sys.stdout.writelines(f"      {part}\n" for part in wrap(row.why, WIDTH - 6))
                if waits:
                    sys.stdout.flush()
                    sys.stdin.readline()
        sys.stdout.write("\n")
    sys.stdout.write(f"{scene.summary}\n\n")


def _paint(scene: Scene, file: Path) -> None:
    for number, stage in enumerate(scene.stages, 1):
        path = file if number == 1 else file.with_name(f"{file.stem}-{number}{file.suffix}")
        path.write_text(picture(stage))
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":  # pragma: no cover - the tests call main
    sys.exit(main())
