"""A command makes fewer changes than a revision has positions, whatever is attached to the leases that it touches."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from kvstore.api.commands import (
    MAX_KEYS,
    AcquireLock,
    Command,
    Delete,
    DeleteSpan,
    ExpireLease,
    GrantLease,
    Idempotent,
    LeasedPut,
    Operation,
    Put,
    RecordLeader,
    ReleaseLock,
    RevokeLease,
    Transact,
)
from kvstore.api.key_range import EVERY_KEY
from kvstore.api.limits import MAX_OPERATIONS
from kvstore.state_machine.idempotency import KEPT
from kvstore.state_machine.leases import MAX_ATTACHED
from storage.base import LAST_SUB_REVISION, first_of
from tests.unit.kvstore.state_machine.commanded import CommandedStore


class Limits(NamedTuple):
    """What a command may do, and what a lease may have."""

    keys: int
    operations: int
    attached: int
    answers: int

    @property
    def of_span(self) -> int:
        """Each key is deleted, and detached from its lease, which ends."""
        return 3 * self.keys

    @property
    def of_operations(self) -> int:
        """The key is put, detached from its lease, which ends, and attached to another one, which may be granted."""
        return 5 * self.operations

    @property
    def of_lease(self) -> int:
        """Each key is deleted and detached; the lease has as many queue entries, and answers."""
        return 3 * self.attached + self.answers + 1

    @property
    def of_answer(self) -> int:
        """An answer is kept, and those before it are deleted."""
        return self.answers + 1


SMALL = Limits(keys=30, operations=20, attached=12, answers=40)
REAL = Limits(MAX_KEYS, MAX_OPERATIONS, MAX_ATTACHED, KEPT)


def answered(store: CommandedStore, lease: int, limits: Limits) -> None:
    """Keep as many answers with `lease` as it may have."""
    for number in range(1, limits.answers + 1):
        store.do(Idempotent(lease, number, b"f", Put(b"\xff", b"")))


def busy_lease(store: CommandedStore, limits: Limits) -> int:
    """Return a lease with everything that it may have."""
    store.do(GrantLease(9000))
    lease = store.machine.revision
    for number in range(limits.attached):
        store.do(LeasedPut(b"%d" % number, b"", lease))
        store.do(AcquireLock(b"%d" % number, lease, 0, b"", False))
    answered(store, lease, limits)
    return lease


def keys_with_leases(store: CommandedStore, limits: Limits) -> list[bytes]:
    """Return keys with a lease each, which was granted for the key and has kept answers."""
    keys = [b"%03d" % number for number in range(limits.keys)]
    for key in keys:
        store.do(LeasedPut(key, b"", 0, 9000))
        answered(store, store.machine.revision, limits)
    store.do(Delete(b"\xff"))
    return keys


def revoked(store: CommandedStore, limits: Limits) -> tuple[Command, int]:
    return RevokeLease(busy_lease(store, limits)), limits.of_lease


def expired(store: CommandedStore, limits: Limits) -> tuple[Command, int]:
    store.do(RecordLeader("1.n1", 0))
    lease = busy_lease(store, limits)
    return ExpireLease(lease, store.machine.lease_index.leases[lease].version, "1.n1"), limits.of_lease


def released(store: CommandedStore, limits: Limits) -> tuple[Command, int]:
    store.do(AcquireLock(b"l", 0, 9000, b"", False))
    lease = store.machine.revision
    answered(store, lease, limits)
    return ReleaseLock(b"l", lease), 2


def put_over(store: CommandedStore, limits: Limits) -> tuple[Command, int]:
    return LeasedPut(keys_with_leases(store, limits)[0], b"", 0, 9000), limits.of_operations // limits.operations


def span(store: CommandedStore, limits: Limits) -> tuple[Command, int]:
    keys_with_leases(store, limits)
    return DeleteSpan(EVERY_KEY), limits.of_span


def spans_of_a_transaction(store: CommandedStore, limits: Limits) -> tuple[Command, int]:
    keys = keys_with_leases(store, limits)
    puts: list[Operation] = [Put(key, b"") for key in keys[: limits.operations - 1]]
    return Transact([], [*puts, DeleteSpan(EVERY_KEY)], []), limits.of_operations + limits.of_span


def puts_of_a_transaction(store: CommandedStore, limits: Limits) -> tuple[Command, int]:
    keys = keys_with_leases(store, limits)[: limits.operations]
    store.do(GrantLease(9000))
    lease = store.machine.revision
    return Transact([], [LeasedPut(key, b"", lease) for key in keys], []), limits.of_operations


def kept(store: CommandedStore, limits: Limits) -> tuple[Command, int]:
    keys_with_leases(store, limits)
    store.do(GrantLease(9000))
    lease = store.machine.revision
    answered(store, lease, limits)
    return Idempotent(lease, 5 * KEPT, b"f", DeleteSpan(EVERY_KEY)), limits.of_span + limits.of_answer


@pytest.mark.parametrize(
    "make",
    [revoked, expired, released, put_over, span, spans_of_a_transaction, puts_of_a_transaction, kept],
    ids=lambda make: make.__name__,
)
def test_rule_21_the_changes_of_a_command_do_not_grow_with_what_its_leases_keep(
    make: Callable[[CommandedStore, Limits], tuple[Command, int]],
) -> None:
    """Here with small numbers; the next test has the real ones."""
    store = CommandedStore()
    command, limit = make(store, SMALL)
    before, revision = len(store.machine.changes), store.machine.revision
    store.do(command)
    assert 0 < len(store.machine.changes) - before <= limit
    assert store.machine.revision == revision + 1
    assert store.machine.position == first_of(revision + 1) + len(store.machine.changes) - before - 1
    assert store.loaded().digest == store.machine.digest


def test_rule_21_no_command_makes_more_changes_than_a_revision_has_positions() -> None:
    """If this fails after a limit was raised: the changes of a command would lie in two revisions."""
    assert REAL.of_lease < LAST_SUB_REVISION
    assert REAL.of_span + REAL.of_operations + REAL.of_answer < LAST_SUB_REVISION


def test_a_lease_of_its_own_with_kept_answers_stays_until_its_time_is_over() -> None:
    """A client may repeat the very request that detached the last key."""
    store = CommandedStore(LeasedPut(b"a", b"", 0, 700))
    once = Idempotent(1, 1, b"f", Delete(b"a"))
    answer = store.do(once)
    assert list(store.machine.lease_index.leases) == [1]
    assert store.do(once) == answer
    store.do(RevokeLease(1))
    assert store.machine._internal == {}
