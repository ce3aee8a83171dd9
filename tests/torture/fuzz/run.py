"""Throws malformed requests at a cluster of its own, and looks whether it stays what it was."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import aiohttp

from bench.errors import BenchError
from bench.processes import usage
from kvstore.client import Client, ClientError
from kvstore.testing.process_cluster import ProcessCluster
from tests.torture.fuzz.exchange import Exchange, NotHttpError, exchange, fault
from tests.torture.fuzz.found import Fault, Fuzz, Memory
from tests.torture.fuzz.malformed import SENTINEL, Attempt, Forge, calls_of

CONNECTIONS = 64
WARM_UP = 2_000
"""So many attempts are made before memory is looked at first: connections, parsers and caches are there then."""
LOOKS = 20
MOST_FAULTS = 20
"""A run with so many of them ends."""
CHECKED_KEYS = 50
CHECK_PAUSE_S = 0.02
SETTLE_S = 1.0
OF_NO_CALL = ("urn:kvstore:problem:method-not-allowed", "urn:kvstore:problem:no-such-resource")
_ALARMS = (" ERROR ", " CRITICAL ", "Traceback")


class _Run:
    """The tallies of a run, and whatever throws, checks and looks. `on_attempt` is called for each attempt."""

    def __init__(self, cluster: ProcessCluster, seed: int, attempts: int, on_attempt: Callable[[], None]) -> None:
        self.cluster = cluster
        self.seed = seed
        self.attempts = attempts
        self.statuses: Counter[str] = Counter()
        self.families: Counter[str] = Counter()
        self.memory: list[Memory] = []
        self.faults: list[Fault] = []
        self.closed = self.unanswered = self.cut = self.checks = self.done = 0
        self.slowest_ms = 0.0
        self._on_attempt = on_attempt
        self._places = [place.listen for place in cluster.replicas.values()]

    async def throw(self, forge: Forge, types: set[str], numbers: Iterator[int]) -> None:
        """One attempt after the other, until there is no number left."""
        for number in numbers:
            if len(self.faults) >= MOST_FAULTS:
                return
            attempt = forge.draw(Random(f"{self.seed}/{number}"))
            place = self._places[number % len(self._places)]
            try:
                found = await exchange(place.host, place.port, attempt)
            except NotHttpError as error:
                self._note(number, attempt, f"what came is not HTTP: {error}")
            except OSError as error:
                self._note(number, attempt, f"no connection: {error}")
                return
            else:
                self._count(attempt, found)
                why = fault(attempt, found, types)
                if why is not None:
                    self._note(number, attempt, why)
            self.done += 1
            self._on_attempt()

    def _count(self, attempt: Attempt, found: Exchange) -> None:
        self.families[attempt.family] += 1
        self.statuses.update(str(answer.status) for answer in found.answers)
        self.closed += found.closed
        self.cut += attempt.cut
        self.unanswered += not (found.answers or found.closed or attempt.cut)

    def _note(self, number: int, attempt: Attempt, why: str) -> None:
        self.faults.append(Fault(number, attempt.family, repr(b"".join(attempt.pieces))[:600], why))

    async def check(self) -> None:
        """Write values of its own and read them back at each replica, for ever."""
        async with Client(self.cluster.endpoints) as writer:
            readers = [Client([endpoint]) for endpoint in self.cluster.endpoints]
            for number in itertools.count():
                key, value = f"checked/{number % CHECKED_KEYS}", b"value %d" % number
                async with readers[number % len(readers)] as reader:
                    began = time.perf_counter()
                    try:
                        await writer.put(key, value)
                        record = await reader.get(key)
                    except ClientError as error:
                        self._wrong(f"a good request failed: {error}")
                    else:
                        if record is None or record.value != value:
                            self._wrong(f"{key} was put as {value!r}, and read as {record!r}")
                        self.checks += 1
                        self.slowest_ms = max(self.slowest_ms, (time.perf_counter() - began) * 1000)
                await asyncio.sleep(CHECK_PAUSE_S)

    def _wrong(self, why: str) -> None:
        self.faults.append(Fault(-1, "check", "", why))

    def look(self) -> None:
        """At the memory. Raises OSError when a replica is gone."""
        resident = {name: usage([self.cluster.process_id(name)]).resident_bytes / 1e6 for name in self.cluster.replicas}
        self.memory.append(Memory(self.done, resident))

    def look_at_logs(self) -> None:
        """A replica that ended, or complains, has a fault."""
        for name, place in self.cluster.replicas.items():
            if not self.cluster.runs(name):
                self._wrong(f"{name} has ended")
            complaints = [line for line in place.log.read_text(errors="replace").splitlines() if _complains(line)]
            if complaints:
                self._wrong(f"{name} logged: {complaints[0]}")


def _complains(line: str) -> bool:
    return any(alarm in line for alarm in _ALARMS)


async def measure(directory: Path, *, requests: int, nodes: int, seed: int, on_attempt: Callable[[], None]) -> Fuzz:
    """Throw so many malformed requests at a new cluster in `directory`. Raises BenchError or ClusterError."""
    cluster = ProcessCluster(nodes, directory / "cluster")
    cluster.prepare()
    try:
        cluster.start()
        await cluster.wait_ready()
        return await _thrown(_Run(cluster, seed, requests, on_attempt))
    finally:
        await cluster.stop()


async def _thrown(run: _Run) -> Fuzz:
    endpoint = run.cluster.endpoints[0]
    async with aiohttp.ClientSession() as session, session.get(f"{endpoint}/openapi.json") as response:
        document = await response.json()
    async with Client(run.cluster.endpoints) as client:
        await client.put(SENTINEL[0].removeprefix(b"/kv/"), SENTINEL[1])
    forge, types = Forge(calls_of(document)), types_of(document)
    began = time.perf_counter()
    checking = asyncio.create_task(run.check())
    try:
        ends = [min(WARM_UP, run.attempts // 2), *(run.attempts * part // LOOKS for part in range(1, LOOKS + 1))]
        numbers = itertools.count()
        for end in sorted({end for end in ends if end >= ends[0]}):
            batch = itertools.islice(numbers, end - run.done)
            await asyncio.gather(*(run.throw(forge, types, batch) for _ in range(CONNECTIONS)))
            run.look()
            if run.faults and run.done < end:
                break
        seconds = time.perf_counter() - began
        await asyncio.sleep(SETTLE_S)
        run.look()
    except OSError as error:
        raise BenchError(f"a replica has ended: {error}; its log has the cause") from error
    finally:
        checking.cancel()
    run.look_at_logs()
    return Fuzz(
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
        faults=run.faults,
    )


def types_of(document: dict[str, object]) -> set[str]:
    """Of all problems that a description names, and of those that no call has."""
    return {*find_all(document), *OF_NO_CALL}


def find_all(part: object) -> Iterator[str]:
    """Every URN of a problem in it."""
    match part:
        case str() if part.startswith("urn:kvstore:problem:"):
            yield part
        case dict():
            for value in part.values():
                yield from find_all(value)
        case list():
            for value in part:
                yield from find_all(value)
