"""One client that knows what every key has to hold: it notes what became of every value."""

import asyncio
from collections.abc import Iterator, Sequence
from random import Random

from kvstore.api.queries import Consistency
from kvstore.client import Client, Unavailable, UnknownOutcome

READERS = 8
POLL_S = 0.05
VALUE_BYTES = 1000


class Ledger:
    """Keys `k0`, `k1` and so on."""

    def __init__(self, keys: int, rng: Random) -> None:
        self._keys = [f"k{number}" for number in range(keys)]
        self._rng = rng
        self._last: dict[str, bytes] = {}
        """What was acknowledged last."""
        self._unknown: dict[str, set[bytes]] = {key: set() for key in self._keys}
        """What was put with an unknown outcome: it may be done at any later time."""
        self._ever: dict[str, set[bytes]] = {key: set() for key in self._keys}
        """All that was put: what a stale read may see."""
        self.acknowledged = 0
        self.reads = 0

    async def put_all(self, endpoints: Sequence[str]) -> None:
        """A new value for each key."""
        await self._put(endpoints, self._keys)

    async def put_some(self, endpoints: Sequence[str], count: int) -> None:
        """New values for some of the keys."""
        await self._put(endpoints, self._rng.sample(self._keys, count))

    async def _put(self, endpoints: Sequence[str], keys: Sequence[str]) -> None:
        left = iter(keys)

        async def put(client: Client) -> None:
            for key in left:
                value = self._rng.randbytes(VALUE_BYTES)
                self._ever[key].add(value)
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
            for _ in range(READERS):
                group.create_task(put(client))

    async def read_back(self, url: str, patience_s: float) -> list[str]:
        """Read every key of one replica, linearizable, then stale until it has caught up. Gives what is wrong."""
        left = iter(self._last)
        wrong: list[str] = []
        async with Client([url]) as client, asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(self._read(client, left, patience_s, wrong))
        return wrong

    async def _read(self, client: Client, left: Iterator[str], patience_s: float, wrong: list[str]) -> None:
        for key in left:
            try:
                seen = await self._see(client, key, Consistency.LINEARIZABLE)
                if not self._is_present(key, seen):
                    wrong.append(f"a linearizable read of {key} saw {_shown(seen)}")
                    continue
                wrong += await self._read_stale(client, key, patience_s)
            except Unavailable as error:
                wrong.append(f"{key} could not be read: {error}")

    async def _read_stale(self, client: Client, key: str, patience_s: float) -> list[str]:
        deadline = asyncio.get_running_loop().time() + patience_s
        while True:
            seen = await self._see(client, key, Consistency.STALE)
            if self._is_present(key, seen):
                return []
            if seen is not None and seen not in self._ever[key]:
                return [f"a stale read of {key} saw {_shown(seen)}"]
            if asyncio.get_running_loop().time() > deadline:
                return [f"a stale read of {key} does not see what was put long ago"]
            await asyncio.sleep(POLL_S)

    def _is_present(self, key: str, seen: bytes | None) -> bool:
        return seen == self._last[key] or seen in self._unknown[key]

    async def _see(self, client: Client, key: str, consistency: Consistency) -> bytes | None:
        record = await client.get(key, consistency)
        self.reads += 1
        return record.value if record is not None else None


def _shown(value: bytes | None) -> str:
    return "nothing" if value is None else f"{value[:20].hex()}..., which is not the last that was put"
