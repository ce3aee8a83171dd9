"""Log entries that take many steps, on a node with its peers, its disk and its clock played by the test."""

from kvstore.api.commands import (
    Command,
    DeleteSpan,
    DeleteSpanResult,
    ExpireLease,
    GrantLease,
    Put,
    Reconfigure,
    Transact,
    unpack_batch,
)
from kvstore.api.key_range import EVERY_KEY
from kvstore.api.membership import Member, MemberRole
from kvstore.api.queries import Consistency, LeaseLookup, Lookup, Scan
from kvstore.api.results import LeasesAnswer, ReadAnswer, ScanAnswer
from kvstore.replica.checkpointer import APPLIED_RECORDS
from paxos.messages import Accept, Accepted, Chosen, Heartbeat, HeartbeatAck
from paxos.types import MS, Slot, unpack
from storage.base import AppliedProgress, StateWrite
from tests.unit.kvstore.replica.host import B1, LINEARIZABLE, STALE, NodeHost, seen, stored, value

KEYS = 3 * APPLIED_RECORDS


def puts() -> bytes:
    """One revision with KEYS keys."""
    return value(Transact([], [Put(b"%05d" % key, b"v") for key in range(KEYS)], []))


def deletion(*others: Put) -> bytes:
    """One entry that deletes all keys."""
    return value(DeleteSpan(EVERY_KEY), *others, sequence=2)


def amid_deletion(*others: Put) -> NodeHost:
    """A node that has applied a part of the deletion of all keys."""
    host = NodeHost(stored(puts(), chosen=1))
    host.follow()
    host.receive(B1.node, Accept(B1, 2, deletion(*others), 1), Chosen(B1, 2))
    host.step()
    assert host.node.applies_entry
    assert host.node.has_more
    return host


def finish(host: NodeHost) -> int:
    """Take all steps that are left; return their number."""
    steps = 0
    while host.node.has_more:
        host.step()
        steps += 1
    return steps


def acknowledge_next(host: NodeHost) -> None:
    """Take a step, and acknowledge the next slot as a peer."""
    host.step()
    host.sync()
    ballot = host.node.replica.leader_ballot
    assert ballot is not None
    host.receive("n2", Accepted(ballot, host.node.replica.chosen + 1))


def accepted(host: NodeHost) -> list[Command]:
    """Return the commands that the node has written to its log so far."""
    return [
        command
        for write in host.writes
        for entry in write.accepts
        for payload in unpack(entry.value)
        for command in unpack_batch(payload).commands
    ]


def test_an_entry_is_applied_in_steps_that_are_bounded_by_its_records() -> None:
    host = amid_deletion()
    assert 2 <= finish(host) <= 5
    assert not host.node.applies_entry
    assert (host.node.applied, host.node.machine.revision, len(host.node.machine.records)) == (2, 2, 0)


def test_rule_6_between_two_steps_every_read_sees_the_state_before_the_entry() -> None:
    host = amid_deletion(Put(b"new", b"1"))
    assert len(host.node.machine.records) < KEYS
    first: list[ReadAnswer | ScanAnswer] = []
    for query in (b"00000", b"%05d" % (KEYS - 1), Lookup(b"00000", 1), Scan(EVERY_KEY, 10)):
        host.node.read(query, Consistency.STALE, first.append)
    assert [answer.revision for answer in first] == [1, 1, 1, 1]
    assert [answer.applied for answer in first] == [1, 1, 1, 1]
    assert [answer.record is not None for answer in first if isinstance(answer, ReadAnswer)] == [True, True, True]
    assert [len(answer.found) for answer in first if isinstance(answer, ScanAnswer)] == [10]
    assert host.node.machine.shown_position >> 20 == 1
    assert list(host.node.machine.history.after(host.node.machine.shown_position)) == []
    finish(host)
    assert seen(host.read(b"00000", STALE)) == [None]
    assert seen(host.read(b"new", STALE)) == [b"1"]
    assert len(list(host.node.machine.history.after(host.node.machine.history.compacted))) == 2 * KEYS + 1


def test_rule_27_between_two_steps_the_membership_is_that_before_the_entry() -> None:
    """Otherwise a replaced member is linked with before the leader has dropped the votes of its old disk."""
    host = NodeHost(stored(puts(), chosen=1))
    host.follow()
    before = host.node.membership
    after = before.changed(Member("n4", "h:4", MemberRole.LEARNER))
    host.receive(B1.node, Accept(B1, 2, value(Reconfigure(after), DeleteSpan(EVERY_KEY), sequence=2), 1), Chosen(B1, 2))
    host.step()
    assert host.node.applies_entry
    assert host.node.membership == host.node.view.newest == host.node.machine.membership == before
    assert host.node.machine.memberships[-1].membership == before
    assert "n4" not in host.node.view.neighbours
    finish(host)
    assert host.node.membership == after
    assert "n4" in host.node.view.neighbours


def test_rule_18_a_linearizable_read_waits_for_the_entry() -> None:
    host = NodeHost()
    host.lead()
    host.write(Transact([], [Put(b"%05d" % key, b"v") for key in range(KEYS)], []))
    host.settle()
    finish(host)
    deleted = host.write(DeleteSpan(EVERY_KEY))
    while not host.node.applies_entry:
        acknowledge_next(host)
    answers = host.read(b"00000", LINEARIZABLE)
    host.step()
    assert (answers, deleted) == ([], [])
    finish(host)
    assert seen(answers) == [None]
    assert deleted == [DeleteSpanResult(2, KEYS)]


