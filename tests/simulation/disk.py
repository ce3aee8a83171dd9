"""A simulated disk with the production storage on it, and a model of what it holds.

Whatever a write reports as durable is in the files, so that a loss of power is a copy of them; and a write that was
under way is in the copy up to some byte of the write-ahead log.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace

from paxos.ready import Write
from paxos.types import NodeId, PValue, Slot
from storage import compaction, maintenance, schema, sqlite, wal
from storage.base import DiskSpace, Recovered, StatePage
from storage.directory import DATA_FILE
from storage.hard_state import HardState
from storage.memory import MemoryStorage
from storage.sqlite import SqliteStorage, open_storage
from tests.simulation.steps import Constant, replaced
from tests.unit.storage.states import shown

HEADER_BYTES = 32
"""Of the write-ahead log."""
SMALL: tuple[Constant, ...] = (
    (sqlite, "CHECKPOINT_BYTES", 1 << 17),
    (sqlite, "_SLICE_UNITS", 2),
    (compaction, "PIECE_UNITS", 1),
    (maintenance, "BACKLOG_BYTES", 40),
)
"""Sizes at which checkpoints come often, and maintenance takes many slices."""


class SqliteDisk:
    """A disk in a directory of its own."""

    def __init__(self, directory: Path, model: MemoryStorage, rng: Random) -> None:
        """Open the data in `directory`, where there is any; `model` holds the same."""
        self.space = DiskSpace.AMPLE
        self._directory = directory
        self._model = model
        self._rng = rng
        self._constants = SMALL if rng.random() < 0.5 else ()
        self._torn: Sequence[Write] = ()
        """Writes that were under way when the power failed."""
        identity = model.recovered().identity
        drawn = SimpleNamespace(randbits=lambda _: identity.incarnation)
        with replaced([*self._constants, (schema, "secrets", drawn)]):
            self._storage: SqliteStorage = open_storage(directory, identity.cluster, identity.node, identity.members)

    @classmethod
    def create(
        cls, directory: Path, node: NodeId, incarnation: int, rng: Random, writes: Sequence[Write]
    ) -> "SqliteDisk":
        """Make a disk with these writes on it; it is empty without any."""
        disk = cls(directory / "1", MemoryStorage("simulated", node, incarnation), rng)
        for write in writes:
            disk.write([write])
        return disk.reopen() if writes else disk

    @property
    def hard_state(self) -> HardState:
        """What is durable."""
        return self._model.hard_state

    def recovered(self) -> Recovered:
        """See Storage."""
        return self._storage.recovered()

    def read(self, from_slot: Slot, upto: Slot, max_bytes: int) -> list[PValue]:
        """See Storage."""
        found = self._storage.read(from_slot, upto, max_bytes)
        assert found == self._model.read(from_slot, upto, max_bytes), "the log on the disk is not what was written"
        return found

    def read_state(self, after: int, max_bytes: int, *, staged: bool = False) -> StatePage:
        """See Storage."""
        with replaced(self._constants):
            return self._storage.read_state(after, max_bytes, staged=staged)

    def write(self, writes: Sequence[Write]) -> None:
        """See Storage. Work that is put off is done at times."""
        with replaced(self._constants):
            self._storage.write(writes)
            if self._rng.random() < 0.5:
                self._storage.tidy()
            if self._rng.random() < 0.2:
                self._storage.maintain()
        self._model.write(writes)

    def tidy(self) -> None:
        """See Storage; `write` does it."""

    def maintain(self) -> bool:
        """See Storage; `write` does it."""
        return False

    def verify_files(self) -> None:
        """See Storage."""
        self._storage.verify_files()

    def lose_power(self, under_way: Sequence[Write]) -> None:
        """The power fails while `under_way` is written."""
        self._torn = under_way

    def reopen(self) -> "SqliteDisk":
        """Return the disk as the loss of power left it, one boot later."""
        log = self._directory / (DATA_FILE + "-wal")
        before, models = wal.length(log), [self._model]
        if self._torn:
            with replaced(self._constants):
                self._storage.write(self._torn)
            after = self._model.reopen()
            after.write(self._torn)
            models.append(after)
        end = wal.length(log)
        image = self._directory.with_name(str(int(self._directory.name) + 1))
        shutil.copytree(self._directory, image)
        if before < end:
            with (image / log.name).open("r+b") as file:
                file.truncate(HEADER_BYTES + self._rng.randint(before, end))
        elif self._torn:
            models.pop(0)  # a checkpoint came in between
        self._storage.close()
        shutil.rmtree(self._directory)
        return self._opened(image, models)

    def _opened(self, image: Path, models: Sequence[MemoryStorage]) -> "SqliteDisk":
        disk = SqliteDisk(image, models[0].reopen(), self._rng)
        found = shown(disk._storage)
        for model in models:
            disk._model = model.reopen()
            if found == shown(disk._model):
                break
        else:
            raise AssertionError("the disk holds neither what was durable nor what was under way")
        return disk

    def close(self) -> None:
        """Let the files go."""
        self._storage.close()
