"""Load by wrk: https://github.com/wg/wrk"""

import asyncio
import shutil
from pathlib import Path
from typing import Literal

import msgspec

from bench.errors import BenchError

Operation = Literal["put", "get"]

_SCRIPT = Path(__file__).with_name("load.lua")
_GRACE_S = 30.0
"""wrk that has not ended so long after its time is over does not end by itself."""


class Load(msgspec.Struct, frozen=True):
    """What wrk measured. `errors` counts lost connections, answers after more than 2 s, and those that are not 2xx."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def find_wrk() -> str:
    """The program. Raises BenchError when it is not installed."""
    program = shutil.which("wrk")
    if program is None:
        raise BenchError("wrk makes the load and is not on the PATH: install it, on Debian with: apt-get install wrk")
    return program


async def run(
    program: str, url: str, store: str, operation: Operation, *, keys: int, connections: int, seconds: int
) -> Load:
    """`operation` on `keys` keys in turn, on so many connections, each with one request under way.

    Raises BenchError when wrk fails.
    """
    options = ["--threads", "1", "--connections", str(connections), "--duration", str(seconds)]
    process = await asyncio.create_subprocess_exec(
        program,
        *(*options, "--script", str(_SCRIPT), url, "--", store, operation, str(keys)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the benchmark, which ends wrk
    )
    try:
        async with asyncio.timeout(seconds + _GRACE_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return parse(output.decode(errors="replace"))


def parse(output: str) -> Load:
    """The line that the script printed last. Raises BenchError when there is none."""
    lines = output.splitlines()
    try:
        return msgspec.json.decode(lines[-1] if lines else "", type=Load)
    except msgspec.MsgspecError as error:
        raise BenchError(f"wrk gave no result; correct what it complains about: {output.strip()[-500:]}") from error
