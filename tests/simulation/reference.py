"""What the store should hold after each slot: a second, plainer reading of the log to compare replicas with.

It knows the rules for request ids and revisions, and nothing of the code that implements them.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable

from kvstore.api.commands import (
    AcquireLock,
    Command,
    CommandBatch,
    Compare,
    Delete,
    DeleteSpan,
    ExpireLease,
    GrantLease,
    Idempotent,
    KeepLeaseAlive,
    LeasedPut,
    Operation,
    Put,
    Reconfigure,
    Record,
    RecordLeader,
    ReleaseLock,
    RevokeLease,
    Target,
    Transact,
    unpack_batch,
)
from kvstore.api.membership import Membership
from paxos.types import NodeId, Slot, unpack
from tests.unit.kvstore.replica.restored import restored_rows

LAST = b"\xff" * 1024


class Reference:
    """Applies each slot once, in order, and remembers every record that every key ever had."""

    def __init__(self, restored: Slot = 0) -> None:
        """Begin with the restored state as of slot `restored`, or with nothing for slot 0."""
        self.applied: Slot = restored
        self.membership = Membership()
        """The members, by the last change of them; none before the cluster is founded."""
        self._memberships: list[tuple[Slot, Membership]] = []
        self._revisions = [0] * restored + [restored]
        self._versions: dict[bytes, list[tuple[Slot, Record | None]]] = defaultdict(list)
        self._applied_ids: set[tuple[str, int, int]] = set()
        self._boots: dict[str, int] = {}
        self._settled: dict[tuple[str, int], int] = {}
        self.leases: dict[int, int] = {}
        """How often each lease that lives was granted or kept alive."""
        self.expired: dict[int, Slot] = {}
        """Where leases ended because the leader said so."""
        self._leaders = [""]
        self._hangs: dict[bytes, int] = {}
        self._queues: dict[bytes, list[int]] = defaultdict(list)
        """The leases that have each lock, or wait for it, in order."""
        self._fences: dict[tuple[bytes, int], int] = {}
        self._done: set[tuple[int, int]] = set()
        for row in restored_rows(restored) if restored else []:
            record = Record(row.value or b"", row.create_revision, row.create_revision, row.version, 0)
            self._versions[row.key].append((restored, record))

    def founded(self, first: Membership) -> Membership:
        """Begin with these members, unless the cluster has begun; return those with which it did."""
        if not self._memberships:
            self.membership = first
            self._memberships.append((self.applied + 1, first))
        return self._memberships[0][1]

    def apply(self, value: bytes) -> None:
        """The value of the next slot."""
        self.applied += 1
        self._revisions.append(self._revisions[-1])
        for payload in unpack(value):
            batch = unpack_batch(payload)
            if self._is_new(batch):
                for command in batch.commands:
                    if isinstance(command, Reconfigure):
                        self._reconfigure(command.membership)
                    elif self._do(command, self._revisions[-1] + 1, 0):
                        self._revisions[-1] += 1

    def voters(self, slot: Slot) -> set[NodeId]:
        """Who decides `slot`."""
        membership = next(membership for first, membership in reversed(self._memberships) if first <= slot)
        return {member.name for member in membership.members if member.role != "learner"}

    @property
    def changes(self) -> int:
        """How often the members were changed."""
        return max(0, len(self._memberships) - 1)

    @property
    def in_force(self) -> bool:
        """True when the last change of the members decides the next slot."""
        return bool(self._memberships) and self._memberships[-1][0] <= self.applied + 1

    def _reconfigure(self, membership: Membership) -> None:
        """Made from the present members, when those are in force, and with one voter more or less."""
        before = {member.name: member for member in self.membership.members if member.role != "learner"}
        after = {member.name: member for member in membership.members if member.role != "learner"}
        keeps_data = all(before[name].incarnation in {0, after[name].incarnation} for name in before.keys() & after)
        can_lead = any(member.role == "voter" for member in after.values())
        forgotten = {
            member.name for member in membership.members if member.role == "learner" and not member.incarnation
        }
        is_heard = len(before) != 2 or not before.keys() & forgotten
        is_next = membership.version == self.membership.version + 1 and self._memberships[-1][0] <= self.applied
        if is_next and len(before.keys() ^ after.keys()) <= 1 and keeps_data and can_lead and is_heard:
            self.membership = membership
            self._memberships.append((self.applied + 32, membership))

    def revision(self, slot: Slot) -> int:
        """The revision of the store once `slot` is applied."""
        return self._revisions[slot]

    def slot_of(self, revision: int) -> Slot | None:
        """The first slot behind which the store is at `revision`, None when there is none."""
        slot = bisect_left(self._revisions, revision)
        return slot if self._revisions[slot] == revision else None

    def record(self, key: bytes, slot: Slot) -> Record | None:
        """What `key` holds once `slot` is applied."""
        versions = self._versions.get(key, [])
        index = bisect_right(versions, slot, key=lambda version: version[0])
        return versions[index - 1][1] if index else None

    def records(self, slot: Slot) -> dict[bytes, Record]:
        """Every key once `slot` is applied."""
        found = {key: self.record(key, slot) for key in self._versions}
        return {key: record for key, record in found.items() if record is not None}

    def _is_new(self, batch: CommandBatch) -> bool:
        """A request id counts once; not at all once a later life of its origin was seen, or once its origin promised
        never to repeat it."""
        name = (batch.origin, batch.boot, batch.sequence)
        life = name[:2]
        if batch.boot < self._boots.get(batch.origin, 0):
            return False
        self._boots[batch.origin] = batch.boot
        if name in self._applied_ids or batch.sequence < self._settled.get(life, 0):
            return False
        self._settled[life] = max(self._settled.get(life, 0), batch.settled_below)
        self._applied_ids.add(name)
        return True

    def keys_of(self, command: Command | Operation) -> Iterable[bytes]:
        """Those that it may change."""
        match command:
            case Put(key=key) | Delete(key=key):
                return [key]
            case DeleteSpan(span=span):
                return [key for key in sorted(self._versions) if span.start <= key < (span.end or LAST)]
            case Transact(then=then, otherwise=otherwise):
                return [key for each in (*then, *otherwise) for key in self.keys_of(each)]
            case Idempotent(command=command):
                return self.keys_of(command)
            case LeasedPut() | ExpireLease() | RevokeLease():
                return list(self._versions)
            case _:
                return []

    def _do(self, operation: Command | Operation, revision: int, count: int) -> int:
        """How many changes the revision has then."""
        match operation:
            case Put(key=key, value=value):
                old = self.record(key, self.applied)
                created, version = (old.create_revision, old.version + 1) if old is not None else (revision, 1)
                self._versions[key].append((self.applied, Record(value, revision, created, version, count)))
                return count + 1
            case Delete(key=key):
                if self.record(key, self.applied) is None:
                    return count
                self._versions[key].append((self.applied, None))
                return count + 1
            case DeleteSpan():
                for key in self.keys_of(operation):
                    count = self._do(Delete(key), revision, count)
                return count
            case Transact(compares=compares, then=then, otherwise=otherwise):
                for each in then if all(map(self._holds, compares)) else otherwise:
                    count = self._do(each, revision, count)
                return count
            case _:
                return count + self._lease(operation, revision)

    def _lease(self, command: Command | Operation, revision: int) -> int:
        """1 when it changed anything."""
        match command:
            case Idempotent(lease=lease, number=number, command=once):
                if lease not in self.leases or (lease, number) in self._done:
                    return 0
                self._done.add((lease, number))
                self._do(once, revision, 0)
                return 1  # if only because the answer is stored
            case LeasedPut(key=key, value=value, lease=lease) if lease in self.leases:
                self._hangs[key] = lease
                return self._do(Put(key, value), revision, 0)
            case GrantLease():
                self.leases[revision] = 1
                return 1
            case KeepLeaseAlive(lease=lease) if lease in self.leases:
                self.leases[lease] += 1
                return 1
            case RevokeLease(lease=lease) if lease in self.leases:
                return self._end(lease)
            case RecordLeader(leader=leader, replaced=replaced) if replaced == len(self._leaders) - 1:
                self._leaders.append(leader)
                return 1
            case ExpireLease(lease=lease, version=version, leader=leader):
                if self.leases.get(lease) != version or leader != self._leaders[-1]:
                    return 0
                self.expired[lease] = self.applied
                return self._end(lease)
            case AcquireLock() | ReleaseLock():
                return self._lock(command, revision)
            case _:
                return 0

    def _lock(self, command: AcquireLock | ReleaseLock, revision: int) -> int:
        name, lease = command.name, command.lease
        queue = self._queues[name]
        if isinstance(command, ReleaseLock) and lease in queue:
            queue.remove(lease)
            return 1
        if (
            isinstance(command, AcquireLock)
            and lease in self.leases
            and lease not in queue
            and (command.queue or not queue)
        ):
            queue.append(lease)
            self._fences[name, lease] = revision
            return 1
        return 0

    def _end(self, lease: int) -> int:
        del self.leases[lease]
        for queue in self._queues.values():
            if lease in queue:
                queue.remove(lease)
        for key in [key for key, holder in self._hangs.items() if holder == lease]:
            del self._hangs[key]
            self._versions[key].append((self.applied, None))
        return 1

    def _holds(self, compare: Compare) -> bool:
        """Clients of the simulation only ask whether a key has a value, or is absent, and whether a fence holds."""
        assert isinstance(compare.on, bytes)
        if compare.target is Target.FENCING_TOKEN:
            queue = self._queues[compare.on]
            return (self._fences[compare.on, queue[0]] if queue else 0) == compare.operand
        record = self.record(compare.on, self.applied)
        if compare.target is Target.EXISTS:
            return (record is not None) == bool(compare.operand)
        return record is not None and record.value == compare.operand
