"""Plants mutants in copies of the tree, one at a time in each, and casts the nets."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Self

import msgspec

from tests.mutants import nets
from tests.mutants.mutant import Mutant, Net
from tests.mutants.nets import Cast, Catch

ROOT = Path(__file__).parent.parent.parent
_ROOMS = ("bench", "docs", "kvstore", "paxos", "storage", "tests")
_FILES = ("README.md", "pyproject.toml")
_PATIENCE = 4
"""A cast that takes so many times as long as on sound code hangs,"""
_PATIENCE_S = 60.0
"""but it is given this long."""


class BaselineError(Exception):
    """A net catches something in sound code, so that it says nothing about mutants."""


class MutantResult(msgspec.Struct):
    """What the nets brought up for one mutant. A net that could not see it is not in `catches`."""

    mutant: Mutant
    catches: dict[Net, Catch]

    @property
    def caught(self) -> bool:
        """Whether any net caught it."""
        return any(catch.by for catch in self.catches.values())

    @property
    def seconds(self) -> float:
        """How long the nets took together."""
        return sum(catch.seconds for catch in self.catches.values())


class Runner:
    """Use it in `with`: it holds `jobs` copies of the tree, and at most as many commands run at once."""

    def __init__(self, jobs: int, seeds: int) -> None:
        self._seeds = seeds
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
        """Cast on sound code every net that these mutants need; that sets the time limits. Raises BaselineError."""
        needed = dict.fromkeys(cast for mutant in mutants for cast in nets.casts(mutant, self._seeds))
        for cast, catch in zip(needed, self._pool.map(self._cast_on_sound_code, needed), strict=True):
            if catch.by:
                command = " ".join(cast.arguments)
                raise BaselineError(f"`python {command}` fails without any mutant ({catch.by}): mend that first")
            self._limits_s[cast] = max(_PATIENCE_S, _PATIENCE * catch.seconds)

    def run(self, mutants: Iterable[Mutant]) -> Iterator[MutantResult]:
        """What the nets bring up for each, in the order in which they end."""
        for ended in as_completed([self._pool.submit(self._try, mutant) for mutant in mutants]):
            yield ended.result()

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
        return {cast.net: nets.run(cast, tree, self._limits_s[cast]) for cast in nets.casts(mutant, self._seeds)}


def _copy(root: Path, tree: Path) -> None:
    for room in _ROOMS:
        shutil.copytree(root / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _FILES:
        shutil.copy(root / name, tree)
