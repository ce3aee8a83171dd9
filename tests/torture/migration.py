"""SIGKILL while data of version 1 of the schema is migrated."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from bench.cluster import started
from bench.load.generator import background_load
from bench.load.options import LoadOptions, Mix
from kvstore.client import Client
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from tests.torture import files

KEYS = 500
SLOTS = 4000
"""Number of slots to replay; a replay stores its progress every thousand slots."""
FILL_S = 90.0
MAX_KILLS = 6
"""Maximum number of kills during one migration, which may end then; afterwards the data is downgraded again."""
READY_S = 120.0
READERS = 8


async def migrate(
    directory: Path, kills: int, rng: Random, on_kill: Callable[[str, list[str]], None]
) -> tuple[int, list[str]]:
    """Kill replicas of a new cluster during migrations; return the number of keys that were compared each time, and
    descriptions of violations. Raises ClusterError."""
    wrong: list[str] = []
    async with started(directory) as cluster:
        leader = await cluster.wait_ready()
        await _fill(cluster, leader)
        expected = await _read(cluster, leader)
        remaining = kills
        while remaining > 0:
            await cluster.stop()
            for replica in cluster.replicas.values():
                files.downgrade(replica.data)
            for _ in range(min(remaining, rng.randint(1, MAX_KILLS))):
                remaining -= 1
                await _kill_one(cluster, rng, on_kill)
            cluster.start()
            await cluster.wait_ready(timeout_s=READY_S)
            for name in cluster.replicas:
                found = await _read(cluster, name)
                differing = [key for key in expected if found[key] != expected[key]]
                wrong += [f"{key} differs at {name} after a migration" for key in differing]
    wrong += [
        f"{name} found its data damaged during a migration: see {replica.log}"
        for name, replica in cluster.replicas.items()
        if files.set_aside(replica.data)
    ]
    return len(expected), wrong


async def _fill(cluster: ProcessCluster, leader: str) -> None:
    options = LoadOptions(mix=Mix(keys=KEYS, prefix="k"), urls=[cluster.replicas[leader].url], connections=8)
    deadline = time.monotonic() + FILL_S
    async with background_load(options), cluster.status_client() as client:
        applied = 0
        while time.monotonic() < deadline and applied < SLOTS:
            await asyncio.sleep(10 * POLL_S)
            status = (await cluster.statuses(client))[leader]
            applied = status.applied if status is not None else applied


async def _kill_one(cluster: ProcessCluster, rng: Random, on_kill: Callable[[str, list[str]], None]) -> None:
    """Start all replicas, and kill one at a random time after it has opened its data."""
    name = rng.choice(list(cluster.replicas))
    data = cluster.replicas[name].data
    if cluster.runs(name):
        cluster.kill(name)
    moment = files.now()
    cluster.start()
    while not files.opened_since(data, moment) and cluster.runs(name):  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.005)
    await asyncio.sleep(rng.choice([rng.uniform(0, 0.1), rng.uniform(0, 1)]))
    cluster.kill(name)
    on_kill(name, await asyncio.to_thread(files.under_way, data))


async def _read(cluster: ProcessCluster, name: str) -> dict[str, bytes | None]:
    """Return all keys, read through one replica."""
    found: dict[str, bytes | None] = {}

    async def read(client: Client, keys: Iterator[str]) -> None:
        for key in keys:
            record = await client.get(key)
            found[key] = record.value if record is not None else None

    keys = iter([f"k{number}" for number in range(KEYS)])
    async with Client([cluster.replicas[name].url]) as client, asyncio.TaskGroup() as group:
        for _ in range(READERS):
            group.create_task(read(client, keys))
    return found
