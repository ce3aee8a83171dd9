"""Options, output and scratch directory shared by all commands."""

import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.errors import BenchError
from bench.load.options import Distribution
from kvstore.testing.cluster_directory import ClusterError

T = TypeVar("T")

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures to FILE.")]
Nodes = Annotated[int, typer.Option(min=1, max=15, help="Number of replicas.")]
Connections = Annotated[int, typer.Option(min=1, max=10_000, help="Number of requests in flight.")]
Reads = Annotated[int, typer.Option(min=0, max=100, help="Percentage of GETs; the others are PUTs.")]
Keys = Annotated[int, typer.Option(min=1, max=10_000_000, help="Number of keys.")]
KeyDistribution = Annotated[
    Distribution, typer.Option("--distribution", help="Distribution of the requests over the keys.")
]
ValueBytes = Annotated[int, typer.Option(min=16, max=1 << 20, help="Length of each value.")]

_ON_DISK = "/var/tmp"  # noqa: S108 - mkdtemp makes a private directory in it
"""A directory on a disk, by the Filesystem Hierarchy Standard; `/tmp` may be memory, where a sync costs nothing."""


def run(measuring: Coroutine[None, None, T]) -> T:
    """Run a coroutine. SIGTERM cancels it as Ctrl-C does. Raises the first exception of an exception group."""

    async def cancellable() -> T:
        task = asyncio.create_task(measuring)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from group


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Yield a new directory on a disk and remove it at the end; after an error, keep it and print its path."""
    directory = Path(tempfile.mkdtemp(prefix="kvstore-bench-", dir=_ON_DISK))
    keep = False
    try:
        yield directory
    except Exception as error:
        keep = not isinstance(error, typer.Exit)
        raise
    finally:
        if keep:
            print(f"the data and logs of the replicas are in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)


def run_app(app: typer.Typer) -> None:
    """Run a command line; after an expected error, print its message and exit with status 1."""
    try:
        app()
    except (BenchError, ClusterError, OSError) as error:
        sys.stderr.write(f"{app.info.name}: {error}\n")
        sys.exit(1)


def say(text: str) -> None:
    """Print a line of progress to standard error."""
    Console(stderr=True, highlight=False).print(text, style="dim", markup=False)


def progress_bar() -> Progress:
    """Return a progress bar that counts steps."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, transient=True)


def figure_table(name: str, *columns: str) -> Table:
    """Return an empty table with a name and right-aligned figures in each row."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0, collapse_padding=True)
    table.add_column(name, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def verdict(limit: str, *, met: bool) -> str:
    """Return a line of a report that says whether a limit or a guarantee is met."""
    return f"[green]met[/green]: {limit}" if met else f"[red]not met[/red]: {limit}"


def print_report(report: RenderableType) -> None:
    """Print to standard output, without wrapping."""
    Console(highlight=False, soft_wrap=True).print(report)


def write_json(path: Path | None, result: object) -> None:
    """Write a result as JSON to `path`, if it is given."""
    if path is not None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def finish(json: Path | None, result: object, report: RenderableType, *, within_limits: bool = True) -> None:
    """Write and print a result. Raises typer.Exit with status 1 when a limit is exceeded."""
    write_json(json, result)
    print_report(report)
    if not within_limits:
        raise typer.Exit(1)
