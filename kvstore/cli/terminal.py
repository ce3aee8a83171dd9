"""Output for people: tables and colours, and a progress bar on standard error."""

import os
import sys
from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Column, Table

from kvstore.cli.output import standard_output

WITHOUT_LIMIT = 10_000


def width() -> int:
    """Return the width for tables: the width of the terminal, or COLUMNS; no limit for a file or a pipe."""
    return Console().width if sys.stdout.isatty() or "COLUMNS" in os.environ else WITHOUT_LIMIT


def show(content: RenderableType, *, soft_wrap: bool = False) -> None:
    """Print `content`, in colour if standard output is a terminal. `soft_wrap` keeps lines whole."""
    console = Console(width=width(), soft_wrap=soft_wrap, highlight=False)
    with console.capture() as captured:
        console.print(content)
    with standard_output() as out:
        out.write(captured.get().encode(console.encoding, "backslashreplace"))


def table(*columns: Column | str, title: str | None = None) -> Table:
    """Return an empty table in the style of all commands. Cells are wrapped in a narrow terminal, never truncated."""
    folding = (Column(column, overflow="fold") if isinstance(column, str) else column for column in columns)
    return Table(*folding, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left")


def fit(rows: Table, most_chars: int, optional: Iterable[str]) -> Table:
    """Remove columns in the order of `optional` until the table has at most `most_chars` in a line."""
    console = Console(width=WITHOUT_LIMIT)
    for header in optional:
        if Measurement.get(console, console.options, rows).maximum <= most_chars:
            break
        rows.columns[:] = [column for column in rows.columns if column.header != header]
    return rows


def show_table(rows: Table, optional: Iterable[str]) -> None:
    """Print a table. If the terminal is too narrow, remove columns in the order of `optional`."""
    show(fit(rows, width(), optional))


def progress_bar() -> Progress:
    """Return a progress bar on standard error, hidden if that is no terminal. Tasks need a field `detail`.

    The bar of a task without a total only pulses.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[detail]}"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
