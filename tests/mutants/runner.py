"""Plants one mutant at a time in copies of the tree and runs the checks, called nets, on each copy."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from math import inf
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Self

import msgspec

from tests.mutants import nets
from tests.mutants.mutant import Mutant, Net
from tests.mutants.nets import Cast, Catch

ROOT = Path(__file__).parent.parent.parent
_ROOMS = ("bench", "docs", "kvstore", "paxos", "storage", "tests")
_FILES = ("README.md", "pyproject.toml")
_TIMEOUT_FACTOR = 4
"""A command that takes this many times as long as without a mutant counts as hanging."""
_MIN_TIMEOUT_S = 60.0
"""Shortest timeout of a command."""


class BaselineError(Exception):
    """A net fails without any mutant, so its failures prove nothing."""


class MutantResult(msgspec.Struct):
    """The outcome of each net that could see one mutant."""

    mutant: Mutant
    catches: dict[Net, Catch]

    @property
    def caught(self) -> bool:
        """True if any net caught the mutant."""
        return any(catch.by for catch in self.catches.values())

    @property
    def seconds(self) -> float:
        """Seconds that all nets took."""
        return sum(catch.seconds for catch in self.catches.values())


class Runner:
    """A context manager that holds `jobs` copies of the tree and runs at most as many commands at once."""

    def __init__(self, jobs: int, seeds: int, only: frozenset[Net] = frozenset()) -> None:
        """With `only`, these nets alone are cast, and those after the first that catches are not."""
        self._seeds = seeds
        self._only = only
        self._trees: SimpleQueue[Path] = SimpleQueue()
        self._limits_s: dict[Cast, float] = {}
        with ExitStack() as stack:
            for _ in range(jobs):
                tree = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutant-")))
                _copy(ROOT, tree)
                self._trees.put(tree)
            self._pool = stack.enter_context(ThreadPoolExecutor(jobs))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._stack.close()

    def measure(self, mutants: Iterable[Mutant]) -> None:
        """Run every net that these mutants need without a mutant, to set the timeouts. Raises BaselineError."""
        needed = dict.fromkeys(cast for mutant in mutants for cast in nets.casts(mutant, self._seeds, self._only))
        for cast, catch in zip(needed, self._pool.map(self._cast_on_sound_code, needed), strict=True):
            if catch.by:
                command = " ".join(cast.arguments)
                raise BaselineError(f"`python {command}` fails without any mutant ({catch.by}): fix that first")
            self._limits_s[cast] = max(_MIN_TIMEOUT_S, _TIMEOUT_FACTOR * catch.seconds)

    def run(self, mutants: Iterable[Mutant], *, seconds: float = inf) -> Iterator[MutantResult]:
        """Yield the result of each mutant, in the order in which they end. No mutant begins after `seconds`."""
        end = monotonic() + seconds

        def attempt(mutant: Mutant) -> MutantResult | None:
            return self._try(mutant) if monotonic() < end else None

        for ended in as_completed([self._pool.submit(attempt, mutant) for mutant in mutants]):
            if (result := ended.result()) is not None:
                yield result

    def _cast_on_sound_code(self, cast: Cast) -> Catch:
        tree = self._trees.get()
        try:
            return nets.run(cast, tree, None)
        finally:
            self._trees.put(tree)

    def _try(self, mutant: Mutant) -> MutantResult:
        tree = self._trees.get()
        file = tree / mutant.path
        sound = file.read_text()
        try:
            file.write_text(mutant.patched(sound))
            return MutantResult(mutant, self._cast_all(mutant, tree))
        finally:
            file.write_text(sound)
            shutil.rmtree(tree / ".hypothesis", ignore_errors=True)  # or one mutant's examples help to catch the next
            self._trees.put(tree)

    def _cast_all(self, mutant: Mutant, tree: Path) -> dict[Net, Catch]:
        catches: dict[Net, Catch] = {}
        for cast in nets.casts(mutant, self._seeds, self._only):
            catches[cast.net] = nets.run(cast, tree, self._limits_s[cast])
            if self._only and catches[cast.net].by:
                break
        return catches


def _copy(root: Path, tree: Path) -> None:
    for room in _ROOMS:
        shutil.copytree(root / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _FILES:
        shutil.copy(root / name, tree)
