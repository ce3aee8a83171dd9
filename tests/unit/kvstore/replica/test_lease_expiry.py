"""The leader says which leases are over: when it counts, from when, and what of an earlier leader counts no more."""

from kvstore.api.commands import (
    Command,
    CommandBatch,
    ExpireLease,
    GrantLease,
    KeepLeaseAlive,
    LeasedPut,
    RecordLeader,
    RevokeLease,
    Transact,
    unpack_batch,
)
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.replica.lease_expiry import MAX_ENDING, RETRY_MS, LeaseExpiry
from kvstore.state_machine.state_machine import StateMachine
from paxos.types import MS, Ballot, unpack
from tests.unit.kvstore.replica.host import NodeHost

B1, B2 = Ballot(1, "n1"), Ballot(2, "n1")


class LeadingMachine:
    """An Expiry and a state; what it wants to say is kept until the test orders it, or refuses to."""

    def __init__(self, clock_drift_ppm: int = 0) -> None:
        self.machine = StateMachine([])
        self.now = 10**12
        self.ballot: Ballot | None = B1
        self.said: list[Command] = []
        self._replies: list[object] = []
        self.lease_expiry = LeaseExpiry(self._submit, clock_drift_ppm=clock_drift_ppm)
        self._count = 0

    def _submit(self, command: Command, reply: object) -> None:
        self.said.append(command)
        self._replies.append(reply)

    def apply(self, *commands: Command) -> None:
        for command in commands:
            self._count += 1
            self.machine.apply(CommandBatch("n1", 1, self._count, self._count, [command]), 1)
        self.lease_expiry.follow(self.ballot, self.machine, self.now)

    def later(self, ms: float) -> list[Command]:
        """What is said then."""
        self.now += int(ms * MS)
        self.lease_expiry.tick(self.machine, self.now)
        said, self.said = self.said, []
        return said

    def answer(self, reply: object = None) -> None:
        replies, self._replies = self._replies, []
        for each in replies:
            assert callable(each)
            each(reply)

    def order(self, *commands: Command) -> None:
        self.answer()
        self.apply(*commands)


def counting(*commands: Command) -> LeadingMachine:
    leader = LeadingMachine()
    leader.apply(GrantLease(1000), *commands)
    leader.order(*leader.later(0))
    return leader


def test_it_says_that_it_leads_before_it_counts() -> None:
    leader = LeadingMachine()
    assert leader.later(0) == []  # there is no lease
    leader.apply(GrantLease(1000))
    assert leader.lease_expiry.left_ms(1, leader.now) is None
    assert leader.later(5000) == [RecordLeader("1.n1", 0)]
    assert leader.later(5000) == []  # it is under way
    leader.order(RecordLeader("1.n1", 0))
    assert leader.lease_expiry.left_ms(1, leader.now) == 1000
    assert leader.later(999) == []
    assert leader.later(1) == [ExpireLease(1, 1, "1.n1")]
    leader.order(ExpireLease(1, 1, "1.n1"))
    assert leader.machine.lease_index.leases == {}
    assert leader.later(5000) == []


def test_a_lease_lives_for_its_whole_length_from_when_it_was_kept_alive() -> None:
    leader = counting()
    leader.later(900)
    leader.apply(KeepLeaseAlive(1))
    assert leader.later(999) == []
    assert leader.later(1) == [ExpireLease(1, 2, "1.n1")]
    assert leader.lease_expiry.next_deadline() == leader.now + RETRY_MS * MS


def test_a_leader_waits_longer_by_the_drift_bound_because_its_clock_may_be_the_faster_one() -> None:
    leader = LeadingMachine(clock_drift_ppm=10_000)
    leader.apply(GrantLease(600_000))
    leader.order(*leader.later(0))
    assert leader.lease_expiry.left_ms(1, leader.now) == 600_000  # as the holder counts
    assert leader.later(605_999) == []
    assert leader.later(1) == [ExpireLease(1, 1, "1.n1")]


def test_a_leader_without_leases_has_no_deadline() -> None:
    """The deadline of a revoked lease stayed, and once it had passed, the driver called `tick` without a pause."""
    leader = counting()
    assert leader.lease_expiry.next_deadline() == leader.now + 1000 * MS
    leader.apply(RevokeLease(1))
    assert leader.lease_expiry.next_deadline() is None
    leader.later(2000)
    assert leader.lease_expiry.next_deadline() is None
    leader.apply(GrantLease(500))
    assert leader.lease_expiry.next_deadline() == leader.now + 500 * MS


def test_a_lease_lives_for_the_length_that_a_renewal_gave_it() -> None:
    leader = counting()
    leader.later(900)
    leader.apply(KeepLeaseAlive(1, 5000))
    assert leader.later(4999) == []
    assert leader.later(1) == [ExpireLease(1, 2, "1.n1")]


