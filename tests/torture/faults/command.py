"""`python -m tests.torture faults`: what the user said, the run, and what is left of it."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from tests.torture.faults.found import Found
from tests.torture.faults.history import Call, by_key
from tests.torture.faults.plan import Fault
from tests.torture.faults.report import scene_line
from tests.torture.faults.run import Order, Scene, torment


async def run(directory: Path, order: Order, missing: dict[Fault, str]) -> tuple[Found, list[Call]]:
    """The run, with a line that says how it goes."""
    console = Console(stderr=True)
    goal = f"{order.kills} kills" if order.kills else f"{order.seconds} s"
    # No refreshing in a thread of its own: replicas are started from a process with one.
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(scene: Scene) -> None:
            live.update(Text.from_markup(scene_line(scene, goal)), refresh=True)

        def say(text: str) -> None:
            live.update(Text(text), refresh=True)

        return await torment(directory, order, missing, show, say)


def write_page(path: Path | None, found: Found) -> None:
    """The page, if one is wanted."""
    if path is not None:
        from tests.torture.faults.page import render  # noqa: PLC0415 - Jinja is an extra, the rest works without it

        path.write_text(render(found))


def write_history(path: Path, calls: Iterable[Call], found: Found) -> None:
    """The calls that no order explains, of the key with the fewest of them; else those of all keys: JSON, a line each,
    in the order in which they were called."""
    illegal = found.judgement.illegal[:1]
    chosen = by_key(calls)[illegal[0]] if illegal else calls
    encoder = msgspec.json.Encoder()
    lines = (encoder.encode(call) for call in sorted(chosen, key=lambda call: call.called_ns))
    path.write_bytes(b"\n".join(lines) + b"\n")
