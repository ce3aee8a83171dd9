"""The applied state of this replica: the state machine, the last applied slot, and a running hash of the log.

The hash is called the chain. Loading the state finds any damage: each row has a checksum, the chain shows that no log
entry is missing or replaced, and the digest shows the same for the records.
"""

from collections.abc import Iterator
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from kvstore.api.commands import CommandBatch, Reconfigure, Result, unpack_batch
from kvstore.api.membership import MembershipVersion
from kvstore.state_machine.state_machine import StateMachine
from kvstore.state_machine.view import STEP_RECORDS, Steps
from paxos.types import PValue, Slot, unpack
from storage.base import (
    CHAIN_BYTES,
    GENESIS,
    AppliedProgress,
    Change,
    DamagedError,
    Recovered,
    StateWrite,
    Storage,
    revision_of,
    scan,
)

PAGE_BYTES = 1 << 20
"""Maximum bytes of keys and values in one read from storage."""
REPLAY_SLOTS, REPLAY_CHANGES = 1000, 100_000
"""Number of slots, and of changes, after which the replay of a log stores the state."""


class Extra(msgspec.Struct, frozen=True, array_like=True):
    """The part of the state that is not in records, as it is stored in `AppliedProgress.extra`."""

    origins: bytes
    memberships: list[MembershipVersion]
    membership_only: bool = False
    restored: str = ""


