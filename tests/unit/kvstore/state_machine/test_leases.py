"""Leases and locks in the state: what hangs on what, and what goes with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.commands import (
    AcquireLock,
    AcquireResult,
    Command,
    Compare,
    Delete,
    DeleteSpan,
    ExpireLease,
    Get,
    GrantLease,
    Idempotent,
    KeepLeaseAlive,
    KeyState,
    LeaderResult,
    LeasedPut,
    LeaseEnded,
    LeaseFull,
    LeaseGranted,
    LeaseNotFound,
    LockHeld,
    LockNotHeld,
    LockReleased,
    Put,
    PutResult,
    RecordLeader,
    Relation,
    ReleaseLock,
    RevokeLease,
    Target,
    Transact,
    TransactResult,
)
from kvstore.api.key_range import EVERY_KEY
from kvstore.state_machine import leases as leasing
from kvstore.state_machine.lease_index import LeaseIndex
from kvstore.state_machine.quota import GROWTH, growth_of, size_bytes
from tests.unit.kvstore.state_machine.commanded import CommandedStore


def same(lease_index: LeaseIndex, other: LeaseIndex) -> bool:
    return (lease_index.leases, lease_index.lease_of, lease_index.locks) == (other.leases, other.lease_of, other.locks)


def test_a_lease_is_named_by_its_revision_and_takes_its_keys_along() -> None:
    store = CommandedStore()
    assert store.do(GrantLease(5000)) == LeaseGranted(1, 5000)
    assert store.do(LeasedPut(b"a", b"1", 1)) == PutResult(2, 1)
    assert store.do(LeasedPut(b"b", b"2", 1)) == PutResult(3, 1)
    store.do(Put(b"c", b"3"))
    assert store.machine.lease_index.lease_of == {b"a": 1, b"b": 1}
    assert store.do(RevokeLease(1)) == LeaseEnded(5, 2)
    assert store.keys == [b"c"]
    assert store.machine.lease_index.leases == {}
    assert store.do(RevokeLease(1)) == LeaseNotFound(1)
    assert store.machine.revision == 5


def test_rule_6_amid_an_entry_readers_see_the_lease_that_a_key_had_before() -> None:
    store = CommandedStore(GrantLease(5000), GrantLease(5000), LeasedPut(b"a", b"1", 1))
    machine = store.machine
    machine.begin_entry()
    store.do(LeasedPut(b"a", b"2", 2))
    store.do(LeasedPut(b"b", b"2", 2))
    machine.suspend_entry()
    assert [machine.shown_lease(key) for key in (b"a", b"b")] == [1, 0]
    store.do(Put(b"a", b"3"))
    assert machine.shown_lease(b"a") == 1
    machine.end_entry()
    assert [machine.shown_lease(key) for key in (b"a", b"b")] == [0, 2]


def test_what_is_the_stores_own_is_nowhere_among_the_keys() -> None:
    store = CommandedStore(GrantLease(5000), LeasedPut(b"a", b"1", 1), AcquireLock(b"lock", 1, 0, b"me", True))
    assert store.keys == [b"a"]
    assert [key for key, record in store.machine.as_of(EVERY_KEY, 2) if record is not None] == [b"a"]
    assert [event.key for event in store.machine.history.after(0)] == [b"a"]
    assert list(store.machine.records) == [b"a"]
    store.do(DeleteSpan(EVERY_KEY))
    assert list(store.machine.lease_index.locks) == [b"lock"]
    assert list(store.machine.lease_index.leases) == [1]


@pytest.mark.parametrize(
    "command",
    [Put(b"a", b"2"), Delete(b"a"), DeleteSpan(EVERY_KEY), Transact([], [Put(b"a", b"2")], [])],
    ids=lambda command: type(command).__name__,
)
def test_a_key_that_is_put_without_the_lease_or_deleted_goes_with_it_no_more(command: Command) -> None:
    store = CommandedStore(GrantLease(5000), LeasedPut(b"a", b"1", 1), command)
    kept = store.keys
    assert store.machine.lease_index.lease_of == {}
    assert store.do(RevokeLease(1)) == LeaseEnded(store.machine.revision, 0)
    assert store.keys == kept


def test_a_key_goes_with_the_last_lease_that_it_was_put_with() -> None:
    store = CommandedStore(
        GrantLease(5000), GrantLease(6000), LeasedPut(b"a", b"1", 1), LeasedPut(b"a", b"2", 2), LeasedPut(b"a", b"3", 2)
    )
    store.do(RevokeLease(1))
    assert store.keys == [b"a"]
    store.do(RevokeLease(2))
    assert store.keys == []


def test_a_lease_of_its_own_ends_with_its_key() -> None:
    store = CommandedStore(Put(b"x", b""))
    assert store.do(LeasedPut(b"a", b"1", 0, 700)) == PutResult(2, 1)
    assert store.machine.lease_index.leases[2].terms.ttl_ms == 700
    store.do(LeasedPut(b"a", b"2", 0, 800))
    assert list(store.machine.lease_index.leases) == [3]
    store.do(Put(b"a", b"3"))
    assert store.machine.lease_index.leases == {}
    assert store.keys == [b"a", b"x"]


@pytest.mark.parametrize(
    "first",
    [Put(b"a", b"2"), Delete(b"a"), DeleteSpan(EVERY_KEY), Transact([], [Delete(b"a")], [])],
    ids=lambda command: type(command).__name__,
)
def test_a_lease_of_its_own_may_be_used_on_in_the_transaction_that_takes_its_key_off_it(
    first: Put | Delete | DeleteSpan | Transact,
) -> None:
    store = CommandedStore(LeasedPut(b"a", b"1", 0, 700))
    assert isinstance(store.do(Transact([], [first, LeasedPut(b"b", b"2", 1)], [])), TransactResult)
    assert store.machine.lease_index.lease_of == {b"b": 1}
    store.do(Delete(b"b"))
    assert store.machine.lease_index.leases == {}
    assert same(store.machine.lease_index, store.loaded().lease_index)


def test_a_lease_of_its_own_takes_nothing_else_along_when_what_it_was_granted_for_goes() -> None:
    store = CommandedStore(AcquireLock(b"lock", 0, 700, b"", False), LeasedPut(b"a", b"1", 1))
    store.do(Put(b"a", b"2"))
    assert store.machine.lease_index.holder(b"lock") is not None
    store.do(LeasedPut(b"a", b"3", 1))
    store.do(ReleaseLock(b"lock", 1))
    assert store.keys == [b"a"]
    assert list(store.machine.lease_index.leases) == [1]
    store.do(Delete(b"a"))
    assert store.machine.lease_index.leases == {}


def test_nothing_goes_with_a_lease_that_is_not_there_and_then_nothing_is_done() -> None:
    store = CommandedStore(GrantLease(5000))
    revision = store.machine.revision
    put = LeasedPut(b"a", b"1", 7)
    nested = Transact([], [], [put])
    for command in (put, Transact([], [Put(b"b", b""), put], []), Transact([], [Put(b"b", b""), nested], [])):
        assert store.do(command) == LeaseNotFound(7)
    for other in (KeepLeaseAlive(7), AcquireLock(b"lock", 7, 0, b"", True)):
        assert store.do(other) == LeaseNotFound(7)
    assert (store.machine.revision, store.keys) == (revision, [])


def test_what_may_hang_on_a_lease_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasing, "MAX_ATTACHED", 2)
    store = CommandedStore(GrantLease(5000), LeasedPut(b"a", b"1", 1))
    two = Transact([], [LeasedPut(b"b", b"", 1), LeasedPut(b"c", b"", 1)], [])
    assert store.do(two) == LeaseFull(1)
    assert store.do(LeasedPut(b"b", b"", 1)) == PutResult(3, 1)
    assert store.do(LeasedPut(b"b", b"again", 1)) == PutResult(4, 2)
    assert store.do(LeasedPut(b"c", b"", 1)) == LeaseFull(1)
    store.do(AcquireLock(b"l1", 1, 0, b"", True))
    store.do(AcquireLock(b"l2", 1, 0, b"", True))
    assert store.do(AcquireLock(b"l3", 1, 0, b"", True)) == LeaseFull(1)
    assert isinstance(store.do(AcquireLock(b"l2", 1, 0, b"", True)), AcquireResult)


def test_a_renewal_can_give_a_lease_another_length_which_later_renewals_keep() -> None:
    store = CommandedStore(GrantLease(5000), AcquireLock(b"l", 0, 900, b"", False))
    assert store.do(KeepLeaseAlive(1, 9000)) == LeaseGranted(1, 9000)
    assert store.do(KeepLeaseAlive(1)) == LeaseGranted(1, 9000)
    assert store.do(KeepLeaseAlive(2, 9000)) == LeaseGranted(2, 9000)
    assert store.loaded().lease_index.leases[1].terms.ttl_ms == 9000
    store.do(ReleaseLock(b"l", 2))
    assert list(store.machine.lease_index.leases) == [1]  # it still ended with its lock


def test_only_the_leader_that_has_said_so_ends_a_lease_and_none_that_was_kept_alive_meanwhile() -> None:
    store = CommandedStore(GrantLease(5000), LeasedPut(b"a", b"1", 1))
    assert store.do(ExpireLease(1, 1, "3.n1")) == LeaderResult(False)  # nobody has said that it leads
    assert store.do(RecordLeader("3.n1", 0)) == LeaderResult(True)
    assert store.do(KeepLeaseAlive(1)) == LeaseGranted(1, 5000)
    assert store.do(ExpireLease(1, 1, "3.n1")) == LeaderResult(False)
    assert store.do(RecordLeader("4.n2", 1)) == LeaderResult(True)
    assert store.do(ExpireLease(1, 2, "3.n1")) == LeaderResult(False)
    assert store.do(RecordLeader("3.n1", 1)) == LeaderResult(False)  # an old word that comes late
    assert store.do(ExpireLease(1, 2, "3.n1")) == LeaderResult(False)
    assert store.keys == [b"a"]
    assert store.do(RecordLeader("5.n2", 2)) == LeaderResult(True)
    assert store.do(ExpireLease(1, 2, "4.n2")) == LeaderResult(False)  # the same node, under an earlier ballot
    assert store.keys == [b"a"]
    assert store.do(ExpireLease(1, 2, "5.n2")) == LeaderResult(True)
    assert store.keys == []
    assert store.do(ExpireLease(1, 2, "5.n2")) == LeaderResult(False)


def test_who_comes_first_has_the_lock_and_the_fence_grows() -> None:
    store = CommandedStore(GrantLease(5000), GrantLease(5000), GrantLease(5000))
    assert store.do(AcquireLock(b"l", 1, 0, b"", True)) == AcquireResult(1, 4, True)
    assert store.do(AcquireLock(b"l", 2, 0, b"", False)) == LockHeld(1, 4)
    assert store.do(AcquireLock(b"l", 3, 0, b"", True)) == AcquireResult(3, 5, False)
    assert store.do(AcquireLock(b"l", 2, 0, b"", True)) == AcquireResult(2, 6, False)
    assert store.do(AcquireLock(b"l", 3, 0, b"", True)) == AcquireResult(3, 5, False)  # it asks again
    assert store.do(AcquireLock(b"l", 1, 0, b"", False)) == AcquireResult(1, 4, True)
    assert store.do(ReleaseLock(b"l", 1)) == LockReleased(7)
    assert store.do(AcquireLock(b"l", 3, 0, b"", True)) == AcquireResult(3, 5, True)
    assert store.do(ReleaseLock(b"l", 1)) == LockNotHeld()
    assert store.do(ReleaseLock(b"l", 9)) == LockNotHeld()
    store.do(RevokeLease(3))
    holder = store.machine.lease_index.holder(b"l")
    assert holder is not None
    assert holder[0] == 6
    store.do(ReleaseLock(b"l", 2))
    assert store.machine.lease_index.locks == {}


def test_a_lock_with_a_lease_of_its_own() -> None:
    store = CommandedStore()
    assert store.do(AcquireLock(b"l", 0, 900, b"me", False)) == AcquireResult(1, 1, True)
    assert store.do(ReleaseLock(b"l", 1)) == LockReleased(2)
    assert store.machine.lease_index.leases == {}


@pytest.mark.parametrize(("fence", "done"), [(2, True), (3, False), (0, False)])
def test_a_write_on_the_condition_that_a_fence_holds_the_lock(fence: int, done: bool) -> None:
    store = CommandedStore(GrantLease(5000), AcquireLock(b"l", 1, 0, b"", True))
    guard = Compare(b"l", Target.FENCING_TOKEN, Relation.EQUAL, fence)
    result = store.do(Transact([guard], [Put(b"a", b"1")], [Get(b"a")]))
    assert isinstance(result, TransactResult)
    assert result.succeeded is done


def test_a_lease_is_compared_and_told_in_a_transaction() -> None:
    store = CommandedStore(GrantLease(5000), LeasedPut(b"a", b"1", 1))
    compare = Compare(b"a", Target.LEASE, Relation.EQUAL, 1)
    absent = Compare(b"b", Target.LEASE, Relation.EQUAL, 0)
    result = store.do(Transact([compare, absent], [Get(b"a")], []))
    assert isinstance(result, TransactResult)
    (found,) = result.results
    assert isinstance(found, KeyState)
    assert found.lease == 1


LEASES = st.integers(1, 12)
KEYS = st.sampled_from([b"a", b"b", b"c"])
COMMANDS = st.one_of(
    st.builds(GrantLease, st.just(5000)),
    st.builds(KeepLeaseAlive, LEASES, st.sampled_from([0, 7000])),
    st.builds(RevokeLease, LEASES),
    st.builds(LeasedPut, KEYS, st.binary(max_size=2), LEASES),
    st.builds(LeasedPut, KEYS, st.binary(max_size=2), st.just(0), st.just(700)),
    st.builds(Put, KEYS, st.binary(max_size=2)),
    st.builds(Delete, KEYS),
    st.builds(AcquireLock, KEYS, LEASES, st.just(0), st.just(b""), st.booleans()),
    st.builds(AcquireLock, KEYS, st.just(0), st.just(900), st.just(b"v"), st.booleans()),
    st.builds(ReleaseLock, KEYS, LEASES),
    st.builds(Idempotent, LEASES, st.integers(1, 4), st.just(b"f"), st.builds(Put, KEYS, st.binary(max_size=2))),
    st.builds(Idempotent, LEASES, st.integers(1, 4), st.just(b"f"), st.builds(RevokeLease, LEASES)),
)


@given(st.lists(COMMANDS, max_size=30))
def test_what_is_stored_gives_the_same_state_and_the_index_is_that_of_its_records(commands: list[Command]) -> None:
    store = CommandedStore()
    for command in commands:
        before = store.machine.size_bytes
        bound = growth_of(command, store.machine)  # type: ignore[arg-type]
        store.do(command)
        if not isinstance(command, Idempotent):
            assert store.machine.size_bytes <= before + max(0, bound)
            assert bound <= GROWTH * size_bytes(command)
    loaded = store.loaded()
    assert same(loaded.lease_index, store.machine.lease_index)
    assert same(loaded.lease_index, LeaseIndex(store.machine._internal.items()))
    assert (loaded.digest, loaded.size_bytes, loaded.records) == (
        store.machine.digest,
        store.machine.size_bytes,
        store.machine.records,
    )
    for lease in list(store.machine.lease_index.leases):
        store.do(RevokeLease(lease))
    assert store.machine._internal == {}
    assert (store.machine.lease_index.lease_of, store.machine.lease_index.locks) == ({}, {})
