"""What the store should hold after each slot: a second, plainer reading of the log to compare replicas with.

It knows the rules for request ids, memberships and revisions, and nothing of the code that implements them.
"""

import hashlib
from bisect import bisect_left
from operator import attrgetter
from typing import NamedTuple

from kvstore.api.commands import (
    Command,
    CommandBatch,
    ExpireLease,
    LeaderResult,
    NotReconfigured,
    Reconfigure,
    Reconfigured,
    Record,
    Result,
    unpack_batch,
)
from kvstore.api.membership import Membership, MembershipVersion
from paxos.types import NodeId, Slot, unpack
from storage.base import CHAIN_BYTES, GENESIS, end_of, revision_of
from tests.simulation.model import Model
from tests.unit.kvstore.replica.restored import restored_rows

KEPT = 1000
"""Numbers of a lease whose answers are kept."""


class AppliedCommand(NamedTuple):
    """A command that was applied, for whom, and its result."""

    origin: str
    command: Command
    result: Result


class SlotState(NamedTuple):
    """What one number tells of the state once a slot is applied."""

    position: int
    digest: int
    size_bytes: int
    chain: bytes
    memberships: tuple[MembershipVersion, ...]


class ModelOrigin:
    """The batches of one origin that count no more."""

    def __init__(self, boot: int) -> None:
        self.boot = boot
        self.settled = 1
        self.applied: set[int] = set()


class Reference:
    """Applies each slot once, in order, and remembers every record that every key ever had."""

    def __init__(self, restored: Slot = 0, kept: int = 0) -> None:
        """Begin with the restored state as of slot `restored`, or with nothing for slot 0. `kept`: numbers of a lease
        whose answers are kept, 0 for those of the product."""
        self.applied: Slot = restored
        self.membership = Membership()
        """The members, by the last change of them; none before the cluster is founded."""
        self.model = Model(kept or KEPT)
        self.origins: dict[str, ModelOrigin] = {}
        self.expired: dict[int, Slot] = {}
        """Where leases ended because the leader said so."""
        self.results: dict[Slot, list[AppliedCommand]] = {}
        """What each slot did that no earlier one had done."""
        self._memberships: list[MembershipVersion] = []
        self._slots = [self._now(GENESIS)] * (restored + 1)
        for row in restored_rows(restored) if restored else []:
            record = Record(row.value or b"", row.create_revision, row.create_revision, row.version, 0)
            self.model.restored(row.key, record, row.position)
        if restored:
            self.model.position = end_of(restored)
        self._slots[-1] = self._now(GENESIS)

    def founded(self, first: Membership) -> Membership:
        """Begin with these members, unless the cluster has begun; return those with which it did."""
        if not self._memberships:
            self.membership = first
            self._memberships.append(MembershipVersion(self.applied + 1, first))
            self._slots[-1] = self._slots[-1]._replace(memberships=tuple(self._memberships))
        return self._memberships[0].membership

    def apply(self, value: bytes) -> None:
        """The value of the next slot."""
        self.applied += 1
        results = self.results[self.applied] = []
        for payload in unpack(value):
            batch = unpack_batch(payload)
            if self._is_new(batch):
                results += [AppliedCommand(batch.origin, each, self._do(each)) for each in batch.commands]
        chained = self._slots[-1].chain + self.applied.to_bytes(8, "big") + value
        self._slots.append(self._now(hashlib.blake2b(chained, digest_size=CHAIN_BYTES).digest()))

    def _now(self, chain: bytes) -> SlotState:
        model = self.model
        return SlotState(model.position, model.digest, model.size_bytes, chain, tuple(self._memberships[-2:]))

    def _do(self, command: Command) -> Result:
        if isinstance(command, Reconfigure):
            return self._reconfigure(command.membership)
        result = self.model.do(command)
        if isinstance(command, ExpireLease) and result == LeaderResult(True):
            self.expired[command.lease] = self.applied
        return result

    def membership_at(self, slot: Slot) -> Membership:
        """The members that decide `slot`."""
        return next(version.membership for version in reversed(self._memberships) if version.first <= slot)

    def memberships_between(self, first: Slot, last: Slot) -> list[Membership]:
        """The members that decide slots from `first` to `last`."""
        later = (version.membership for version in self._memberships if first < version.first <= last)
        return [self.membership_at(first), *later]

    def voters(self, slot: Slot) -> set[tuple[NodeId, int]]:
        """Who decides `slot`, and with which data: 0 for any."""
        members = self.membership_at(slot).members
        return {(member.name, member.incarnation) for member in members if member.role != "learner"}

    @property
    def changes(self) -> int:
        """How often the members were changed."""
        return max(0, len(self._memberships) - 1)

    @property
    def in_force(self) -> bool:
        """True when the last change of the members decides the next slot."""
        return bool(self._memberships) and self._memberships[-1].first <= self.applied + 1

    def _reconfigure(self, membership: Membership) -> Reconfigured | NotReconfigured:
        """Made from the present members, when those are in force, and with one voter more or less."""
        before = {member.name: member for member in self.membership.members if member.role != "learner"}
        after = {member.name: member for member in membership.members if member.role != "learner"}
        keeps_data = all(before[name].incarnation in {0, after[name].incarnation} for name in before.keys() & after)
        can_lead = any(member.role == "voter" for member in after.values())
        forgotten = {
            member.name for member in membership.members if member.role == "learner" and not member.incarnation
        }
        is_heard = len(before) != 2 or not before.keys() & forgotten
        is_next = membership.version == self.membership.version + 1 and self._memberships[-1].first <= self.applied
        if not (is_next and len(before.keys() ^ after.keys()) <= 1 and keeps_data and can_lead and is_heard):
            return NotReconfigured("")
        self.membership = membership
        self._memberships.append(MembershipVersion(self.applied + 32, membership))
        return Reconfigured(membership, self.applied + 32)

    def state(self, slot: Slot) -> SlotState:
        """What is known of the state once `slot` is applied."""
        return self._slots[slot]

    def revision(self, slot: Slot) -> int:
        """The revision of the store once `slot` is applied."""
        return revision_of(self._slots[slot].position)

    def ends_entry(self, position: int) -> bool:
        """Whether some slot leaves the store at `position`."""
        index = bisect_left(self._slots, position, key=attrgetter("position"))
        return index < len(self._slots) and self._slots[index].position == position

    def record(self, key: bytes, slot: Slot) -> Record | None:
        """What `key` holds once `slot` is applied."""
        return self.model.record(key, self._slots[slot].position)

    def _is_new(self, batch: CommandBatch) -> bool:
        """A request id counts once; not at all once a later life of its origin was seen, or once its origin promised
        never to repeat it."""
        origin = self.origins.get(batch.origin)
        if origin is None or origin.boot < batch.boot:
            origin = self.origins[batch.origin] = ModelOrigin(batch.boot)
        if batch.boot < origin.boot or batch.sequence < origin.settled or batch.sequence in origin.applied:
            return False
        origin.settled = max(origin.settled, batch.settled_below)
        origin.applied = {number for number in {*origin.applied, batch.sequence} if number >= origin.settled}
        return True
