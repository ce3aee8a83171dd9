"""`python -m paxos.lecture [SCENE]`: Paxos to look at, by the code that the server runs."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from paxos.lecture.scenes import SCENES
from paxos.lecture.scenes.duel import duel
from paxos.lecture.scenes.scene import Scene
from paxos.lecture.stage import Arrow, Stage
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
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--step", action="store_true", help="message by message, with the rule that was applied")
    form.add_argument("--svg", type=Path, metavar="FILE", help="draw one scene into FILE (-2, -3 where it has several)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of the endless duel")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.scene if name not in SCENES]
    if unknown:
        parser.error(f"there is no scene {unknown[0]!r}: take one of {', '.join(SCENES)}")
    names = given.scene or list(SCENES)
    if given.svg is not None and len(names) != 1:
        parser.error("--svg draws one scene: name it")
    if given.rounds is not None and ("duel" not in names or given.rounds < 1):
        parser.error("--rounds is 1 or more, and of the scene duel")
    for name in names:
        scene = _play(name, given.rounds)
        if given.step:
            _step_through(scene)
        elif given.svg is None:
            sys.stdout.write(told(scene))
        else:
            try:
                _paint(scene.stages, given.svg)
            except OSError as error:
                parser.error(f"{error.filename} cannot be written: {error.strerror}; name another file")
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
        sys.stdout.write(f"{stage.title}{' (Enter: the next message; Ctrl-C: the end)' if waits else ''}\n\n")
        for row, line in steps(stage):
            sys.stdout.write(line.rstrip() + "\n")
            if isinstance(row, Arrow):
                sys.stdout.writelines(f"      {part}\n" for part in wrap(row.why, WIDTH - 6))
                if waits:
                    sys.stdout.flush()
                    sys.stdin.readline()
        sys.stdout.write("\n")
    sys.stdout.write(f"{scene.summary}\n\n")


def _paint(stages: Sequence[Stage], file: Path) -> None:
    for number, stage in enumerate(stages, 1):
        path = file if number == 1 else file.with_name(f"{file.stem}-{number}{file.suffix}")
        path.write_text(picture(stage))
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":  # pragma: no cover - of a process of its own
    for end in (signal.SIGINT, signal.SIGPIPE):  # Ctrl-C, and a pager that was left: no reason for a traceback
        signal.signal(end, signal.SIG_DFL)
    sys.exit(main())
