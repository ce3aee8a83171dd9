"""Whatever is asked of it, the storage on disk answers as the reference does; after a restart or a crash, too."""

import shutil
from pathlib import Path
from tempfile import mkdtemp

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paxos.ready import Write
from paxos.types import Ballot, PValue
from storage.base import Storage, StorageError
from storage.memory import MemoryStorage
from storage.sqlite import open_storage
from tests.storage.numbered_writes import MEMBERS

ballots = st.builds(Ballot, st.integers(0, 3), st.sampled_from(["n1", "n2"]))
pvalues = st.builds(PValue, st.integers(1, 8), ballots, st.binary(max_size=20))
writes = st.builds(
    Write, promise=st.none() | ballots, accepts=st.lists(pvalues, max_size=4), chosen=st.none() | st.integers(0, 8)
)


def outcome(storage: Storage, batch: list[Write]) -> str:
    try:
        storage.write(batch)
    except StorageError as error:
        return str(error)
    return "stored"


class BothStorages(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(mkdtemp())
        self.images = 0
        self.disk = open_storage(self.root / "0", "test", "n1", MEMBERS)
        self.memory = MemoryStorage("test", "n1", self.disk.recovered().identity.incarnation)

    @rule(batch=st.lists(writes, max_size=3))
    def write(self, batch: list[Write]) -> None:
        self.keep_chosen_without_gaps(batch)
        answer = outcome(self.disk, batch)
        assert answer == outcome(self.memory, batch)
        if answer != "stored":
            self.restart()

    def keep_chosen_without_gaps(self, batch: list[Write]) -> None:
        """The core's part of the contract: a chosen prefix has no gap."""
        slots = {pvalue.slot for pvalue in self.memory.read(1, 8, 1000)}
        for write in batch:
            slots.update(pvalue.slot for pvalue in write.accepts)
            prefix = next(slot for slot in range(9, -1, -1) if slots.issuperset(range(1, slot + 1)))
            write.chosen = None if write.chosen is None else min(write.chosen, prefix)

    @rule(from_slot=st.integers(1, 9), upto=st.integers(0, 9), max_bytes=st.integers(0, 60))
    def read(self, from_slot: int, upto: int, max_bytes: int) -> None:
        assert self.disk.read(from_slot, upto, max_bytes) == self.memory.read(from_slot, upto, max_bytes)

    @rule()
    def restart(self) -> None:
        self.disk.close()
        self.disk = open_storage(self.root / str(self.images), "test", "n1", MEMBERS)
        self.memory = self.memory.reopen()

    @rule()
    def crash(self) -> None:
        """The files as a killed process leaves them: nothing was checkpointed for good-bye."""
        self.images += 1
        image = self.root / str(self.images)
        shutil.copytree(self.root / str(self.images - 1), image)
        self.disk.close()
        self.disk = open_storage(image, "test", "n1", MEMBERS)
        self.memory = self.memory.reopen()

    @invariant()
    def both_recovered_the_same(self) -> None:
        assert self.disk.recovered() == self.memory.recovered()

    def teardown(self) -> None:
        self.disk.close()
        shutil.rmtree(self.root)


TestBothStorages = BothStorages.TestCase
TestBothStorages.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
