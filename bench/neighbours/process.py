"""Clients in a process of their own, so that none delays another: `python -m bench.neighbours.process`."""

import asyncio
import sys
import time
from collections import Counter

import aiohttp
import msgspec

from bench.errors import BenchError
from bench.load.recording import LatencySummary, summary
from bench.neighbours.activities import ACTIVITIES
from bench.neighbours.requests import LeaderClient, fill
from bench.programs import run_module

STALLED_S = 60.0


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Clients that repeat `activity` at the leader at `url` for `seconds`. `interval_s` is the time from the beginning
    of one operation to the next, 0 for none. With `fill` the store is filled first, and nothing else is done."""

    url: str
    activity: str
    seconds: float
    etcd: bool = False
    interval_s: float = 0.0
    fill: bool = False


class ClientResult(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of the operations, None without any, and the number of those that failed."""

    latencies: LatencySummary | None
    errors: int


async def run_clients(options: ClientOptions) -> ClientResult:
    """Run clients in a new process. Raises BenchError."""
    return await run_module("bench.neighbours.process", options, ClientResult, f"the clients of {options.activity}")


async def _run(options: ClientOptions) -> ClientResult:
    latencies_us: Counter[int] = Counter()
    errors = 0
    timeout = aiohttp.ClientTimeout(total=STALLED_S)
    neighbours = ACTIVITIES[options.activity]
    activity = neighbours.etcd if options.etcd else neighbours.kvstore
    if activity is None:
        raise BenchError(f"etcd has no such call: {options.activity}")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        target = LeaderClient(session, options.url)
        if options.fill:
            await fill(target, etcd=options.etcd)
            return ClientResult(latencies=None, errors=0)
        end = time.monotonic() + options.seconds

        async def repeat(number: int) -> None:
            nonlocal errors
            while (begun := time.monotonic()) < end:
                try:
                    await activity(target, number)
                    latencies_us[int(1e6 * (time.monotonic() - begun))] += 1
                except (aiohttp.ClientError, TimeoutError):
                    errors += 1
                    await asyncio.sleep(0.1)
                await asyncio.sleep(max(0.0, begun + options.interval_s - time.monotonic()))

        running = [asyncio.create_task(repeat(number)) for number in range(neighbours.clients)]
        _, late = await asyncio.wait(running, timeout=options.seconds + STALLED_S)
        for task in late:
            task.cancel()
    return ClientResult(latencies=summary(latencies_us), errors=errors + len(late))


def main() -> None:
    """Read the options from standard input, run the clients, write the result to standard output."""
    options = msgspec.json.decode(sys.stdin.buffer.read(), type=ClientOptions)
    try:
        result = asyncio.run(_run(options))
    except (aiohttp.ClientError, OSError, BenchError) as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
