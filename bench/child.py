"""A program that is run to its end."""

import asyncio
from collections.abc import Sequence


async def finished(command: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
    """Its exit status, and all that it prints. It is killed where it does not end in time, which raises
    TimeoutError, and where the caller is cancelled."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the benchmark, which ends its programs
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode(errors="replace")
