"""A cluster under malformed requests, with concurrent good requests and checks of memory and logs."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import aiohttp
import msgspec

from bench.cluster import resident_mb, started
from bench.errors import BenchError
from kvstore.client import Client, ClientError
from kvstore.testing.process_cluster import ProcessCluster
from tests.torture.fuzz.exchange import FuzzExchange, NotHttpError, exchange, violation
from tests.torture.fuzz.malformed import SENTINEL, Attempt, RequestForge, calls_of

GROWTH_LIMIT_MB = 50.0
CONNECTIONS = 64
WARM_UP = 2_000
"""Number of attempts before the first measurement of memory, so that connections, parsers and caches exist."""
SAMPLES = 20
MAX_VIOLATIONS = 20
"""Number of violations that ends a run."""
CHECKED_KEYS = 50
CHECK_PAUSE_S = 0.02
SETTLE_S = 1.0
GENERAL_TYPES = tuple(
    f"urn:kvstore:problem:{name}"
    for name in (
        "head-too-large",
        "method-not-allowed",
        "no-such-resource",
        "target-too-long",
        "unknown-method",
        "unknown-transfer-coding",
        "unsupported-version",
    )
)
"""Problem types that no single call describes."""
_ALARMS = (" ERROR ", " CRITICAL ", "Traceback")


class FuzzViolation(msgspec.Struct, frozen=True):
    """A wrong answer: number and family of the attempt, the first bytes sent, and the reason."""

    number: int
    family: str
    sent: str
    why: str


class MemorySample(msgspec.Struct, frozen=True):
    """Resident memory of each replica in MB after a number of attempts."""

    attempts: int
    resident_mb: dict[str, float]


class FuzzResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answers, the memory and the violations of a run."""

    seed: int
    attempts: int
    seconds: float
    statuses: dict[str, int]
    families: dict[str, int]
    closed: int
    """Connections that the replica closed."""
    unanswered: int
    """Attempts without an answer, where none was required."""
    cut: int
    """Attempts that the client cut off."""
    checks: int
    """Number of values that were written and read back during the run."""
    slowest_ms: float
    """Longest time of such a check."""
    memory: list[MemorySample]
    violations: list[FuzzViolation]

    @property
    def growth_mb(self) -> float:
        """Growth of memory until the end, of the replica that grew most."""
        first, last = self.memory[0].resident_mb, self.memory[-1].resident_mb
        return max(last[name] - first[name] for name in first)


