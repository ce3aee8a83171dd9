"""What the commands of `python -m bench` have in common."""

import asyncio
import importlib.util
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.errors import BenchError

T = TypeVar("T")

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write what was measured to FILE, too.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the figures to FILE: .svg or .png.")]
Seed = Annotated[int | None, typer.Option(min=0, help="What is drawn, drawn again; by default a new one.")]


def progress_bar() -> Progress:
    """How far it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, transient=True)


def run(measuring: Coroutine[None, None, T]) -> T:
    """Run to the end; SIGTERM ends it as Ctrl-C does, with all processes that it started. Of errors that came together
    the first one is raised."""

    async def act() -> T:
        task = asyncio.create_task(measuring)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(act())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from group


def check_page(path: Path | None) -> None:
    """Raises BenchError when a page is wanted and cannot be made: better now than after the run."""
    if path is not None and importlib.util.find_spec("jinja2") is None:
        raise BenchError("--html needs Jinja: pip install --group bench, or leave --html out")


def write_json(path: Path | None, found: msgspec.Struct) -> None:
    """All of it, if a file is wanted."""
    if path is not None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
