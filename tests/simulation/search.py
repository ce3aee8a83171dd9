"""Many seeds over all cores."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import msgspec

from tests.simulation.run import Summary, simulate
from tests.simulation.shrink import VIOLATIONS, kind

CHUNK = 25
"""Seeds that a worker takes at once."""


class SearchResult(msgspec.Struct):
    """The outcome of many seeds. `core_s`: seconds of processor time, over all cores."""

    summary: Summary = msgspec.field(default_factory=Summary)
    failed: dict[int, str] = msgspec.field(default_factory=dict)
    core_s: float = 0.0

    def add(self, other: "SearchResult") -> None:
        """Count the outcome of other seeds in."""
        self.summary.add(other.summary)
        self.failed |= other.failed
        self.core_s += other.core_s


def try_seeds(seeds: list[int]) -> SearchResult:
    """Run these seeds, one after the other."""
    found = SearchResult()
    began = time.process_time()
    for seed in seeds:
        try:
            found.summary.add(simulate(seed))
        except VIOLATIONS as error:
            found.failed[seed] = kind(error)
    found.core_s = time.process_time() - began
    return found


def search(seeds: range, jobs: int, progress: Callable[[int, int], None]) -> SearchResult:
    """Run `seeds` in `jobs` processes. `progress` hears how many seeds are done, and how many of them failed."""
    found = SearchResult()
    done = 0
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(try_seeds, chunk) for chunk in chunks(seeds)]):
            one = future.result()
            found.add(one)
            done += one.summary.runs + len(one.failed)
            progress(done, len(found.failed))
    return found


def chunks(seeds: range) -> Iterator[list[int]]:
    """All seeds, a worker's portion each."""
    for begin in range(0, len(seeds), CHUNK):
        yield list(seeds[begin : begin + CHUNK])
