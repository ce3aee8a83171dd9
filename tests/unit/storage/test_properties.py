"""Whatever is asked of it, the storage on disk answers as the reference does; after a restart or a crash, too."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paxos.ready import Write
from paxos.types import Ballot, PValue
from storage import compaction, maintenance
from storage import sqlite as module
from storage.base import AppliedProgress, Change, StagedPage, StateWrite, Storage, StorageError, Truncation
from storage.lineage import Lineage
from storage.memory import MemoryStorage
from storage.sqlite import open_storage
from tests.unit.storage.numbered_writes import MEMBERS
from tests.unit.storage.states import EVERYTHING, WriteMaker, chain, compacted

LAST = 8
ballots = st.builds(Ballot, st.integers(0, 3), st.sampled_from(["n1", "n2"]))
pvalues = st.builds(PValue, st.integers(1, LAST), ballots, st.binary(max_size=20))
writes = st.builds(
    Write, promise=st.none() | ballots, accepts=st.lists(pvalues, max_size=4), chosen=st.none() | st.integers(0, LAST)
)
keys = st.sampled_from([b"", b"a", b"b", b"c"])
values = st.none() | st.binary(max_size=9)
edits = st.lists(st.tuples(keys, values), max_size=6)
mostly_right = st.sampled_from([0] * 8 + [1, -1])
"""How far something is off, seldom."""


def outcome(storage: Storage, batch: Sequence[Write]) -> str:
    try:
        storage.write(batch)
    except StorageError as error:
        return str(error)
    return "stored"


def changes_of(machine: WriteMaker, wanted: Sequence[tuple[bytes, bytes | None]]) -> list[Change]:
    """A key that is absent cannot be deleted."""
    return [
        machine.delete(key) if value is None else machine.put(key, value)
        for key, value in wanted
        if value is not None or key in machine.alive
    ]


class BothStorages(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(mkdtemp())
        self.images = 0
        self.disk = open_storage(self.root / "0", "test", "n1", MEMBERS)
        self.memory = MemoryStorage("test", "n1", self.disk.recovered().identity.incarnation, members=MEMBERS)
        self.peer = MemoryStorage("test", "n2")

    @rule(batch=st.lists(writes, max_size=3))
    def write(self, batch: list[Write]) -> None:
        self.keep_chosen_without_gaps(batch)
        self.store(batch)

    def store(self, batch: Sequence[Write]) -> None:
        answer = outcome(self.disk, batch)
        assert answer == outcome(self.memory, batch)
        if answer != "stored":
            self.restart()

    def keep_chosen_without_gaps(self, batch: list[Write]) -> None:
        """The core's part of the contract: a chosen prefix has no gap."""
        cut = self.memory.hard_state.truncation.slot
        slots = {pvalue.slot for pvalue in self.memory.read(cut + 1, LAST, 1000)} | set(range(cut + 1))
        for write in batch:
            slots.update(pvalue.slot for pvalue in write.accepts)
            prefix = next(slot for slot in range(LAST + 1, -1, -1) if slots.issuperset(range(1, slot + 1)))
            write.chosen = None if write.chosen is None else min(write.chosen, prefix)

    @rule(wanted=edits, slots=st.integers(0, 3), off=mostly_right, cut=st.none() | st.integers(0, LAST))
    def apply(self, wanted: list[tuple[bytes, bytes | None]], slots: int, off: int, cut: int | None) -> None:
        machine, hard_state = WriteMaker.of(self.memory), self.memory.hard_state
        changes = changes_of(machine, wanted)
        machine.applied = max(0, max(machine.applied, min(hard_state.chosen, machine.applied + slots)) + off)
        machine.position = max(0, machine.position + off)
        write = StateWrite(changes=changes, progress=machine.progress())
        if cut is not None:
            write.truncate = Truncation(min(cut, machine.applied), chain(cut))
        self.store([write])

    @rule(slot=st.integers(0, LAST))
    def cut(self, slot: int) -> None:
        self.store([StateWrite(truncate=Truncation(slot, chain(slot)))])

    @rule(ago=st.integers(-1, 9))
    def compact(self, ago: int) -> None:
        self.store([StateWrite(compact=max(0, self.memory.hard_state.progress.position - ago))])

    @rule(wanted=edits, keep=st.integers(0, 9), slots=st.integers(0, LAST))
    def peer_moves(self, wanted: list[tuple[bytes, bytes | None]], keep: int, slots: int) -> None:
        """It begins where this replica is, when that is ahead."""
        if self.peer.hard_state.progress.applied < self.memory.hard_state.progress.applied:
            self.peer = self.memory.reopen()
        machine, hard_state = WriteMaker.of(self.peer), self.peer.hard_state
        changes = changes_of(machine, wanted)
        machine.applied = min(LAST, machine.applied + slots)
        filler = [PValue(slot, Ballot(1, "n2"), b"peer") for slot in range(hard_state.chosen + 1, machine.applied + 1)]
        self.peer.write(
            [
                StateWrite(
                    accepts=filler,
                    chosen=max(hard_state.chosen, machine.applied),
                    changes=changes,
                    progress=machine.progress(),
                    compact=max(hard_state.compact, machine.position - keep),
                )
            ]
        )

    @rule(
        anew=st.sampled_from([False] * 4 + [True]),
        max_bytes=st.integers(0, 40),
        off=mostly_right,
        count=st.integers(1, 9),
    )
    def stage(self, anew: bool, max_bytes: int, off: int, count: int) -> None:
        staged = 0 if anew else self.memory.hard_state.staging.position
        batch = []
        for _ in range(count):
            page = self.peer.read_state(staged, max_bytes)
            batch.append(StateWrite(staged=StagedPage(max(0, staged + off), page)))
            if page.progress is not None:
                break
            staged = page.changes[-1].position
        self.store(batch)

    @rule(progress=st.builds(AppliedProgress, st.integers(0, 3), st.integers(0, 3)), wanted=edits)
    def install_by_the_way(self, progress: AppliedProgress, wanted: list[tuple[bytes, bytes | None]]) -> None:
        """The state that is staged, and one more write, in one transaction."""
        staged = self.memory.hard_state.staging.position
        page = self.peer.read_state(staged, EVERYTHING)
        self.store([StateWrite(staged=StagedPage(staged, page)), StateWrite(progress=progress)])

    @rule(from_slot=st.integers(0, 9), upto=st.integers(0, 9), max_bytes=st.integers(0, 60))
    def read(self, from_slot: int, upto: int, max_bytes: int) -> None:
        assert self.disk.read(from_slot, upto, max_bytes) == self.memory.read(from_slot, upto, max_bytes)

    @rule(after=st.integers(0, 20), max_bytes=st.integers(0, 60))
    def read_state(self, after: int, max_bytes: int) -> None:
        assert self.disk.read_state(after, max_bytes, staged=True) == self.memory.read_state(
            after, max_bytes, staged=True
        )
        while self.disk.maintain():
            pass
        assert self.disk.read_state(after, max_bytes) == self.memory.read_state(after, max_bytes)

    @rule()
    def maintain(self) -> None:
        self.disk.maintain()

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
        assert msgspec.structs.replace(self.disk.recovered(), lineage=Lineage()) == self.memory.recovered()

    @invariant()
    def both_show_the_same_state(self) -> None:
        """What is compacted and not tidied yet may still be there."""
        page, model = self.disk.read_state(0, EVERYTHING), self.memory.read_state(0, EVERYTHING)
        assert page.progress == model.progress
        assert compacted(page.changes, page.compacted, model.compacted) == model.changes
        assert len(compacted(page.changes, 0, page.compacted)) == len(page.changes)

    def teardown(self) -> None:
        self.disk.close()
        shutil.rmtree(self.root)


class BothStoragesInSmallSlices(BothStorages):
    """Maintenance row by row: it is seldom done when the next thing happens."""

    def __init__(self) -> None:
        self.usual = module._SLICE_UNITS, module._UNITS_PER_WRITE
        self.usual_round = compaction.PIECE_UNITS, compaction.ROUND_KEYS, maintenance.BACKLOG_BYTES
        module._SLICE_UNITS, module._UNITS_PER_WRITE = 2, 1
        compaction.PIECE_UNITS, compaction.ROUND_KEYS, maintenance.BACKLOG_BYTES = 1, 5, 20
        super().__init__()

    def teardown(self) -> None:
        module._SLICE_UNITS, module._UNITS_PER_WRITE = self.usual
        compaction.PIECE_UNITS, compaction.ROUND_KEYS, maintenance.BACKLOG_BYTES = self.usual_round
        super().teardown()


TestBothStorages = BothStorages.TestCase
TestBothStorages.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
TestBothStoragesInSmallSlices = BothStoragesInSmallSlices.TestCase
TestBothStoragesInSmallSlices.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