class _FuzzRun:
    """The counters of a run, and its three activities: attempts, good requests, samples. `on_attempt` is called for
    each attempt."""

    def __init__(self, cluster: ProcessCluster, seed: int, attempts: int, on_attempt: Callable[[], None]) -> None:
        self.cluster = cluster
        self.seed = seed
        self.attempts = attempts
        self.statuses: Counter[str] = Counter()
        self.families: Counter[str] = Counter()
        self.memory: list[MemorySample] = []
        self.violations: list[FuzzViolation] = []
        self.closed = self.unanswered = self.cut = self.checks = self.done = 0
        self.slowest_ms = 0.0
        self._on_attempt = on_attempt
        self._addresses = [replica.listen for replica in cluster.replicas.values()]

    async def attempt_all(self, forge: RequestForge, types: set[str], numbers: Iterator[int]) -> None:
        """Make one attempt for each of `numbers`."""
        for number in numbers:
            if len(self.violations) >= MAX_VIOLATIONS:
                return
            attempt = forge.draw(Random(f"{self.seed}/{number}"))
            address = self._addresses[number % len(self._addresses)]
            try:
                found = await exchange(address.host, address.port, attempt)
            except NotHttpError as error:
                self._violation(number, attempt, f"the answer is not HTTP: {error}")
            except OSError as error:
                self._violation(number, attempt, f"no connection: {error}")
                return
            else:
                self._count(attempt, found)
                why = violation(attempt, found, types)
                if why is not None:
                    self._violation(number, attempt, why)
            self.done += 1
            self._on_attempt()

    def _count(self, attempt: Attempt, found: FuzzExchange) -> None:
        self.families[attempt.family] += 1
        self.statuses.update(str(answer.status) for answer in found.answers)
        self.closed += found.closed
        self.cut += attempt.cut
        self.unanswered += not (found.answers or found.closed or attempt.cut)

    def _violation(self, number: int, attempt: Attempt, why: str) -> None:
        sent = repr(b"".join(attempt.pieces))[:600]
        self.violations.append(FuzzViolation(number, attempt.family, sent, why))

    async def check(self) -> None:
        """Write values and read them back at each replica, for ever."""
        async with Client(self.cluster.endpoints) as writer:
            for number in itertools.count():
                key, value = f"checked/{number % CHECKED_KEYS}", b"value %d" % number
                endpoint = self.cluster.endpoints[number % len(self.cluster.endpoints)]
                async with Client([endpoint]) as reader:
                    began = time.perf_counter()
                    try:
                        await writer.put(key, value)
                        record = await reader.get(key)
                    except ClientError as error:
                        self._check_failed(f"a good request failed: {error}")
                    else:
                        if record is None or record.value != value:
                            self._check_failed(f"{key} was put as {value!r} and read as {record!r}")
                        self.checks += 1
                        self.slowest_ms = max(self.slowest_ms, (time.perf_counter() - began) * 1000)
                await asyncio.sleep(CHECK_PAUSE_S)

    def _check_failed(self, why: str) -> None:
        self.violations.append(FuzzViolation(-1, "check", "", why))

    def sample_memory(self) -> None:
        """Measure the memory. Raises BenchError when a replica has ended."""
        sizes = resident_mb(self.cluster)
        if ended := self.cluster.replicas.keys() - sizes.keys():
            raise BenchError(f"{', '.join(ended)} ended: see {self.cluster.directory}/*.log")
        self.memory.append(MemorySample(self.done, sizes))

    def check_logs(self) -> None:
        """Record a replica that ended or logged an error as a violation."""
        for name, replica in self.cluster.replicas.items():
            if not self.cluster.runs(name):
                self._check_failed(f"{name} has ended")
            lines = replica.log.read_text(errors="replace").splitlines()
            alarm = next((line for line in lines if any(alarm in line for alarm in _ALARMS)), None)
            if alarm is not None:
                self._check_failed(f"{name} logged: {alarm}")


async def measure(
    directory: Path, *, requests: int, nodes: int, seed: int, on_attempt: Callable[[], None]
) -> FuzzResult:
    """Send malformed requests to a new cluster. Raises BenchError or ClusterError."""
    async with started(directory / "cluster", nodes) as cluster:
        run = _FuzzRun(cluster, seed, requests, on_attempt)
        async with aiohttp.ClientSession() as session, session.get(f"{cluster.endpoints[0]}/openapi.json") as response:
            document = await response.json()
        async with Client(cluster.endpoints) as client:
            await client.put(SENTINEL[0].removeprefix(b"/kv/"), SENTINEL[1])
        began = time.perf_counter()
        checking = asyncio.create_task(run.check())
        try:
            await _attempt(run, RequestForge(calls_of(document)), {*problem_types(document), *GENERAL_TYPES})
            seconds = time.perf_counter() - began
            await asyncio.sleep(SETTLE_S)
            run.sample_memory()
        finally:
            checking.cancel()
        run.check_logs()
    return FuzzResult(
        seed=run.seed,
        attempts=run.done,
        seconds=seconds,
        statuses=dict(sorted(run.statuses.items())),
        families=dict(sorted(run.families.items())),
        closed=run.closed,
        unanswered=run.unanswered,
        cut=run.cut,
        checks=run.checks,
        slowest_ms=run.slowest_ms,
        memory=run.memory,
        violations=run.violations,
    )


async def _attempt(run: _FuzzRun, forge: RequestForge, types: set[str]) -> None:
    """Make all attempts, and sample memory after the warm-up and at regular intervals after it."""
    warm_up = min(WARM_UP, run.attempts // 2)
    ends = {warm_up, *(run.attempts * part // SAMPLES for part in range(1, SAMPLES + 1))}
    numbers = itertools.count()
    for end in sorted(end for end in ends if end >= warm_up):
        batch = itertools.islice(numbers, end - run.done)
        await asyncio.gather(*(run.attempt_all(forge, types, batch) for _ in range(CONNECTIONS)))
        run.sample_memory()
        if run.violations and run.done < end:
            return


def problem_types(part: object) -> Iterator[str]:
    """Yield every problem type in a JSON document."""
    match part:
        case str() if part.startswith("urn:kvstore:problem:"):
            yield part
        case dict():
            for value in part.values():
                yield from problem_types(value)
        case list():
            for value in part:
                yield from problem_types(value)
