"""Programs that the benchmark runs: wrk, h2load, py-spy, members of other stores, and modules of its own."""

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from bench.errors import BenchError

T = TypeVar("T")

STOP_S = 10.0


def find_program(program: str, install: str) -> str:
    """Return the path of a program, from the environment of this Python or the PATH. Raises BenchError."""
    beside = Path(sys.executable).with_name(program)
    path = str(beside) if beside.exists() else shutil.which(program)
    if path is None:
        raise BenchError(f"{program} is not installed: {install}")
    return path


async def run_module(module: str, options: msgspec.Struct, result: type[T], title: str) -> T:
    """Run a module of this project in a new process: `options` are its standard input, its `result` is its standard
    output, both as JSON. Raises BenchError, with `title`, if it fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C goes to the benchmark, which ends the process
    )
    try:
        output, errors = await process.communicate(msgspec.json.encode(options))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise BenchError(f"{title} failed: {errors.decode(errors='replace').strip()[-500:]}")
    return msgspec.json.decode(output, type=result)


async def output_of(command: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
    """Run a program; return its exit status and output. After `timeout_s`, kill it and raise BenchError."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C goes to the benchmark, which ends the program
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise BenchError(f"{command[0]} did not end within {timeout_s:.0f} s: run it again") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode(errors="replace")


async def end(processes: Sequence[asyncio.subprocess.Process]) -> None:
    """End processes with SIGTERM, and with SIGKILL if they still run after STOP_S."""
    running = [process for process in processes if process.returncode is None]
    for process in running:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await asyncio.gather(*(process.wait() for process in running))
    except TimeoutError:
        for process in running:
            if process.returncode is None:
                process.kill()
                await process.wait()
