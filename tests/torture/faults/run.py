"""A run: a cluster, clients and faults; then every fault ends, every key is read back, and the history is checked."""

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
from tests.torture.clients import RecordingClients
from tests.torture.faults import disk
from tests.torture.faults.monitor import POLL_S, ReplicaMonitor
from tests.torture.faults.nemesis import Nemesis
from tests.torture.faults.plan import DISK, Fault, FaultPlan, schedule
from tests.torture.faults.result import FaultsResult, count, latency_bins, outcome_bins
from tests.torture.history import RecordedCall, judge

READY_S = 60.0
"""Time for the replicas to become ready after the last fault; they replay their logs."""
READ_BACK_S = 300.0
SHOW_S = 0.25
RECOVERY_S = 10.0
"""Maximum time that a fault waits for recovery from the previous one."""


class FaultsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a run. With `kills` it lasts until that many processes were killed, otherwise for `seconds`."""

    faults: list[Fault]
    seconds: int
    kills: int
    nodes: int
    clients: int
    seed: int

    @property
    def command(self) -> str:
        """The command that repeats the run."""
        faults = "".join(f" --fault {fault}" for fault in self.faults)
        length = f"--kills {self.kills}" if self.kills else f"--seconds {self.seconds}"
        settings = f"--nodes {self.nodes} --clients {self.clients} --seed {self.seed}"
        return f"python -m tests.torture faults{faults} {length} {settings}"


class FaultsRun(msgspec.Struct, frozen=True):
    """The parts of a run in progress."""

    began_ns: int
    clients: RecordingClients
    nemesis: Nemesis
    monitor: ReplicaMonitor

    def now(self) -> float:
        """Return the time since the start of the run, in seconds."""
        return (time.monotonic_ns() - self.began_ns) / 1e9


async def impossible_faults(options: FaultsOptions) -> dict[Fault, str]:
    """Return the faults that are impossible here, with the reason. Raises BenchError when the options name one."""
    why = await disk.why_not()
    impossible = dict.fromkeys(sorted(DISK), why) if why else {}
    for fault in options.faults:
        if fault in impossible:
            raise BenchError(f"--fault {fault} is impossible here: {impossible[fault]}")
    return impossible


async def run_faults(
    directory: Path,
    options: FaultsOptions,
    impossible: dict[Fault, str],
    show: Callable[[FaultsRun], None],
    say: Callable[[str], None],
) -> tuple[FaultsResult, list[RecordedCall]]:
    """Run in a new cluster. `show` gets the run several times a second, `say` the name of each later part. Raises
    ClusterError when the cluster does not start."""
    asked = options.faults or [fault for fault in Fault if fault not in impossible]
    cluster = ProcessCluster(options.nodes, directory)
    async with FaultProxies(cluster.replicas) as proxies:
        cluster.prepare(proxies.addresses)
        try:
            cluster.start()
            await cluster.wait_ready()
            began_at = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            run = _new_run(cluster, proxies, options.seed)
            await _make_faults(options, asked, run, cluster, show)
            seconds = run.now()
            say("reading every key back through every replica")
            troubles = [*run.nemesis.troubles, *await _read_back(cluster, run.clients)]
        finally:
            await cluster.stop()
    calls = run.clients.calls
    during = calls[: run.clients.before_read_back]
    say(f"searching for an order that explains {len(calls)} calls")
    result = FaultsResult(
        command=options.command,
        seed=options.seed,
        began_at=began_at,
        nodes=options.nodes,
        clients=options.clients,
        seconds=seconds,
        asked=asked,
        impossible=impossible,
        faults=run.nemesis.faults,
        kills=run.nemesis.kills,
        troubles=troubles,
        spans=run.monitor.spans,
        bins=outcome_bins(during, run.began_ns),
        latencies=latency_bins(during, run.began_ns),
        counts=count(calls),
        history=judge(calls),
    )
    return result, calls


def _new_run(cluster: ProcessCluster, proxies: FaultProxies, seed: int) -> FaultsRun:
    began_ns = time.monotonic_ns()
    urls = {name: replica.url for name, replica in cluster.replicas.items()}
    clients = RecordingClients(lambda: urls, seed, readers=True)
    nemesis = Nemesis(cluster, proxies, lambda: (time.monotonic_ns() - began_ns) / 1e9)
    monitor = ReplicaMonitor(cluster, began_ns / 1e9, nemesis.paused.__contains__)
    return FaultsRun(began_ns, clients, nemesis, monitor)


async def _make_faults(
    options: FaultsOptions,
    asked: Sequence[Fault],
    run: FaultsRun,
    cluster: ProcessCluster,
    show: Callable[[FaultsRun], None],
) -> None:
    """Inject faults while clients work."""
    async with asyncio.TaskGroup() as group:
        for number in range(options.clients):
            group.create_task(run.clients.run(number))
        helpers = [group.create_task(run.monitor.run()), group.create_task(_keep_showing(run, show))]
        for plan in schedule(options.seed, asked, list(cluster.replicas)):
            await _wait_before(plan, run)
            if run.now() >= options.seconds if not options.kills else run.nemesis.kills >= options.kills:
                break
            await run.nemesis.make(plan, run.monitor.leader)
        with suppress(ClusterError):  # the read-back reports a replica that is not ready
            await cluster.wait_ready(timeout_s=READY_S)
        run.clients.stop()
        for task in helpers:
            task.cancel()


async def _wait_before(plan: FaultPlan, run: FaultsRun) -> None:
    if not plan.hasty:
        with suppress(TimeoutError):
            async with asyncio.timeout(RECOVERY_S):
                while not run.monitor.recovered:  # noqa: ASYNC110 - the monitor itself polls
                    await asyncio.sleep(POLL_S)
    await asyncio.sleep(plan.calm_s)


async def _keep_showing(run: FaultsRun, show: Callable[[FaultsRun], None]) -> None:
    while True:
        show(run)
        await asyncio.sleep(SHOW_S)


async def _read_back(cluster: ProcessCluster, clients: RecordingClients) -> list[str]:
    """Wait until all replicas are ready and read every key; return descriptions of failures."""
    try:
        await cluster.wait_ready(timeout_s=READY_S)
        await clients.read_back(READ_BACK_S)
    except ClusterError as error:
        return [f"the cluster did not recover within {READY_S:.0f} s after the last fault: {error}"]
    except TimeoutError:
        return [f"the keys could not be read back within {READ_BACK_S:.0f} s"]
    return []
