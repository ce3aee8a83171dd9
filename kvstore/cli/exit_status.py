"""The exit statuses of the commands, and the function that ends a command with an error."""

import sys
from enum import IntEnum
from typing import NoReturn

import typer


class ExitStatus(IntEnum):
    """Exit statuses of all commands. `kvstore check` and `kvstore lock` have additional ones."""

    FAILED = 1
    """The key, lease, lock holder or member does not exist, or the command failed."""
    USAGE = 2
    """Wrong usage or settings, or the cluster rejected the request: repeating it does not help."""
    UNAVAILABLE = 3
    """Not done, and safe to repeat."""
    UNKNOWN = 4
    """A write that may have been applied."""
    CONDITION = 5
    """The condition does not hold, another client has the lock, or the lock was lost."""


def fail(message: object, status: int) -> NoReturn:
    """End the command with `status`, and write `message` to standard error."""
    sys.stderr.write(f"kvstore: {message}\n")
    raise typer.Exit(status)
