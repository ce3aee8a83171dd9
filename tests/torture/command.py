"""Options and functions shared by the commands of `python -m tests.torture`."""

import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from bench.command import finish
from bench.errors import BenchError

Seed = Annotated[int | None, typer.Option(min=0, help="Seed of the run to repeat; by default a random one.")]
Clients = Annotated[int, typer.Option(min=1, max=64, help="Number of clients.")]

MAX_REASONS = 10


def drawn(seed: int | None) -> int:
    """Return `seed`, or a random one if it is None."""
    return secrets.randbelow(1 << 32) if seed is None else seed


def conclude(json: Path | None, result: object, report: RenderableType, *, correct: bool) -> None:
    """Write and print a result. Raises BenchError when a guarantee was violated."""
    finish(json, result, report)
    if not correct:
        raise BenchError("the run violates a guarantee, see above: please report this bug")


def first_lines(reasons: list[str]) -> list[str]:
    """Return the first MAX_REASONS reasons, escaped for rich, and the number of the others."""
    lines = [f"  {reason}".replace("[", r"\[") for reason in reasons[:MAX_REASONS]]
    return [*lines, f"  and {len(reasons) - MAX_REASONS} more"] if len(reasons) > MAX_REASONS else lines