AppliedBatch = tuple[CommandBatch, list[Result] | None]
"""A command batch and the results of its commands, None for a batch that was applied before."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Extra)


def extend_chain(chain: bytes, slot: Slot, value: bytes) -> bytes:
    """Return the chain up to `slot`, whose value is `value`. `chain` is the one up to the slot before."""
    return blake2b(chain + slot.to_bytes(8) + value, digest_size=CHAIN_BYTES).digest()


def verified_log(storage: Storage, recovered: Recovered) -> Iterator[tuple[PValue, bytes]]:
    """Yield the chosen entries of the stored log, each with the chain up to it.

    Raise DamagedError when the chain up to the applied slot is not the one that was stored with the state (rule 5).
    """
    slot, chain = recovered.truncation
    _verify(slot, chain, recovered.progress)
    for pvalue in scan(storage, slot + 1, recovered.chosen):
        chain = extend_chain(chain, pvalue.slot, pvalue.value)
        _verify(pvalue.slot, chain, recovered.progress)
        yield pvalue, chain


def _verify(slot: Slot, chain: bytes, stored: AppliedProgress) -> None:
    if slot == stored.applied and chain != stored.chain:
        raise DamagedError(f"the log up to slot {slot} is not the one that was applied: entries were replaced or lost")


class Applier:
    """The applied state, and the changes in it that are not stored yet."""

    def __init__(self, memberships: list[MembershipVersion]) -> None:
        """Begin before the first slot. `memberships` holds the first membership of a new cluster, or none."""
        self.machine = StateMachine(memberships)
        self.applied: Slot = 0
        self.chain = GENESIS
        self.malformed = 0
        """Number of payloads that are not valid command batches. Every replica skips the same payloads."""
        self.membership_only = False
        """True for a witness: it applies membership changes and keeps no records."""
        self.restored = ""
        """Mark of the restored state with which the cluster began, empty for a cluster that began without data."""
        self._entry: Steps[list[AppliedBatch]] | None = None
        """The remaining steps of the entry that is applied in part."""

    @property
    def busy(self) -> bool:
        """True while an entry is applied in part. Readers see the state before it, and `progress` and `take_changes`
        must wait for its end."""
        return self._entry is not None

    def begin(self, slot: Slot, value: bytes) -> None:
        """Begin to apply the next slot. Call `advance` until the entry is complete."""
        if slot != self.applied + 1 or self.busy:
            raise DamagedError(f"slot {slot} follows slot {self.applied}: the log has a gap")
        self.machine.begin_entry()
        self._entry = self._apply_entry(slot, value)

    def advance(self, work: int) -> tuple[int, list[AppliedBatch] | None]:
        """Apply the entry that has begun, and stop when about `work` records have been processed.

        Return the records that were processed, and the command batches of the entry if it is complete, each with its
        results, see `StateMachine.apply`.
        """
        entry, done = self._entry, 0
        if entry is None:
            raise RuntimeError("no entry was begun")
        while done < work:
            try:
                done += next(entry)
            except StopIteration as end:
                self._entry = None
                self.machine.end_entry()
                return done, end.value
        self.machine.suspend_entry()
        return done, None

    def apply(self, slot: Slot, value: bytes) -> list[AppliedBatch]:
        """Apply the whole of the next slot. Return each command batch with its results."""
        self.begin(slot, value)
        while True:
            _, applied = self.advance(STEP_RECORDS)
            if applied is not None:
                return applied

    def _apply_entry(self, slot: Slot, value: bytes) -> Steps[list[AppliedBatch]]:
        applied: list[AppliedBatch] = []
        for payload in unpack(value):
            try:
                batch = unpack_batch(payload)
            except msgspec.DecodeError:
                self.malformed += 1
                continue
            if self.membership_only:
                applied.append((batch, self._apply_membership(batch, slot)))
            else:
                applied.append((batch, (yield from self.machine.apply_in_steps(batch, slot))))
        self.applied = slot
        self.chain = extend_chain(self.chain, slot, value)
        return applied

    def _apply_membership(self, batch: CommandBatch, slot: Slot) -> list[Result] | None:
        """Apply the membership changes of `batch`. Return None for a batch that also has other commands, because a
        witness does not know their results."""
        changes = [command for command in batch.commands if isinstance(command, Reconfigure)]
        results = self.machine.apply(replace(batch, commands=changes), slot)
        return results if len(changes) == len(batch.commands) else None

    def replay(self, slot: Slot, value: bytes) -> None:
        """Apply the next slot, and discard the results."""
        self.apply(slot, value)

    def progress(self) -> AppliedProgress:
        """Return the progress to store together with the changes so far."""
        machine = self.machine
        extra = _encoder.encode(
            Extra(machine.request_ids.pack(), machine.memberships, self.membership_only, self.restored)
        )
        return AppliedProgress(self.applied, machine.position, self.chain, machine.digest, extra)

    def take_changes(self) -> list[Change]:
        """Return the changes since the last call."""
        changes, self.machine.changes = self.machine.changes, []
        return changes

    def finish(self, progress: AppliedProgress) -> None:
        """Finish loading: take over `progress` after all its rows were passed to `machine.load`.

        Raise DamagedError when the loaded records are not those that were stored.
        """
        machine = self.machine
        if machine.position > progress.position or machine.digest != progress.digest:
            raise DamagedError(
                f"the records as of revision {revision_of(progress.position)} do not have their digest "
                f"({machine.digest:x}, not {progress.digest:x}): some are missing or differ from those that were stored"
            )
        machine.position = progress.position  # the last rows may be missing: compacted deletions
        if progress.extra:
            extra = _decoder.decode(progress.extra)
            machine.request_ids.unpack(extra.origins)
            machine.memberships = extra.memberships
            self.membership_only, self.restored = extra.membership_only, extra.restored
        self.applied, self.chain = progress.applied, progress.chain
        machine.sort()


def restored_mark(progress: AppliedProgress) -> str:
    """Return the mark of the restored state with which the cluster began, empty for one that began without data."""
    return _decoder.decode(progress.extra).restored if progress.extra else ""


def witness_applier(progress: AppliedProgress) -> Applier | None:
    """Return the state that a witness takes over: `progress` without records. Return None when `progress` holds no
    membership."""
    if not progress.extra:
        return None
    applier = Applier([])
    applier.finish(AppliedProgress(progress.applied, 0, progress.chain, 0, progress.extra))
    applier.membership_only = True
    return applier


def load_state(storage: Storage, memberships: list[MembershipVersion]) -> Applier:
    """Return the stored state. `memberships` holds the first membership of a new cluster, or none. Raise DamagedError
    when the state is not the one that was stored."""
    applier = Applier(memberships)
    after = 0
    while True:
        page = storage.read_state(after, PAGE_BYTES)
        if not after:
            applier.machine.forget(page.compacted)
        for change in page.changes:
            applier.machine.load(change)
            after = change.position
        if page.progress is not None:
            applier.finish(page.progress)
            return applier


def load_restored(storage: Storage) -> Applier | None:
    """Return the restored state that is staged until the cluster is founded, None if there is none. Raise DamagedError
    when the state is not the one that was stored."""
    recovered = storage.recovered()
    if recovered.restored is None:
        return None
    applier = Applier([])
    applier.machine.forget(recovered.staged_compacted)
    after = 0
    while after < recovered.staged and (page := storage.read_state(after, PAGE_BYTES, staged=True)).changes:
        for change in page.changes:
            applier.machine.load(change)
            after = change.position
    applier.finish(recovered.restored)
    return applier


def store_replayed(storage: Storage, applier: Applier) -> None:
    """Store the replayed state, so that the next start does not replay the same slots again."""
    storage.write([StateWrite(changes=applier.take_changes(), progress=applier.progress())])
