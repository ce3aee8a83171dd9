"""The rounds of a comparison."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.compare.generators import find_h2load, find_wrk
from bench.compare.loads import GrpcLoad, WrkLoad, fill, measure
from bench.compare.model import Case, ComparisonResult, ComparisonScenario, Measurement
from bench.compare.pysyncobj import PySyncObjMembers, check_installed
from bench.compare.scenarios import ETCD, FIVE, GROWN, KVSTORE, LOADS, PYSYNCOBJ, TUNED
from bench.compare.stores import ComparedStore, EtcdMembers, KvstoreMembers, find_etcd
from bench.errors import BenchError
from kvstore.testing.cluster_directory import ClusterError

GROWN_KEYS = 1_000_000

STORES: dict[str, Callable[[Path], ComparedStore]] = {
    KVSTORE: KvstoreMembers,
    FIVE: partial(KvstoreMembers, nodes=5),
    GROWN: partial(KvstoreMembers, keys=GROWN_KEYS),
    ETCD: lambda directory: EtcdMembers(find_etcd(), directory),
    PYSYNCOBJ: partial(PySyncObjMembers, tuned=False),
    TUNED: partial(PySyncObjMembers, tuned=True),
}

KEPT = frozenset({GROWN})
"""Stores that keep their data between rounds, because writing it takes long; other stores start empty each time."""

SYNC_S = 0.5
BLOCK_BYTES = 4096


async def compare(
    directory: Path,
    scenarios: Sequence[ComparisonScenario],
    result: ComparisonResult,
    on_load: Callable[[Measurement], None],
) -> None:
    """Add the measurements of each scenario to `result`, and the error of a scenario that fails."""
    for scenario in scenarios:
        stores = _ScenarioStores(directory, scenario, result, on_load)
        try:
            check_tools(scenario)
            for number in range(1, result.rounds + 1):
                for name in scenario.stores:
                    await stores.measure(number, name)
        except (BenchError, ClusterError, OSError) as error:
            result.failures[scenario.name] = str(error)


def load_count(scenarios: Sequence[ComparisonScenario]) -> int:
    """Return the number of loads in one round."""
    return sum(len(loads) for scenario in scenarios for loads in scenario.stores.values())


def check_tools(scenario: ComparisonScenario) -> None:
    """Raise BenchError when a program that a scenario needs is not installed."""
    loads = [LOADS[load] for names in scenario.stores.values() for load in names]
    if any(isinstance(load, WrkLoad) for load in loads):
        find_wrk()
    if any(isinstance(load, GrpcLoad) for load in loads):
        find_h2load()
    if ETCD in scenario.stores:
        find_etcd()
    if PYSYNCOBJ in scenario.stores:
        check_installed()


def fdatasyncs_per_second(file: Path, seconds: float = SYNC_S) -> float:
    """Return how often per second one writer overwrites a block of a file and syncs it."""
    block = b"\0" * BLOCK_BYTES
    count = 0
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        os.write(descriptor, block)
        os.fsync(descriptor)
        began = time.perf_counter()
        while (elapsed_s := time.perf_counter() - began) < seconds or not count:
            os.pwrite(descriptor, block, 0)
            os.fdatasync(descriptor)
            count += 1
        return count / elapsed_s
    finally:
        os.close(descriptor)
        file.unlink()


class _ScenarioStores:
    """The stores of one scenario, which are measured in turn."""

    def __init__(
        self,
        directory: Path,
        scenario: ComparisonScenario,
        result: ComparisonResult,
        on_load: Callable[[Measurement], None],
    ) -> None:
        self._directory = directory
        self._scenario = scenario
        self._result = result
        self._on_load = on_load
        self._kept: dict[str, ComparedStore] = {}

    async def measure(self, number: int, name: str) -> None:
        """Measure all loads on one store in one round. Raises BenchError or ClusterError."""
        data = self._directory / f"{self._scenario.name}-{number}"
        store = self._kept.get(name) or STORES[name](data)
        try:
            await store.start()
            await self._measure_loads(store, number, name)
        finally:
            await store.stop()
        if name in KEPT:
            self._kept[name] = store
        else:
            shutil.rmtree(data, ignore_errors=True)  # PySyncObj has no files

    async def _measure_loads(self, store: ComparedStore, number: int, name: str) -> None:
        filled: WrkLoad | None = None
        for load_name in self._scenario.stores[name]:
            load = LOADS[load_name]
            if isinstance(load, WrkLoad) and (filled is None or load.value_bytes != filled.value_bytes):
                await fill(store, load, self._directory)
                filled = load
            figures = await measure(store, load, self._directory, self._result.seconds)
            case = Case(name, load_name)
            one = Measurement(scenario=self._scenario.name, round=number, case=case, figures=figures)
            self._result.measurements.append(one)
            self._on_load(one)
