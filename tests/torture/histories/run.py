"""A run: watchers, writers, readers of the past, and clients with leases and locks, while replicas fail."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec

from bench.cluster import fill_keys
from kvstore.testing.cluster_directory import ClusterError
from kvstore.testing.fault_proxies import FaultProxies
from kvstore.testing.process_cluster import ProcessCluster
from kvstore.testing.replica_status import status_of
from tests.torture.calls import session
from tests.torture.faults.monitor import ReplicaMonitor
from tests.torture.faults.nemesis import Nemesis
from tests.torture.faults.plan import Fault, schedule
from tests.torture.histories.changes import ChangesVerdict, judge_changes
from tests.torture.histories.clients import PAST_TASKS, ClientRecords, CompactedAnswer, HistoryClient
from tests.torture.histories.leases import LeasesVerdict, judge_leases
from tests.torture.histories.watchers import RecordingWatcher

NODES = 3
LOG_SLOTS, HISTORY_REVISIONS = 100, 1000
"""A replica that was down for some seconds needs a snapshot. The history lasts for about 20 s."""
FAULTS = (Fault.KILL, Fault.PAUSE, Fault.PARTITION, Fault.ONE_WAY, Fault.STORM)
BEHIND_SLOTS = 2 * LOG_SLOTS
"""Number of slots by which an absent replica lags, so that it needs a snapshot."""
ABSENT_S = 20.0
"""Maximum time of an absence."""
BALLAST, BALLAST_BYTES = 80, 100_000
"""Number and length of values that make a snapshot 30 pages long, so that a replica is killed while it receives one."""
INTERRUPTIONS = 0, 0, 1, 2
INTERRUPTED_S = 0.2, 1.5
"""Range of the time from the start of a replica that needs a snapshot to its next kill."""
READY_S = 60.0
END_S = 60.0
POLL_S = 0.1
LATE_S = 5.0
"""Time from one watcher that begins in the past to the next."""
WRITERS, LEASE_CLIENTS, LOCK_CLIENTS = 3, 4, 4
SINGLES = ("w/0", "w/1", "long/0", "fenced/l0")


class HistoriesResult(msgspec.Struct, frozen=True, kw_only=True):
    """The verdicts of a run."""

    seed: int
    asked_s: float
    seconds: float
    kills: int
    faults: int
    snapshots: int
    """Number of times that a replica was away until it needed a snapshot."""
    interrupted: int
    """Number of kills of a replica that needed a snapshot."""
    resumed: int
    torn: int
    acknowledged: int
    compacted: int
    changes: ChangesVerdict
    leases: LeasesVerdict
    troubles: list[str]

    @property
    def violations(self) -> list[str]:
        """All violations."""
        return [*self.changes.violations, *self.leases.violations, *self.troubles]

    @property
    def void(self) -> list[str]:
        """What did not happen, so that the run proves nothing about it."""
        happened = {
            "replica needed a snapshot": self.snapshots,
            "watch was resumed": self.resumed,
            "watch was resumed within a revision": self.torn,
            "read of an earlier revision was answered": self.changes.reads,
            "list of an earlier revision was answered": self.changes.lists,
            "lease was seen to end": self.leases.endings,
            "lease was renewed": self.leases.renewals,
            "lock was held": self.leases.holds,
            "write under a fencing token was acknowledged": self.leases.fenced,
        }
        return [f"no {what}: raise --seconds" for what, count in happened.items() if not count]


class _Run:
    """The parts of a run in progress."""

    def __init__(self, cluster: ProcessCluster, seed: int) -> None:
        self.rng = Random(seed)
        self.urls = {name: replica.url for name, replica in cluster.replicas.items()}
        self.records = ClientRecords()
        self.stop, self.stop_reading = asyncio.Event(), asyncio.Event()
        self.watchers: list[RecordingWatcher] = []
        self.first = 1
        """First revision that is watched."""
        self.snapshots = self.interrupted = self.kills = 0
        self.troubles: list[str] = []

    def client(self, stop: asyncio.Event) -> HistoryClient:
        """Return a new client."""
        return HistoryClient(lambda: self.urls, Random(self.rng.random()), self.records, stop)

    def watcher(self, prefix: str, *, first: int = 0, **kind: bool) -> RecordingWatcher:
        """Return a new watcher. The first one tells what to read."""
        watcher = RecordingWatcher(
            lambda: self.urls,
            Random(self.rng.random()),
            prefix,
            first=first or self.first,
            on_change=self.records.saw if not self.watchers else lambda _: None,
            on_lost=self.records.refused,
            single=kind.get("single", False),
            slow=kind.get("slow", False),
            tearing=kind.get("tearing", False),
            late=kind.get("late", False),
        )
        self.watchers.append(watcher)
        return watcher

    def behind(self) -> list[str]:
        """Describe the watchers that have not received everything, and the reads that were not answered."""
        due = {watcher: self.due(watcher) for watcher in self.watchers if watcher.segment.kind != "late"}
        return [
            *(
                f"the {watcher.segment.kind} watcher of {watcher.segment.prefix!r} is at revision "
                f"{watcher.segment.upto}, not {revision}"
                for watcher, revision in due.items()
                if watcher.segment.upto < revision
            ),
            *([f"{len(self.records.unread)} changes were not read"] if self.records.unread else []),
        ]

    def due(self, watcher: RecordingWatcher) -> int:
        """Return the last acknowledged revision of the keys of a watcher."""
        covers = watcher.segment.covers
        return max((each.revision for each in self.records.acknowledged if covers(each.key)), default=0)


async def measure(directory: Path, *, seconds: float, seed: int, say: Callable[[str], None]) -> HistoriesResult:
    """Run in a new cluster. Raises ClusterError when the cluster does not start."""
    settings: dict[str, int | str] = {"log_slots": LOG_SLOTS, "history_revisions": HISTORY_REVISIONS}
    cluster = ProcessCluster(NODES, directory, settings=settings)
    async with FaultProxies(cluster.replicas) as proxies:
        cluster.prepare(proxies.addresses)
        try:
            cluster.start()
            await fill_keys(cluster, BALLAST, BALLAST_BYTES, prefix="ballast")
            began = time.monotonic()
            nemesis = Nemesis(cluster, proxies, lambda: time.monotonic() - began)
            run = _Run(cluster, seed)
            run.first = await _next_revision(cluster)
            await _work(run, cluster, nemesis, seconds, say)
            lasted_s = time.monotonic() - began
        finally:
            await cluster.stop()
    say("comparing everything")
    records = run.records
    segments = [segment for watcher in run.watchers for segment in watcher.segments]
    return HistoriesResult(
        seed=seed,
        asked_s=seconds,
        seconds=lasted_s,
        kills=nemesis.kills + run.kills,
        faults=len(nemesis.faults),
        snapshots=run.snapshots,
        interrupted=run.interrupted,
        resumed=sum(watcher.resumed for watcher in run.watchers) - len(run.watchers),
        torn=sum(watcher.torn for watcher in run.watchers),
        acknowledged=len(records.written),
        compacted=len(records.compacted),
        changes=judge_changes(segments, records.acknowledged, records.sent, records.reads, records.lists),
        leases=judge_leases(records.leases, records.endings, records.holds, records.fenced, set(records.written)),
        troubles=[
            *nemesis.troubles,
            *run.troubles,
            *(line for watcher in run.watchers for line in watcher.contradictions),
            *too_early(records.compacted),
        ],
    )


def too_early(compacted: list[CompactedAnswer]) -> list[str]:
    """Describe revisions that a replica no longer had although it should keep them."""
    return [
        f"{each.replica} had no revision {each.revision}: its oldest was {each.oldest}, with {each.known} acknowledged"
        for each in compacted
        if each.oldest > max(0, each.known - HISTORY_REVISIONS // 2)
    ]


async def _work(
    run: _Run, cluster: ProcessCluster, nemesis: Nemesis, seconds: float, say: Callable[[str], None]
) -> None:
    async with asyncio.TaskGroup() as everything:
        watching = [everything.create_task(watcher.run()) for watcher in _watchers(run)]
        reading = [everything.create_task(run.client(run.stop_reading).run_past()) for _ in range(PAST_TASKS)]
        late = everything.create_task(_start_late(run, everything, watching))
        async with asyncio.TaskGroup() as clients:
            for kind, count in (("writer", WRITERS), ("long", 1), ("leases", LEASE_CLIENTS), ("locks", LOCK_CLIENTS)):
                for _ in range(count):
                    clients.create_task(getattr(run.client(run.stop), f"run_{kind}")())
            await _fail(run, cluster, nemesis, seconds, say)
            run.stop.set()
        late.cancel()
        say("waiting for all watchers and reads")
        try:
            async with asyncio.timeout(END_S):
                await _finish(run)
                run.stop_reading.set()
                await asyncio.gather(*reading)
        except TimeoutError:
            run.troubles += [f"{END_S:.0f} s after the last fault, {line}" for line in run.behind()]
        for task in (*watching, *reading):
            task.cancel()


def _watchers(run: _Run) -> list[RecordingWatcher]:
    watchers = [run.watcher(""), run.watcher("", tearing=True), run.watcher("long/", tearing=True)]
    watchers += [run.watcher("long/", slow=True), run.watcher("", slow=True), run.watcher("w/"), run.watcher("lease/")]
    return [*watchers, *(run.watcher(key, single=True) for key in SINGLES)]


async def _start_late(run: _Run, group: asyncio.TaskGroup, watching: list[asyncio.Task[None]]) -> None:
    """Start a watcher from a revision in the past now and then, and end it after a while."""
    while True:
        await asyncio.sleep(LATE_S)
        upto = run.watchers[0].segment.upto
        first = max(run.first, upto - run.rng.randrange(HISTORY_REVISIONS // 2))
        watcher = run.watcher(run.rng.choice(["", "long/", "w/"]), first=first, late=True)
        task = group.create_task(watcher.run())
        watching.append(task)
        asyncio.get_running_loop().call_later(3 * LATE_S, task.cancel)


async def _fail(
    run: _Run, cluster: ProcessCluster, nemesis: Nemesis, seconds: float, say: Callable[[str], None]
) -> None:
    """Inject faults for `seconds`; after each of them a replica is away until it needs a snapshot."""
    names = list(cluster.replicas)
    began = time.monotonic()
    monitor = ReplicaMonitor(cluster, began, nemesis.paused.__contains__)
    watching = asyncio.create_task(monitor.run())
    for plan in schedule(run.rng.randrange(1 << 32), FAULTS, names):
        left_s = seconds - (time.monotonic() - began)
        if left_s <= 0:
            break
        say(f"{left_s:.0f} s left, {len(run.records.written):,} writes acknowledged, {nemesis.kills + run.kills} kills")
        await nemesis.make(plan, monitor.leader)
        await _ready(cluster)
        await _be_absent(run, cluster, run.rng.choice(names))
        await _ready(cluster)
    watching.cancel()
    if not await _ready(cluster):
        run.troubles.append(f"the cluster was not ready {READY_S:.0f} s after the last fault")


async def _be_absent(run: _Run, cluster: ProcessCluster, name: str) -> None:
    """Keep a replica down until it needs a snapshot, and sometimes kill it again while it receives the snapshot."""
    last = await _applied(cluster, [name])
    cluster.kill(name)
    others = [each for each in cluster.replicas if each != name]
    with suppress(TimeoutError):
        async with asyncio.timeout(ABSENT_S):
            while await _applied(cluster, others) < last + BEHIND_SLOTS:  # noqa: ASYNC110 - a replica sets no event
                await asyncio.sleep(POLL_S)
            run.snapshots += 1
    interruptions = run.rng.choice(INTERRUPTIONS)
    for _ in range(interruptions):
        cluster.start([name])
        await asyncio.sleep(run.rng.uniform(*INTERRUPTED_S))
        cluster.kill(name)
    run.interrupted += interruptions
    run.kills += 1 + interruptions
    cluster.start([name])


async def _applied(cluster: ProcessCluster, names: Sequence[str]) -> int:
    """Return the highest slot that one of these replicas has applied."""
    async with cluster.status_client() as client:
        statuses = [await status_of(client, cluster.replicas[name]) for name in names]
    return max((status.applied for status in statuses if status is not None), default=0)


async def _next_revision(cluster: ProcessCluster) -> int:
    """Return the revision of the next write."""
    async with cluster.status_client() as client:
        statuses = [await status_of(client, replica) for replica in cluster.replicas.values()]
    return 1 + max(status.revision for status in statuses if status is not None)


async def _ready(cluster: ProcessCluster) -> bool:
    with suppress(ClusterError):
        await cluster.wait_ready(timeout_s=READY_S)
        return True
    return False


async def _finish(run: _Run) -> None:
    """Write to every watched key, and wait until each watcher that still runs has received that."""
    client = run.client(run.stop)
    async with session() as http:
        for key in (*SINGLES, "lease/0"):
            while await client.write(http, key) is None:  # noqa: ASYNC110 - a replica sets no event
                await asyncio.sleep(POLL_S)
    while run.behind():  # noqa: ASYNC110 - as above
        await asyncio.sleep(POLL_S)
