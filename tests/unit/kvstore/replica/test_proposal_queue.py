from functools import partial

from kvstore.api.commands import (
    CommandBatch,
    Compare,
    Delete,
    DeleteSpan,
    GrantLease,
    Idempotent,
    Put,
    PutResult,
    Relation,
    Result,
    RevokeLease,
    Target,
    Transact,
    unpack_batch,
)
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.key_range import EVERY_KEY
from kvstore.replica.proposal_queue import MAX_BULK_WORK, MAX_REST_MS, REST, ProposalQueue, WriteRequest
from kvstore.state_machine.quota import KEY_BYTES, OVERHEAD_BYTES, size_bytes, work_of
from kvstore.state_machine.state_machine import StateMachine
from paxos.types import MS
from tests.unit.kvstore.state_machine.commanded import CommandedStore

REPEAT = 1000 * MS


class Clients:
    """ProposalQueue of one node, and what its clients were told."""

    def __init__(self, max_batch_bytes: int = 1 << 20) -> None:
        self.proposals = ProposalQueue("n1", 3, max_batch_bytes=max_batch_bytes, repeat_ms=1000)
        self.told: list[tuple[bytes, Result | Refused]] = []

    def add(self, command: Put | Delete, deadline: int = 10_000 * MS) -> None:
        self.proposals.add(WriteRequest(command, size_bytes(command), partial(self._tell, command.key), deadline))

    def _tell(self, key: bytes, answer: Result | Refused) -> None:
        self.told.append((key, answer))

    def batch(self, now: int = 0) -> CommandBatch:
        return unpack_batch(self.proposals.batch(now))

    def apply(self, sequence: int, results: list[Result], now: int = 0, *, origin: str = "n1") -> None:
        self.proposals.applied(CommandBatch(origin, 3, sequence, 1, []), results, now)

    def sent(self) -> list[int]:
        return [unpack_batch(data).sequence for data in self.proposals.all_sent()]

    def refusals(self) -> list[tuple[bytes, Reason, Outcome]]:
        return [(key, answer.reason, answer.outcome) for key, answer in self.told if isinstance(answer, Refused)]


def test_a_batch_holds_all_that_waits_under_a_fresh_request_id() -> None:
    clients = Clients()
    assert not clients.proposals.has_queued
    clients.add(Put(b"a", b"1"))
    clients.add(Delete(b"b"))
    assert clients.proposals.has_queued
    assert clients.batch() == CommandBatch("n1", 3, 1, 1, [Put(b"a", b"1"), Delete(b"b")])
    assert not clients.proposals.has_queued
    clients.add(Put(b"c", b"2"))
    assert clients.batch() == CommandBatch("n1", 3, 2, 1, [Put(b"c", b"2")])


def test_a_batch_is_bounded_and_holds_one_command_at_least() -> None:
    clients = Clients(max_batch_bytes=2 * OVERHEAD_BYTES + 4)
    for command in (Put(b"a", b"x" * 1000), Put(b"b", b"1"), Delete(b"cc"), Delete(b"d")):
        clients.add(command)
    assert [len(clients.batch().commands) for _ in range(3)] == [1, 2, 1]


def test_rule_22_what_the_origin_never_repeats_is_settled() -> None:
    clients = Clients()
    for key in (b"a", b"b", b"c"):
        clients.add(Put(key, b""))
        clients.batch()
    clients.apply(2, [PutResult(1, 1)])
    clients.add(Put(b"d", b""))
    assert clients.batch().settled_below == 1
    clients.apply(1, [PutResult(2, 1)])
    clients.add(Put(b"e", b""))
    assert clients.batch().settled_below == 3
    for sequence in (3, 4, 5):
        clients.apply(sequence, [PutResult(1, 1)])
    clients.add(Put(b"f", b""))
    assert clients.batch().settled_below == 6


def test_every_client_is_told_its_own_result_once() -> None:
    clients = Clients()
    clients.add(Put(b"a", b""))
    clients.add(Put(b"b", b""))
    clients.batch()
    assert clients.proposals.waiting == 2
    clients.apply(1, [PutResult(1, 1), PutResult(2, 1)])
    clients.apply(1, [PutResult(1, 1), PutResult(2, 1)])
    assert clients.told == [(b"a", PutResult(1, 1)), (b"b", PutResult(2, 1))]
    assert clients.proposals.waiting == 0


def test_rule_23_a_command_that_never_left_has_failed() -> None:
    clients = Clients()
    clients.add(Put(b"a", b""), deadline=10)
    clients.add(Put(b"b", b""), deadline=20)
    assert clients.proposals.next_deadline() == 10
    clients.proposals.expire(9, Reason.NO_LEADER)
    assert clients.told == []
    clients.proposals.expire(10, Reason.NO_LEADER)
    assert clients.refusals() == [(b"a", Reason.NO_LEADER, Outcome.FAILED)]
    assert clients.proposals.waiting == 1
    assert clients.batch().commands == [Put(b"b", b"")]


def test_rule_23_a_command_that_left_and_was_not_seen_is_unknown() -> None:
    clients = Clients()
    clients.add(Put(b"a", b""), deadline=10)
    clients.add(Put(b"b", b""), deadline=20)
    clients.batch()
    assert clients.proposals.next_deadline() == 10
    clients.proposals.expire(10, Reason.NO_LEADER)
    assert clients.refusals() == [(b"a", Reason.TIMEOUT, Outcome.UNKNOWN)]
    assert clients.proposals.next_deadline() == 20
    assert clients.sent() == [1]
    clients.apply(1, [PutResult(1, 1), PutResult(2, 1)])
    assert clients.told[1:] == [(b"b", PutResult(2, 1))]
    assert clients.proposals.waiting == 0


