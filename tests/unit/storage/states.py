"""Makes the writes of a replica that applies what it accepts, and tells what a storage shows of them."""

import hashlib
from collections.abc import Iterator
from itertools import count
from typing import Any

from paxos.ready import Write
from paxos.types import Ballot, GrantTerms, PValue, Slot
from storage.base import (
    AppliedProgress,
    Change,
    SeenStart,
    StagedPage,
    StatePage,
    StateWrite,
    Storage,
    Truncation,
    scan,
)
from storage.memory import MemoryStorage

EVERYTHING = 1 << 60


def entry(slot: Slot, size: int = 8, ballot: Ballot = Ballot(1, "n1")) -> PValue:  # noqa: B008 -- it is immutable
    return PValue(slot, ballot, slot.to_bytes(8, "big") * (size // 8))


def chain(slot: Slot) -> bytes:
    return hashlib.blake2b(slot.to_bytes(8, "big"), digest_size=16).digest()


class WriteMaker:
    """A state machine that puts and deletes keys."""

    def __init__(self) -> None:
        self.applied: Slot = 0
        self.position = 0
        self.alive: dict[bytes, Change] = {}

    @classmethod
    def of(cls, storage: MemoryStorage) -> "WriteMaker":
        """As it is stored."""
        machine, progress = cls(), storage.hard_state.progress
        machine.applied, machine.position = progress.applied, progress.position
        for change in rows(storage):
            machine.alive[change.key] = change
            if change.value is None:
                del machine.alive[change.key]
        return machine

    def put(self, key: bytes, value: bytes = b"value") -> Change:
        self.position += 1
        old = self.alive.get(key)
        created, version, supersedes = (self.position, 1, 0) if old is None else (old[3], old[4] + 1, old[0])
        self.alive[key] = Change(self.position, key, value, created, version, supersedes)
        return self.alive[key]

    def delete(self, key: bytes) -> Change:
        self.position += 1
        return Change(self.position, key, None, 0, 0, self.alive.pop(key).position)

    def progress(self) -> AppliedProgress:
        return AppliedProgress(self.applied, self.position, chain(self.applied), 2**63 + self.position, b"extra")

    def truncation(self, slot: Slot) -> Truncation:
        return Truncation(slot, chain(slot))

    def write(self, *changes: Change, size: int = 8) -> StateWrite:
        """One slot more, and what it did."""
        self.applied += 1
        slot = self.applied
        return StateWrite(accepts=[entry(slot, size)], chosen=slot, changes=list(changes), progress=self.progress())

    def busy(self, number: int, size: int = 8) -> StateWrite:
        """Puts and a deletion on a few keys, a function of `number`."""
        changes = [self.put(b"key %d" % (number * step % 11), bytes([step]) * size) for step in (1, 3, 5, 7)]
        if number % 3 == 0:
            changes.append(self.delete(changes[0].key))
            changes.append(self.put(changes[1].key, b""))
        return self.write(*changes, size=size)


def transactions(size: int = 8) -> Iterator[list[Write]]:
    """Without an end: a replica applies, cuts and compacts, and is given the state of one that is ahead. The promise
    of each counts them from 1."""
    machine = WriteMaker()
    for round_ in count():
        for step in range(6):
            yield [machine.busy(6 * round_ + step, size)]
        yield [StateWrite(truncate=machine.truncation(machine.applied - 2)), machine.busy(round_, size)]
        yield [StateWrite(compact=machine.position - 5, granted=GrantTerms(500 + round_, 1000))]
        yield [StateWrite(seen=SeenStart(1 + round_ % 2, round_, round_ + 7))]
        peer, machine = given(machine, size)
        yield from staging(peer, abandon=round_ % 2 == 0)


def numbered(size: int = 8) -> Iterator[list[Write]]:
    """The same, each with a promise that tells which one it is, from 1."""
    for number, writes in enumerate(transactions(size), 1):
        yield [Write(promise=Ballot(number, "n1")), *writes]


def given(machine: WriteMaker, size: int) -> tuple[MemoryStorage, WriteMaker]:
    """A peer that went on from where `machine` is, and compacted."""
    ahead, peer = WriteMaker(), MemoryStorage("test", "n2")
    for number in range(max(1, machine.applied + 5)):
        peer.write([ahead.busy(number, size)])
    peer.write([StateWrite(compact=ahead.position // 2)])
    return peer, ahead


def staging(peer: Storage, *, abandon: bool = False, max_bytes: int = 60) -> Iterator[list[Write]]:
    """The pages of the state of `peer`; perhaps, after some of them, which count as a restored state, once again from
    the start."""
    for attempt in range(1 + abandon):
        for number, page in enumerate(pages(peer, max_bytes)):
            after, found = page
            if abandon and attempt == 0 and number == 3:
                yield [StateWrite(restored=AppliedProgress(1, max(after, found.compacted)))]
                break
            yield [StateWrite(staged=StagedPage(after, found))]


def pages(storage: Storage, max_bytes: int, *, staged: bool = False) -> Iterator[tuple[int, StatePage]]:
    after = 0
    while True:
        page = storage.read_state(after, max_bytes, staged=staged)
        yield after, page
        if page.progress is not None or not page.changes:
            return
        after = page.changes[-1].position


def rows(storage: Storage, max_bytes: int = EVERYTHING, *, staged: bool = False) -> list[Change]:
    return [change for _, page in pages(storage, max_bytes, staged=staged) for change in page.changes]


def compacted(changes: list[Change], after: int, upto: int) -> list[Change]:
    """What compaction leaves of them."""
    touched = [change for change in changes if after < change.position <= upto]
    gone = {change.supersedes for change in touched} | {c.position for c in touched if c.value is None}
    return [change for change in changes if change.position not in gone]


def tidied(storage: Storage) -> Storage:
    while storage.maintain():
        pass
    return storage


def shown(storage: Storage) -> dict[str, Any]:
    """Everything a storage shows that was just opened, as if nothing were put off."""
    recovered = storage.recovered()
    page = storage.read_state(0, EVERYTHING)
    return {
        "hard_state": (recovered.promised, recovered.chosen, recovered.last, recovered.truncation, recovered.compacted),
        "log": list(scan(storage, recovered.truncation.slot + 1, recovered.last)),
        "log bytes": recovered.log_bytes,
        "below the cut": storage.read(recovered.truncation.slot, recovered.last, 1000)
        if recovered.truncation.slot
        else [],
        "progress": (recovered.progress, page.progress),
        "state": compacted(page.changes, page.compacted, recovered.compacted),
        "granted": recovered.granted,
        "seen": recovered.seen,
        "staged": (recovered.staged, recovered.restored, storage.read_state(0, EVERYTHING, staged=True)),
    }
