"""SIGKILL while data of the first schema becomes data of the present one."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from bench.lifecycle.load import Load, puts
from kvstore.client import Client
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from tests.torture.lifecycle import files

NODES = 3
KEYS, VALUE_BYTES = 500, 100
SLOTS = 4000
"""A replay stores what it led to each thousand slots."""
FILL_S = 90.0
AGAIN_AFTER = 6
"""So many kills meet one migration at most; then it may end, and the data is made old again."""
READY_S = 120.0
READERS = 8


async def migrate(
    directory: Path, kills: int, rng: Random, on_kill: Callable[[str, list[str]], None]
) -> tuple[int, list[str]]:
    """Kill replicas in the midst of it, so often. Gives how many keys were read back each time, and what was wrong.
    Raises ClusterError."""
    cluster = ProcessCluster(NODES, directory)
    cluster.prepare()
    wrong: list[str] = []
    try:
        cluster.start()
        leader = await cluster.wait_ready()
        await _fill(cluster, leader)
        expected = await _read(cluster, leader)
        left = kills
        while left > 0:
            await cluster.stop()
            for place in cluster.replicas.values():
                files.downgrade(place.data)
            for _ in range(min(left, rng.randint(1, AGAIN_AFTER))):
                left -= 1
                await _kill_one(cluster, rng, on_kill)
            cluster.start()
            await cluster.wait_ready(timeout_s=READY_S)
            for name in cluster.replicas:
                found = await _read(cluster, name)
                wrong += [
                    f"{key} is another at {name} after a migration" for key in expected if found[key] != expected[key]
                ]
    finally:
        await cluster.stop()
    wrong += [
        f"{name} took its data for damaged in a migration: see {place.log}"
        for name, place in cluster.replicas.items()
        if files.set_aside(place.data)
    ]
    return len(expected), wrong


async def _fill(cluster: ProcessCluster, leader: str) -> None:
    load = Load([cluster.replicas[leader].url], 8, puts(KEYS, VALUE_BYTES, rounds=1 << 40))
    deadline = time.monotonic() + FILL_S
    async with asyncio.TaskGroup() as group, cluster.status_client() as client:
        group.create_task(load.run())
        applied = 0
        while time.monotonic() < deadline and (applied < SLOTS or load.answered < KEYS):
            await asyncio.sleep(10 * POLL_S)
            status = (await cluster.statuses(client))[leader]
            applied = status.applied if status is not None else applied
        load.stop()


async def _kill_one(cluster: ProcessCluster, rng: Random, on_kill: Callable[[str, list[str]], None]) -> None:
    """Start all, and kill one of them at a random moment after it has opened its data."""
    name = rng.choice(list(cluster.replicas))
    data = cluster.replicas[name].data
    if cluster.runs(name):
        cluster.kill(name)
    moment = files.now()
    cluster.start()
    while not files.opened_since(data, moment) and cluster.runs(name):  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.005)
    await asyncio.sleep(rng.choice([rng.uniform(0, 0.1), rng.uniform(0, 1)]))
    cluster.kill(name)
    on_kill(name, await asyncio.to_thread(files.under_way, data))


async def _read(cluster: ProcessCluster, name: str) -> dict[str, bytes | None]:
    """All keys, by way of one replica."""
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
