"""How far a command that takes its time has come: on standard error, and only where that is a terminal."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn


def progress_bar() -> Progress:
    """For a task with a field `detail`, what stands behind the bar. Without a total it only shows that it goes on."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[detail]}"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
