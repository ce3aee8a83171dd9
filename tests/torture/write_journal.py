"""A client that records every value that it writes, and checks the values that a replica returns."""

import asyncio
from collections.abc import Iterator, Sequence
from random import Random

from kvstore.api.queries import Consistency
from kvstore.client import Client, Unavailable, UnknownOutcome

CONCURRENCY = 8
POLL_S = 0.05
VALUE_BYTES = 1000


class WriteJournal:
    """The values written to keys `k0`, `k1` and so on."""

    def __init__(self, keys: int, rng: Random) -> None:
        self._keys = [f"k{number}" for number in range(keys)]
        self._rng = rng
        self._last: dict[str, bytes] = {}
        """Last acknowledged value of each key."""
        self._unknown: dict[str, set[bytes]] = {key: set() for key in self._keys}
        """Values of unknown outcome, which may take effect at any later time."""
        self._all: dict[str, set[bytes]] = {key: set() for key in self._keys}
        """All values, which a stale read may see."""
        self.acknowledged = 0
        self.reads = 0

    async def put_all(self, endpoints: Sequence[str]) -> None:
        """Put a new value for each key."""
        await self._put(endpoints, self._keys)

    async def put_some(self, endpoints: Sequence[str], count: int) -> None:
        """Put new values for some of the keys."""
        await self._put(endpoints, self._rng.sample(self._keys, count))

    async def _put(self, endpoints: Sequence[str], keys: Sequence[str]) -> None:
        remaining = iter(keys)

        async def put(client: Client) -> None:
            for key in remaining:
                value = self._rng.randbytes(VALUE_BYTES)
                self._all[key].add(value)
                try:
                    await client.put(key, value)
                except UnknownOutcome:
                    self._unknown[key].add(value)
                except Unavailable:
                    continue
                else:
                    self._last[key] = value
                    self.acknowledged += 1

        async with Client(endpoints, exactly_once=False) as client, asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(put(client))

    async def violations(self, url: str, patience_s: float) -> list[str]:
        """Read every key from one replica, linearizable, then stale until it is current; describe wrong answers."""
        remaining = iter(self._last)
        wrong: list[str] = []
        async with Client([url]) as client, asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(self._read(client, remaining, patience_s, wrong))
        return wrong

    async def _read(self, client: Client, remaining: Iterator[str], patience_s: float, wrong: list[str]) -> None:
        for key in remaining:
            try:
                value = await self._get(client, key, Consistency.LINEARIZABLE)
                if not self._is_current(key, value):
                    wrong.append(f"a linearizable read of {key} saw {_shown(value)}")
                    continue
                wrong += await self._read_stale(client, key, patience_s)
            except Unavailable as error:
                wrong.append(f"{key} could not be read: {error}")

    async def _read_stale(self, client: Client, key: str, patience_s: float) -> list[str]:
        deadline = asyncio.get_running_loop().time() + patience_s
        while True:
            value = await self._get(client, key, Consistency.STALE)
            if self._is_current(key, value):
                return []
            if value is not None and value not in self._all[key]:
                return [f"a stale read of {key} saw {_shown(value)}"]
            if asyncio.get_running_loop().time() > deadline:
                return [f"a stale read of {key} still sees an old value after {patience_s:.0f} s"]
            await asyncio.sleep(POLL_S)

    def _is_current(self, key: str, value: bytes | None) -> bool:
        return value == self._last[key] or value in self._unknown[key]

    async def _get(self, client: Client, key: str, consistency: Consistency) -> bytes | None:
        record = await client.get(key, consistency)
        self.reads += 1
        return record.value if record is not None else None


def _shown(value: bytes | None) -> str:
    return "no record" if value is None else f"{value[:20].hex()}..., which is not the last value"
