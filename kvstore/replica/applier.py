"""What this replica has applied: the state machine, the slot that it came to, and a running hash of the log up to it.

Stored and loaded again it is the same, or the data is damaged: every row has its checksum, the chain says that no entry
of the log is missing or another, and the digest that no record is.
"""

from collections.abc import Iterator
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from kvstore.api.commands import CommandBatch, Reconfigure, Result, unpack_batch
from kvstore.api.membership import MembershipVersion
from kvstore.state_machine.state_machine import StateMachine
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
SLOTS_A_WRITE = 1000
"""While a log is replayed, what it led to is stored each time that so many slots are applied."""


class Extra(msgspec.Struct, frozen=True, array_like=True):
    """The state beside the records, as it stands in `AppliedProgress.extra`."""

    origins: bytes
    memberships: list[MembershipVersion]
    bare: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Extra)


def link(chain: bytes, slot: Slot, value: bytes) -> bytes:
    """The running hash of the log up to `slot`, from that of the slot before it."""
    return blake2b(chain + slot.to_bytes(8) + value, digest_size=CHAIN_BYTES).digest()


def verified_log(storage: Storage, recovered: Recovered) -> Iterator[tuple[PValue, bytes]]:
    """Yield the chosen entries behind the cut, each with the running hash of the log up to it.

    Raise DamagedError where the hash is not the one that was stored with the state (rule 5).
    """
    slot, chain = recovered.truncation
    _verify(slot, chain, recovered.progress)
    for pvalue in scan(storage, slot + 1, recovered.chosen):
        chain = link(chain, pvalue.slot, pvalue.value)
        _verify(pvalue.slot, chain, recovered.progress)
        yield pvalue, chain


def _verify(slot: Slot, chain: bytes, stored: AppliedProgress) -> None:
    if slot == stored.applied and chain != stored.chain:
        raise DamagedError(
            f"the log up to slot {slot} is not the one that was applied: some of it was replaced or lost"
        )


class Applier:
    """Applies slots in order, and keeps what has to be stored of that."""

    def __init__(self, memberships: list[MembershipVersion]) -> None:
        """Before the first slot; `memberships`: the members that the cluster begins with."""
        self.machine = StateMachine(memberships)
        self.applied: Slot = 0
        self.chain = GENESIS
        self.malformed = 0
        """Payloads that were no batch; every replica passes over the same bytes."""
        self.bare = False
        """True for a witness: it follows who the members are, and keeps no record."""

    def apply(self, slot: Slot, value: bytes) -> Iterator[tuple[CommandBatch, list[Result] | None]]:
        """Apply the next slot, batch by batch: each with what `StateMachine.apply` gave for it."""
        if slot != self.applied + 1:
            raise DamagedError(f"slot {slot} follows slot {self.applied}: the log has a gap and was not used further")
        self.applied = slot
        self.chain = link(self.chain, slot, value)
        for payload in unpack(value):
            try:
                batch = unpack_batch(payload)
            except msgspec.DecodeError:
                self.malformed += 1
                continue
            yield batch, self._apply_bare(batch, slot) if self.bare else self.machine.apply(batch, slot)

    def _apply_bare(self, batch: CommandBatch, slot: Slot) -> list[Result] | None:
        """None too for a batch with commands for keys: what they give is not known here."""
        changes = [command for command in batch.commands if isinstance(command, Reconfigure)]
        results = self.machine.apply(replace(batch, commands=changes), slot)
        return results if len(changes) == len(batch.commands) else None

    def replay(self, slot: Slot, value: bytes) -> None:
        """Apply the next slot, for nobody."""
        for _ in self.apply(slot, value):
            pass

    def progress(self) -> AppliedProgress:
        """How far this is."""
        machine = self.machine
        extra = _encoder.encode(Extra(machine.pack_origins(), machine.memberships, self.bare))
        return AppliedProgress(self.applied, machine.position, self.chain, machine.digest, extra)

    def take_changes(self) -> list[Change]:
        """The rows that were made since the last call."""
        changes, self.machine.changes = self.machine.changes, []
        return changes

    def finish(self, progress: AppliedProgress) -> None:
        """All rows as of `progress` were given to `machine.load`. Raises DamagedError when they are not those that
        were stored."""
        machine = self.machine
        if machine.position > progress.position or machine.digest != progress.digest:
            raise DamagedError(
                f"the records as of revision {revision_of(progress.position)} do not have their digest "
                f"({machine.digest:x}, not {progress.digest:x}): some are missing or not what was stored"
            )
        machine.position = progress.position  # the last rows may have been deletions, and are compacted
        if progress.extra:
            extra = _decoder.decode(progress.extra)
            machine.unpack_origins(extra.origins)
            machine.memberships = extra.memberships
            self.bare = extra.bare
        self.applied, self.chain = progress.applied, progress.chain
        machine.sort()


def bare_applier(progress: AppliedProgress) -> Applier | None:
    """What a witness takes over of a whole state as of `progress`; None of one in which nobody knows the members."""
    if not progress.extra:
        return None
    applier = Applier([])
    applier.finish(AppliedProgress(progress.applied, 0, progress.chain, 0, progress.extra))
    applier.bare = True
    return applier


def load_state(storage: Storage, memberships: list[MembershipVersion]) -> Applier:
    """The state as it is stored; see Applier for `memberships`. Raises DamagedError when it is damaged."""
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


def store_replayed(storage: Storage, applier: Applier) -> None:
    """Store what replaying gave, so that the next start need not do it again."""
    storage.write([StateWrite(changes=applier.take_changes(), progress=applier.progress())])
