"""The rounds of a comparison."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.compare.found import Case, Comparison, Measurement
from bench.compare.h2load import find_h2load
from bench.compare.loads import Grpc, Wrk, fill, measure
from bench.compare.scenarios import ETCD, FIVE, GROWN, KVSTORE, LOADS, PYSYNCOBJ, TUNED, Scenario
from bench.errors import BenchError
from bench.peers.pysyncobj import PySyncObj, check_installed
from bench.stores import Etcd, Kvstore, Store, find_etcd
from bench.wrk import find_wrk
from kvstore.testing.cluster_directory import ClusterError

GROWN_KEYS = 1_000_000

STORES: dict[str, Callable[[Path], Store]] = {
    KVSTORE: Kvstore,
    FIVE: lambda directory: Kvstore(directory, nodes=5),
    GROWN: lambda directory: Kvstore(directory.with_name("grown"), keys=GROWN_KEYS),
    ETCD: lambda directory: Etcd(find_etcd(), directory),
    PYSYNCOBJ: lambda _: PySyncObj(tuned=False),
    TUNED: lambda _: PySyncObj(tuned=True),
}

KEPT = frozenset({GROWN})
"""These take long to make: they are started again with the data that they have. The others get new data each time."""


async def compare(
    directory: Path,
    scenarios: Sequence[Scenario],
    found: Comparison,
    on_load: Callable[[Measurement], None],
    on_round: Callable[[], None],
) -> None:
    """Add to `found` what each scenario gives; one that cannot be measured is told there, and the next one tried.

    `on_load` is called after each load, `on_round` after each round.
    """
    for scenario in scenarios:
        try:
            check_tools(scenario)
            contest = _Contest(directory, scenario, found, on_load)
            for number in range(1, found.rounds + 1):
                for name in scenario.stores:
                    await contest.turn(number, name)
                on_round()
        except (BenchError, ClusterError, OSError) as error:
            found.failures[scenario.name] = str(error)
            on_round()


def loads_of(scenarios: Sequence[Scenario]) -> int:
    """How many loads a round of all of them has."""
    return sum(len(loads) for scenario in scenarios for loads in scenario.stores.values())


def check_tools(scenario: Scenario) -> None:
    """Raises BenchError when one of the programs that it needs is not installed."""
    loads = [LOADS[load] for names in scenario.stores.values() for load in names]
    if any(isinstance(load, Wrk) for load in loads):
        find_wrk()
    if any(isinstance(load, Grpc) for load in loads):
        find_h2load()
    if ETCD in scenario.stores:
        find_etcd()
    if PYSYNCOBJ in scenario.stores:
        check_installed()


class _Contest:
    """The turns of the stores of one scenario."""

    def __init__(
        self, directory: Path, scenario: Scenario, found: Comparison, on_load: Callable[[Measurement], None]
    ) -> None:
        self._directory = directory
        self._scenario = scenario
        self._found = found
        self._on_load = on_load
        self._kept: dict[str, Store] = {}

    async def turn(self, number: int, name: str) -> None:
        """One store's turn in a round. Raises BenchError or ClusterError."""
        data = self._directory / f"{self._scenario.name}-{number}"
        store = self._kept.get(name) or STORES[name](data)
        try:
            await store.start()
            await self._loads(store, number, name)
        finally:
            await store.stop()
        if name in KEPT:
            self._kept[name] = store
        else:
            shutil.rmtree(data, ignore_errors=True)  # PySyncObj has none

    async def _loads(self, store: Store, number: int, name: str) -> None:
        filled: Wrk | None = None
        for load_name in self._scenario.stores[name]:
            load = LOADS[load_name]
            if isinstance(load, Wrk) and (filled is None or load.value_bytes != filled.value_bytes):
                await fill(store, load)
                filled = load
            figures = await measure(store, load, self._directory, self._found.seconds)
            one = Measurement(scenario=self._scenario.name, round=number, case=Case(name, load_name), figures=figures)
            self._found.measurements.append(one)
            self._on_load(one)