def test_what_was_refused_or_overtaken_is_said_again() -> None:
    leader = counting()
    assert leader.later(1000) == [ExpireLease(1, 1, "1.n1")]
    assert leader.later(RETRY_MS) == []  # it is still under way
    leader.answer(Refused(Reason.TIMEOUT, Outcome.UNKNOWN))
    assert leader.later(RETRY_MS) == [ExpireLease(1, 1, "1.n1")]
    leader.order(KeepLeaseAlive(1), ExpireLease(1, 1, "1.n1"))
    assert list(leader.machine.lease_index.leases) == [1]
    assert leader.later(999) == []
    assert leader.later(1) == [ExpireLease(1, 2, "1.n1")]


def test_a_new_leader_gives_every_lease_its_whole_length() -> None:
    leader = counting()
    leader.later(900)
    leader.ballot = None
    leader.apply()
    assert leader.lease_expiry.left_ms(1, leader.now) is None
    assert leader.later(500) == []
    leader.ballot = B2
    leader.apply()
    assert leader.later(0) == [RecordLeader("2.n1", 1)]
    leader.later(5000)
    leader.order(RecordLeader("2.n1", 1))
    assert leader.later(999) == []
    assert leader.later(1) == [ExpireLease(1, 1, "2.n1")]


def test_leases_that_were_granted_meanwhile_are_counted_too_and_ended_ones_forgotten() -> None:
    leader = counting(GrantLease(3000))
    leader.apply(GrantLease(500))
    third = max(leader.machine.lease_index.leases)
    assert leader.later(500) == [ExpireLease(third, 1, "1.n1")]
    leader.order(ExpireLease(third, 1, "1.n1"))
    assert leader.later(500) == [ExpireLease(1, 1, "1.n1")]
    assert leader.later(2000) == [ExpireLease(2, 1, "1.n1")]


def test_what_is_kept_in_memory_does_not_grow_with_each_time_that_a_lease_is_kept_alive() -> None:
    leader = counting()
    for _ in range(5000):
        leader.apply(KeepLeaseAlive(1))
    assert len(leader.lease_expiry._queue) < 2000
    assert leader.later(1000) == [ExpireLease(1, 5001, "1.n1")]


def test_what_is_kept_in_memory_does_not_grow_with_each_lease_that_was_ended_before_its_time() -> None:
    leader = counting()
    for _ in range(5000):
        leader.apply(LeasedPut(b"a", b"", 0, 365 * 24 * 3600 * 1000))
    assert len(leader.lease_expiry._ends) < 2000
    assert len(leader.lease_expiry._queue) < 2000
    assert leader.later(1000) == [ExpireLease(1, 1, "1.n1")]


def test_when_many_leases_are_over_at_once_they_end_one_part_after_the_other() -> None:
    leader = counting(*[GrantLease(1000)] * MAX_ENDING)
    first = leader.later(1000)
    assert len(first) == MAX_ENDING
    assert leader.lease_expiry.next_deadline() is None
    assert leader.later(RETRY_MS) == []
    leader.order(*first)
    assert leader.lease_expiry.next_deadline() is not None
    assert len(leader.later(0)) == 1


def test_leases_with_many_keys_end_one_after_the_other() -> None:
    hung = [LeasedPut(b"k%d" % number, b"", 1) for number in range(MAX_ENDING)]
    leader = counting(GrantLease(1000), Transact([], [*hung], []))
    assert leader.later(1000) == [ExpireLease(1, 1, "1.n1")]
    leader.order(ExpireLease(1, 1, "1.n1"))
    assert leader.later(0) == [ExpireLease(2, 1, "1.n1")]


def test_a_replica_that_follows_keeps_no_list_of_what_was_kept_alive() -> None:
    leader = LeadingMachine()
    leader.ballot = None
    leader.apply(GrantLease(1000), KeepLeaseAlive(1))
    assert leader.machine.lease_index.renewed == []


def test_a_node_that_leads_ends_a_lease_with_its_keys() -> None:
    host = NodeHost()
    host.lead()
    granted = host.write(GrantLease(1000))
    host.settle()
    (result,) = granted
    put = host.write(LeasedPut(b"a", b"1", result.lease))  # type: ignore[union-attr]
    host.settle()
    assert len(put) == 1
    host.ring()  # it says that it leads
    host.settle()
    assert host.read(b"a")[0].lease == 1  # type: ignore[union-attr]
    while host.node.machine.get(b"a") is not None:
        host.ring()
        host.settle()
    assert host.node.machine.lease_index.leases == {}


def test_what_it_says_is_batched_like_any_command() -> None:
    host = NodeHost()
    host.lead()
    host.write(GrantLease(1000))
    host.settle()
    host.ring()
    payloads = [
        command
        for write in [host.node.step().write]
        if write is not None
        for accept in write.accepts
        for payload in unpack(accept.value)
        for command in unpack_batch(payload).commands
    ]
    assert [type(command) for command in payloads] == [RecordLeader]
