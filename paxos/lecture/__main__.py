"""`python -m paxos.lecture [SCENE ...]`: prints or draws scenes that are played by the production code."""

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

_MAX_DIGITS = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status: 0, or 2 on wrong usage."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description="Scripted runs of the proposers, acceptors and learners of the server, as diagrams. Each process "
        "has a lane, and time runs downwards. Each arrow is a message that was encoded, sent and decoded.",
    )
    parser.add_argument("scene", nargs="*", metavar="SCENE", help=f"any of {', '.join(SCENES)} (default: all)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--step", action="store_true", help="explain each message by the rule that applies to it")
    form.add_argument(
        "--svg",
        type=Path,
        metavar="FILE",
        help="draw one scene into FILE; further diagrams of the scene into FILE-2, FILE-3",
    )
    parser.add_argument("--rounds", type=_rounds, metavar="N", help="number of rounds of the endless duel")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.scene if name not in SCENES]
    if unknown:
        parser.error(f"there is no scene {unknown[0]!r}: choose from {', '.join(SCENES)}")
    names = given.scene or list(SCENES)
    if given.svg is not None and len(names) != 1:
        parser.error(f"--svg draws one scene, but {len(names)} are selected: name one SCENE")
    if given.rounds is not None and ("duel" not in names or given.rounds < 1):
        parser.error(f"--rounds {given.rounds}: needs the scene duel, and a number of at least 1")
    for name in names:
        scene = _play(name, given.rounds)
        if given.step:
            _step_through(scene)
        elif given.svg is None:
            sys.stdout.write(render(scene))
        else:
            try:
                _write_svg(scene.stages, given.svg)
            except OSError as error:
                parser.error(f"{error.filename} cannot be written: {error.strerror}; name another file with --svg")
    return 0


def _rounds(text: str) -> int:
    """Return the number that `text` spells in digits; `int` would take `1_0` and ` 5 ` too."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number of at most {_MAX_DIGITS} digits")
    return int(text)


def render(scene: Scene) -> str:
    """Return the diagrams and the summary of a scene as text."""
    return "\n".join([*(draw(stage) for stage in scene.stages), scene.summary, "", ""])


def _play(name: str, rounds: int | None) -> Scene:
    if name == "duel" and rounds is not None:
        return duel(rounds)
    return SCENES[name]()


def _step_through(scene: Scene) -> None:
    """Print line by line, with the rule that applies to each message. In a terminal, wait for Enter after each
    message."""
    waits = sys.stdin.isatty() and sys.stdout.isatty()
    for stage in scene.stages:
        sys.stdout.write(f"{stage.title}{' (Enter: next message; Ctrl-C: quit)' if waits else ''}\n\n")
        for row, line in steps(stage):
            sys.stdout.write(line.rstrip() + "\n")
            if isinstance(row, Arrow):
                sys.stdout.writelines(f"      {part}\n" for part in wrap(row.why, WIDTH - 6))
                if waits:
                    sys.stdout.flush()
                    sys.stdin.readline()
        sys.stdout.write("\n")
    sys.stdout.write(f"{scene.summary}\n\n")


def _write_svg(stages: Sequence[Stage], file: Path) -> None:
    for number, stage in enumerate(stages, 1):
        path = file if number == 1 else file.with_name(f"{file.stem}-{number}{file.suffix}")
        path.write_text(picture(stage))
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":  # pragma: no cover - tests run it in a separate process
    for number in (signal.SIGINT, signal.SIGPIPE):  # Ctrl-C, and a pager that was closed, print no traceback
        signal.signal(number, signal.SIG_DFL)
    sys.exit(main())
