"""Commands that are done once, however often they come (rule 22)."""

import pytest

from kvstore.api.commands import (
    AcquireLock,
    AcquireResult,
    AnswerExpired,
    AnswerNotKept,
    Command,
    CommandBatch,
    Compare,
    DeleteSpan,
    Get,
    GrantLease,
    IdempotencyKeyReused,
    Idempotent,
    LeaseEnded,
    LeaseGranted,
    List,
    LockHeld,
    NotFound,
    Put,
    PutResult,
    Relation,
    ReleaseLock,
    RepeatableCommand,
    Result,
    RevokeLease,
    Target,
    Transact,
    TransactResult,
)
from kvstore.api.key_range import EVERY_KEY, Span
from kvstore.state_machine.idempotency import KEPT, MAX_KEPT_BYTES
from tests.unit.kvstore.state_machine.commanded import CommandedStore


def once(command: RepeatableCommand, number: int = 1, lease: int = 1, fingerprint: bytes = b"f") -> Idempotent:
    return Idempotent(lease, number, fingerprint, command)


def twice(store: CommandedStore, command: Command) -> Result:
    """The answer, which is the same the second time and changes nothing more; on a replica that was loaded, too."""
    first = store.do(command)
    revision, digest = store.machine.revision, store.machine.digest
    assert store.do(command) == first
    assert (store.machine.revision, store.machine.digest) == (revision, digest)
    loaded = store.loaded()
    assert loaded.apply(CommandBatch("n9", 1, 1, 1, [command]), 1) == [first]
    assert loaded.digest == digest
    return first


ABSENT = Compare(b"a", Target.EXISTS, Relation.EQUAL, 0)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (Put(b"a", b"1"), PutResult(2, 1)),
        (DeleteSpan(EVERY_KEY), None),
        (Transact([ABSENT], [Put(b"a", b"1"), Get(b"a"), List(EVERY_KEY, 5)], []), None),
        (Transact([], [Transact([ABSENT], [], [])], []), None),
        (GrantLease(900), LeaseGranted(2, 900)),
        (AcquireLock(b"l", 1, 0, b"", True), AcquireResult(1, 2, True)),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_the_first_answer_is_given_again(command: RepeatableCommand, answer: Result | None) -> None:
    first = twice(CommandedStore(GrantLease(5000)), once(command))
    assert answer is None or first == answer


def test_a_condition_that_failed_once_has_failed_for_good() -> None:
    store = CommandedStore(GrantLease(5000), Put(b"a", b"1"))
    command = once(Transact([ABSENT], [Put(b"a", b"2")], [Get(b"a")]))
    first = store.do(command)
    assert isinstance(first, TransactResult)
    assert not first.succeeded
    store.do(DeleteSpan(EVERY_KEY))
    assert store.do(command) == first


def test_what_was_not_done_may_be_done_later() -> None:
    store = CommandedStore(GrantLease(5000), GrantLease(5000), AcquireLock(b"l", 2, 0, b"", True))
    assert store.do(once(AcquireLock(b"l", 1, 0, b"", False))) == LockHeld(2, 3)
    store.do(ReleaseLock(b"l", 2))
    assert store.do(once(AcquireLock(b"l", 1, 0, b"", False))) == AcquireResult(1, 5, True)


def test_another_request_with_the_same_number_is_refused() -> None:
    store = CommandedStore(GrantLease(5000), once(Put(b"a", b"1")))
    assert store.do(once(Put(b"a", b"2"), fingerprint=b"g")) == IdempotencyKeyReused()
    assert store.machine.records[b"a"].value == b"1"


def test_a_lease_that_is_over_is_told_from_a_number_that_was_not_used() -> None:
    store = CommandedStore(GrantLease(5000), once(Put(b"a", b"1")))
    store.do(RevokeLease(1))
    for number in (1, 2):
        assert store.do(once(Put(b"a", b"2"), number)) == AnswerExpired()
    assert store.machine.records[b"a"].value == b"1"
    assert store.machine._internal == {}


@pytest.mark.parametrize("step", [1, 3, 5 * KEPT])
def test_the_last_numbers_of_a_lease_are_kept_and_older_ones_are_refused(step: int) -> None:
    store = CommandedStore(GrantLease(5000))
    numbers = range(1, 1 + (KEPT + 10) * step, step) if step < KEPT else (1, 2, step)
    first = {number: store.do(once(Put(b"a", b"%d" % number), number)) for number in numbers}
    top = numbers[-1]
    for number in numbers:
        answer = store.do(once(Put(b"a", b"again"), number))
        assert answer == (AnswerExpired() if number <= top - KEPT else first[number])
    assert store.machine.lease_index.leases[1].answers == {number for number in numbers if number > top - KEPT}


def test_a_long_answer_is_not_kept_and_that_is_told() -> None:
    store = CommandedStore(GrantLease(5000), Put(b"a", bytes(MAX_KEPT_BYTES)))
    command = once(Transact([], [Put(b"b", b""), Get(b"a")], []))
    assert isinstance(store.do(command), TransactResult)
    assert store.do(command) == AnswerNotKept(3)
    assert store.machine.records[b"b"].version == 1


def test_a_command_that_ends_the_very_lease() -> None:
    store = CommandedStore(GrantLease(5000))
    assert store.do(once(RevokeLease(1))) == LeaseEnded(2, 0)
    assert store.do(once(RevokeLease(1))) == AnswerExpired()


def test_a_command_that_changes_nothing_is_remembered_too() -> None:
    store = CommandedStore(GrantLease(5000))
    command = once(DeleteSpan(Span(b"x", b"y")))
    first = twice(store, command)
    assert not isinstance(first, NotFound)
    assert store.machine.revision == 2


def test_a_number_that_comes_late_does_not_bring_older_ones_back() -> None:
    store = CommandedStore(GrantLease(5000))
    store.do(once(Put(b"a", b"1"), KEPT + 5))
    assert isinstance(store.do(once(Put(b"a", b"2"), 6)), PutResult)
    assert store.do(once(Put(b"a", b"3"), 5)) == AnswerExpired()
    assert store.machine.lease_index.leases[1].top == KEPT + 5
    assert store.loaded().lease_index.leases == store.machine.lease_index.leases
