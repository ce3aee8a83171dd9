"""A run: a cluster, clients, faults; then all is healed, read back and judged."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.errors import BenchError
from kvstore.testing.cluster_directory import ClusterError
from kvstore.testing.fault_proxies import FaultProxies
from kvstore.testing.process_cluster import ProcessCluster
from tests.torture.faults import disk
from tests.torture.faults.clients import Load
from tests.torture.faults.found import Found, bins, count, latencies
from tests.torture.faults.history import Call, judge
from tests.torture.faults.plan import DISK, Fault, Plan, schedule
from tests.torture.faults.tormentor import Tormentor
from tests.torture.faults.watch import POLL_S, Watch

READY_S = 60.0
"""All healed, the replicas have so long to become ready: they replay their logs."""
READ_BACK_S = 300.0
SHOW_S = 0.25
RECOVERY_S = 10.0
"""Longer is waited for nobody; who never comes back is told of at the end."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted. `kills`: go on until so many processes were killed, however long it takes, instead of
    `seconds`."""

    faults: list[Fault]
    seconds: int
    kills: int
    nodes: int
    clients: int
    seed: int

    @property
    def command(self) -> str:
        """What repeats it."""
        faults = "".join(f" --fault {fault}" for fault in self.faults)
        length = f"--kills {self.kills}" if self.kills else f"--seconds {self.seconds}"
        settings = f"--nodes {self.nodes} --clients {self.clients} --seed {self.seed}"
        return f"python -m tests.torture faults{faults} {length} {settings}"


class Scene(msgspec.Struct, frozen=True):
    """What goes on, for whoever shows it."""

    began_ns: int
    load: Load
    tormentor: Tormentor
    watch: Watch

    def now(self) -> float:
        """Seconds of the run."""
        return (time.monotonic_ns() - self.began_ns) / 1e9


async def not_offered(order: Order) -> dict[Fault, str]:
    """Faults that cannot be made here, and why. Raises BenchError when one of them is ordered."""
    why = await disk.why_not()
    missing = dict.fromkeys(sorted(DISK), why) if why else {}
    for fault in order.faults:
        if fault in missing:
            raise BenchError(f"{fault} cannot be made here: {missing[fault]}")
    return missing


async def torment(
    directory: Path,
    order: Order,
    missing: dict[Fault, str],
    show: Callable[[Scene], None],
    say: Callable[[str], None],
) -> tuple[Found, list[Call]]:
    """Do all of it in a new cluster in `directory`, but for the faults that are `missing` here. `show` is told what
    goes on, several times a second; `say` which part of it begins. Raises ClusterError when none comes up."""
    asked = order.faults or [fault for fault in Fault if fault not in missing]
    cluster = ProcessCluster(order.nodes, directory)
    async with FaultProxies(cluster.replicas) as links:
        cluster.prepare(links.addresses)
        try:
            cluster.start()
            await cluster.wait_ready()
            began_at = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            scene = _scene(cluster, links, order.seed)
            await _act(order, asked, scene, cluster, show)
            seconds = scene.now()
            say("all is healed: reading every key back through every replica")
            troubles = [*scene.tormentor.deaths, *await _come_back(cluster, scene.load)]
        finally:
            await cluster.stop()
    calls = scene.load.calls
    under_fire = calls[: scene.load.before_read_back]
    say(f"looking for an order that explains {len(calls)} calls")
    found = Found(
        command=order.command,
        seed=order.seed,
        began_at=began_at,
        nodes=order.nodes,
        clients=order.clients,
        seconds=seconds,
        asked=asked,
        not_offered=missing,
        strikes=scene.tormentor.strikes,
        kills=scene.tormentor.kills,
        troubles=troubles,
        lanes=scene.watch.lanes,
        bins=bins(under_fire, scene.began_ns),
        latencies=latencies(under_fire, scene.began_ns),
        counts=count(calls),
        judgement=judge(calls),
    )
    return found, calls


def _scene(cluster: ProcessCluster, links: FaultProxies, seed: int) -> Scene:
    began_ns = time.monotonic_ns()
    load = Load({name: place.url for name, place in cluster.replicas.items()}, seed)
    tormentor = Tormentor(cluster, links, lambda: (time.monotonic_ns() - began_ns) / 1e9)
    watch = Watch(cluster, began_ns / 1e9, tormentor.paused.__contains__)
    return Scene(began_ns, load, tormentor, watch)


async def _act(
    order: Order, asked: Sequence[Fault], scene: Scene, cluster: ProcessCluster, show: Callable[[Scene], None]
) -> None:
    """Faults while clients work."""
    async with asyncio.TaskGroup() as group:
        for number in range(order.clients):
            group.create_task(scene.load.client(number))
        around = [group.create_task(scene.watch.run()), group.create_task(_keep_showing(scene, show))]
        for plan in schedule(order.seed, asked, list(cluster.replicas)):
            await _rest(plan, scene)
            if scene.now() >= order.seconds if not order.kills else scene.tormentor.kills >= order.kills:
                break
            await scene.tormentor.strike(plan, scene.watch.leader)
        with suppress(ClusterError):  # whoever is not ready in time is told of when all is read back
            await cluster.wait_ready(timeout_s=READY_S)
        scene.load.stop()
        for task in around:
            task.cancel()


async def _rest(plan: Plan, scene: Scene) -> None:
    if not plan.hasty:
        with suppress(TimeoutError):
            async with asyncio.timeout(RECOVERY_S):
                while not scene.watch.recovered:  # noqa: ASYNC110 - the watch itself polls
                    await asyncio.sleep(POLL_S)
    await asyncio.sleep(plan.calm_s)


async def _keep_showing(scene: Scene, show: Callable[[Scene], None]) -> None:
    while True:
        show(scene)
        await asyncio.sleep(SHOW_S)


async def _come_back(cluster: ProcessCluster, load: Load) -> list[str]:
    """Wait until all replicas serve, and read everything. Gives what kept them from it."""
    try:
        await cluster.wait_ready(timeout_s=READY_S)
        await load.read_back(READ_BACK_S)
    except ClusterError as error:
        return [f"the cluster did not come back within {READY_S:.0f} s after the last fault: {error}"]
    except TimeoutError:
        return [f"the keys could not be read back within {READ_BACK_S:.0f} s"]
    return []