def test_rule_23_a_batch_that_nobody_waits_for_is_not_repeated() -> None:
    clients = Clients()
    clients.add(Put(b"a", b""), deadline=10)
    clients.batch()
    clients.proposals.expire(10, Reason.NO_LEADER)
    assert clients.sent() == []
    assert clients.proposals.next_deadline() is None
    clients.apply(1, [PutResult(1, 1)])
    assert clients.refusals() == [(b"a", Reason.TIMEOUT, Outcome.UNKNOWN)]


def test_rule_22_a_late_copy_of_a_batch_that_was_given_up_is_not_applied_after_the_next() -> None:
    clients, machine = Clients(), StateMachine([])
    clients.add(Put(b"k", b"old"), deadline=10)
    late = clients.batch()
    clients.proposals.expire(10, Reason.NO_LEADER)
    clients.add(Put(b"k", b"new"))
    assert machine.apply(clients.batch(), 1) == [PutResult(1, 1)]
    assert machine.apply(late, 1) is None


def test_rule_22_a_batch_that_is_still_wanted_is_applied_however_late() -> None:
    clients, machine = Clients(), StateMachine([])
    clients.add(Put(b"k", b"first"))
    late = clients.batch()
    clients.add(Put(b"k", b"second"))
    assert machine.apply(clients.batch(), 1) == [PutResult(1, 1)]
    assert machine.apply(late, 1) == [PutResult(2, 2)]


def test_what_is_on_its_way_is_repeated_with_a_doubling_wait() -> None:
    clients = Clients()
    clients.add(Put(b"a", b""))
    data = clients.proposals.batch(0)
    assert clients.proposals.next_deadline() == REPEAT
    assert clients.proposals.overdue(REPEAT - 1) == []
    assert clients.proposals.overdue(REPEAT) == [data]
    assert clients.proposals.next_deadline() == 3 * REPEAT
    assert clients.proposals.overdue(3 * REPEAT) == [data]
    assert clients.proposals.next_deadline() == 7 * REPEAT
    assert clients.proposals.all_sent() == [data]


def bulk(key: bytes) -> WriteRequest:
    return WriteRequest(Put(key, b""), 1, lambda _: None, 10_000 * MS, MAX_BULK_WORK)


def test_small_commands_pass_bulk_commands_of_which_few_are_sent_at_a_time() -> None:
    clients = Clients()
    for key in (b"large", b"larger"):
        clients.proposals.add(bulk(key))
    clients.add(Put(b"small", b""))
    assert [clients.batch().commands for _ in range(2)] == [[Put(b"small", b"")], [Put(b"large", b"")]]
    assert not clients.proposals.has_queued
    clients.add(Put(b"next", b""))
    assert clients.batch().commands == [Put(b"next", b"")]
    clients.apply(2, [PutResult(1, 1)])
    assert clients.proposals.has_queued
    assert clients.batch().commands == [Put(b"larger", b"")]


def test_bulk_commands_rest_for_a_multiple_of_their_time_while_other_commands_are_applied() -> None:
    clients = Clients()
    for key in (b"large", b"larger", b"largest"):
        clients.proposals.add(bulk(key))
    clients.batch(now=0)
    clients.apply(7, [PutResult(1, 1)], origin="n2")
    clients.apply(1, [PutResult(1, 1)], 10 * MS)
    assert not clients.proposals.has_queued
    until = clients.proposals.next_deadline()
    assert until == 10 * MS + REST * 10 * MS
    clients.proposals.expire(until - 1, Reason.NO_LEADER)
    assert not clients.proposals.has_queued
    clients.proposals.expire(until, Reason.NO_LEADER)
    assert clients.proposals.has_queued
    assert clients.proposals.next_deadline() != until  # the driver would call `tick` without an end
    clients.batch(now=until)
    clients.apply(2, [PutResult(1, 1)], until + 10 * MS)
    assert clients.proposals.has_queued  # no other command was applied meanwhile


def test_the_rest_of_bulk_commands_is_bounded() -> None:
    clients = Clients()
    clients.proposals.add(bulk(b"large"))
    clients.add(Put(b"small", b""))
    clients.batch()
    clients.batch()
    for sequence in (1, 2):
        clients.apply(sequence, [PutResult(1, 1)], 900 * MS)
    assert clients.proposals.next_deadline() == (900 + MAX_REST_MS) * MS


def test_a_bulk_command_that_timed_out_makes_room_for_the_next_one() -> None:
    clients = Clients()
    for key in (b"large", b"larger"):
        clients.proposals.add(bulk(key))
    clients.batch()
    assert not clients.proposals.has_queued
    assert clients.proposals.next_deadline() == 10_000 * MS or clients.proposals.next_deadline() == REPEAT
    clients.proposals.expire(10_000 * MS, Reason.NO_LEADER)
    clients.proposals.add(bulk(b"third"))
    assert clients.batch().commands == [Put(b"third", b"")]


def test_the_work_of_a_command_counts_the_keys_that_it_may_read() -> None:
    store = CommandedStore(Transact([], [Put(b"%d" % key, b"") for key in range(500)], []), GrantLease(1000))
    span, size = DeleteSpan(EVERY_KEY), 100
    compare = Transact([Compare(EVERY_KEY, Target.VERSION, Relation.EQUAL, 1)], [], [])
    for command, keys in (
        (Put(b"a", b""), 0),
        (span, 500),
        (DeleteSpan(EVERY_KEY, 20), 20),
        (compare, 500),
        (Transact([], [span], [span]), 1000),
        (Idempotent(2, 1, b"", span), 500),
        (RevokeLease(2), 1),
        (RevokeLease(9), 0),
    ):
        assert work_of(command, size, store.machine) == size + KEY_BYTES * keys
