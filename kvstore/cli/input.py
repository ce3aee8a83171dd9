"""Standard input, and its name in messages."""

import sys
from typing import BinaryIO

from kvstore.cli.exit_status import ExitStatus, fail


def standard_input() -> BinaryIO:
    """Return standard input as a binary file. A command that was started without one ends with a message."""
    if sys.stdin is None:
        fail("standard input is closed: give a file, or `< /dev/null` for no input", ExitStatus.USAGE)
    return sys.stdin.buffer


def named(file: str) -> str:
    """Return the name of an argument FILE, of which `-` is standard input."""
    return "standard input" if file == "-" else file
