"""Runs commands, in this process or in one of their own."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from typer.testing import CliRunner

from kvstore import cli


def run_bytes(*arguments: str, stdin: bytes = b"", columns: int = 200) -> tuple[int, bytes, str]:
    """Run a command, and return its exit status, standard output and standard error."""
    result = CliRunner(env={"COLUMNS": str(columns), "TERM": "dumb"}).invoke(cli.app, arguments, input=stdin)
    return result.exit_code, result.stdout_bytes, result.stderr


def run(*arguments: str, stdin: bytes = b"", columns: int = 200) -> tuple[int, str, str]:
    code, out, err = run_bytes(*arguments, stdin=stdin, columns=columns)
    return code, out.decode(), err


@asynccontextmanager
async def kvstore_process(*arguments: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
    """Run a Python process with these arguments, such as `-m kvstore`, and kill it at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environment, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
