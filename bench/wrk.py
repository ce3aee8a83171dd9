"""Load by wrk, a closed loop in C: https://github.com/wg/wrk"""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from bench.child import finished
from bench.errors import BenchError

Operation = Literal["put", "get"]

_SCRIPT = Path(__file__).with_name("load.lua")
_GRACE_S = 30.0
"""A generator that has not ended so long after its time is over does not end by itself."""


class Load(msgspec.Struct, frozen=True):
    """What wrk measured. `errors` counts lost connections, answers after more than 2 s, and those that are not 2xx.
    Latencies are of one wrk: those of several at once cannot be put together, and are left out."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def find_wrk() -> str:
    """The program. Raises BenchError when it is not installed."""
    return find("wrk", "wrk")


def find(program: str, package: str) -> str:
    """Where a program is. Raises BenchError when it is not installed."""
    path = shutil.which(program)
    if path is None:
        raise BenchError(
            f"{program} makes the load and is not on the PATH: install it, on Debian with: apt-get install {package}"
        )
    return path


async def run(
    program: str,
    connections: Mapping[str, int],
    store: str,
    operation: Operation,
    *,
    keys: int,
    value_bytes: int,
    seconds: int,
) -> Load:
    """`operation` on `keys` keys in turn, on so many connections to each base address, each with one request under way.
    There is a wrk for each address.

    Raises BenchError when wrk fails.
    """
    script = ("--script", str(_SCRIPT))
    arguments = ("--", store, operation, str(keys), str(value_bytes))
    outputs = await asyncio.gather(
        *(
            output_of(
                [
                    *(program, "--threads", "1", "--connections", str(count), "--duration", str(seconds)),
                    *(*script, url, *arguments),
                ],
                seconds,
            )
            for url, count in connections.items()
        )
    )
    return together([parse(output) for output in outputs])


async def output_of(command: Sequence[str], seconds: float) -> str:
    """What a generator that runs for so long prints. Raises TimeoutError when it does not end."""
    _, output = await finished(command, seconds + _GRACE_S)
    return output


def parse(output: str) -> Load:
    """The line that the script printed last. Raises BenchError when there is none."""
    lines = output.splitlines()
    try:
        return msgspec.json.decode(lines[-1] if lines else "", type=Load)
    except msgspec.MsgspecError as error:
        raise BenchError(f"wrk gave no result; correct what it complains about: {output.strip()[-500:]}") from error


def together(loads: Sequence[Load]) -> Load:
    """Loads that were made at the same time, as one."""
    if len(loads) == 1:
        return loads[0]
    return Load(
        requests=sum(load.requests for load in loads),
        seconds=max(load.seconds for load in loads),
        errors=sum(load.errors for load in loads),
    )