def test_rule_6_a_read_of_a_lease_waits_for_the_end_of_the_entry() -> None:
    host = NodeHost(stored(puts(), value(GrantLease(9000), sequence=2), chosen=2))
    host.follow()
    host.receive(B1.node, Accept(B1, 3, value(DeleteSpan(EVERY_KEY), GrantLease(9000), sequence=3), 2), Chosen(B1, 3))
    host.step()
    assert host.node.applies_entry
    found: list[LeasesAnswer] = []
    assert not host.node.read(LeaseLookup(4), Consistency.STALE, found.append)
    host.step()
    assert (found, host.node.waiting) == ([], 1)
    finish(host)
    assert [len(answer.leases) for answer in found] == [1]


def amid_the_end_of_a_lease() -> NodeHost:
    """A leader that is amid an entry when a client lease is over."""
    host = NodeHost()
    host.lead()
    host.write(Transact([], [Put(b"%05d" % key, b"v") for key in range(KEYS)], []))
    host.write(GrantLease(50))
    host.settle()
    finish(host)
    host.ring()  # records the leader
    host.settle()
    host.write(DeleteSpan(EVERY_KEY))
    while not host.node.applies_entry:
        acknowledge_next(host)
    host.later(60)  # less than the lease of the leader
    assert host.node.applies_entry
    return host


def test_rule_21_no_lease_is_expired_between_two_steps() -> None:
    """The entry may have kept the lease alive already, while its end is still the old one."""
    host = amid_the_end_of_a_lease()
    host.step()
    assert not any(isinstance(command, ExpireLease) for command in accepted(host))
    finish(host)
    host.node.tick()
    host.step()
    assert any(isinstance(command, ExpireLease) for command in accepted(host))


def test_no_tick_is_due_for_a_lease_that_is_over_between_two_steps() -> None:
    """The driver would call `tick` again and again, which waits for the end of the entry."""
    host = amid_the_end_of_a_lease()
    host.node.tick()
    assert host.node.next_deadline() > host.now
    finish(host)
    assert host.node.next_deadline() <= host.now


def test_between_two_steps_the_leader_is_answered_and_values_are_accepted() -> None:
    host = amid_deletion()
    host.receive(B1.node, Heartbeat(B1, 2, 2), Accept(B1, 3, value(Put(b"next", b""), sequence=3), 3))
    messages = host.step()
    assert [type(envelope.message) for envelope in messages] == [HeartbeatAck]
    assert host.node.applies_entry
    host.sync()
    assert [type(envelope.message) for envelope in host.step()] == [Accepted, Accepted]
    assert host.node.replica.chosen == 2
    finish(host)
    assert host.node.applied == 3


def test_rule_6_the_state_is_stored_at_the_end_of_an_entry_only() -> None:
    host = amid_deletion()
    host.receive(B1.node, Accept(B1, 3, value(Put(b"next", b""), sequence=3), 2))
    host.step()
    assert host.node.applies_entry
    stored_now = [write.progress for write in host.writes if isinstance(write, StateWrite)]
    assert stored_now == []
    host.sync()
    finish(host)
    (write,) = [write for write in host.writes if isinstance(write, StateWrite)]
    assert isinstance(write.progress, AppliedProgress)
    assert (write.progress.applied, len(write.changes)) == (2, KEYS)


def test_rule_6_a_part_of_an_entry_is_not_stored_with_the_entry_before_it() -> None:
    host = NodeHost(stored(puts(), chosen=1))
    host.follow()
    host.receive(B1.node, Accept(B1, 2, value(Put(b"first", b""), sequence=2), 1))
    host.receive(B1.node, Accept(B1, 3, value(DeleteSpan(EVERY_KEY), sequence=3), 1), Chosen(B1, 3))
    host.step()
    assert (host.node.applied, host.node.applies_entry) == (2, True)
    assert [write for write in host.writes if isinstance(write, StateWrite)] == []
    host.sync()
    finish(host)
    (write,) = [write for write in host.writes if isinstance(write, StateWrite)]
    assert isinstance(write.progress, AppliedProgress)
    assert write.progress.applied == 3


def test_a_restart_amid_an_entry_applies_the_whole_of_it() -> None:
    host = amid_deletion()
    host.sync()
    again = NodeHost(host.storage.reopen())
    again.follow()
    again.receive(B1.node, Chosen(B1, 2))
    again.step()
    finish(again)
    assert (again.node.applied, len(again.node.machine.records)) == (2, 0)


def test_rule_27_no_further_slot_is_taken_before_an_entry_is_complete() -> None:
    """The configurations of the protocol must not lag behind its chosen prefix."""
    host = amid_deletion()
    host.receive(B1.node, *[Accept(B1, slot, value(sequence=slot), 9) for slot in range(3, 10)])
    host.step()
    assert (host.node.replica.chosen, host.node.applied) == (2, 1)
    finish(host)
    assert (host.node.replica.chosen, host.node.applied) == (9, 9)


def test_the_history_drops_a_large_revision_in_steps() -> None:
    host = amid_deletion()
    finish(host)
    machine = host.node.machine
    machine.history.compact(machine.position, 0)
    left: list[Slot] = []
    while machine.history.backlog:
        host.now += MS
        host.step()
        left.append(machine.history.backlog)
    assert len(left) >= 2 * KEYS / APPLIED_RECORDS
    assert list(machine.keys(EVERY_KEY)) == []
    assert machine.most_keys(EVERY_KEY) == 0
