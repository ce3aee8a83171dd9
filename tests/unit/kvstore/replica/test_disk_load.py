"""What a replica takes while its disk is full."""

import pytest

from kvstore.api.commands import AcquireLock, Command, Delete, GrantLease, Idempotent, LeasedPut, Put, Transact
from kvstore.api.errors import Outcome, Reason
from kvstore.replica.disk_load import SMALL_BYTES
from paxos.messages import Accept, Accepted, Heartbeat, Propose
from paxos.role import Role
from paxos.types import NOOP
from storage.base import DiskSpace
from tests.unit.kvstore.replica.host import B1, NodeHost, refusal, value

LARGE = value(Put(b"k", bytes(SMALL_BYTES + 1)))

PUTS: list[Command] = [
    Put(b"k", b"v"),
    LeasedPut(b"k", b"v", 1),
    Idempotent(1, 1, b"", Put(b"k", b"v")),
    Transact([], [Delete(b"a")], [Put(b"k", b"v")]),
]
OTHERS: list[Command] = [
    Delete(b"k"),
    Idempotent(1, 1, b"", Delete(b"k")),
    Transact([], [Delete(b"a")], []),
    GrantLease(1000),
    AcquireLock(b"l", 1, 1000, b"", queue=False),
]


@pytest.mark.parametrize("space", [DiskSpace.LOW, DiskSpace.CRITICAL])
def test_a_full_disk_refuses_values_and_takes_deletions_and_leases(space: DiskSpace) -> None:
    host = NodeHost()
    host.node.space_changed(space)
    for command in PUTS:
        assert refusal(host.write(command)) == (Reason.DISK_FULL, Outcome.FAILED)
    for command in OTHERS:
        assert host.write(command) == []
    host.node.space_changed(DiskSpace.AMPLE)
    for command in PUTS:
        assert host.write(command) == []


@pytest.mark.parametrize(
    ("space", "taken"), [(DiskSpace.AMPLE, [1, 2]), (DiskSpace.LOW, [1, 2]), (DiskSpace.CRITICAL, [1])]
)
def test_a_follower_drops_large_values_only_when_its_reserve_is_nearly_used(space: DiskSpace, taken: list[int]) -> None:
    """A majority that has room decides without it; it fetches the values later."""
    host = NodeHost()
    host.node.space_changed(space)
    host.receive("n2", Heartbeat(B1, 1, 0), Accept(B1, 1, NOOP, 0), Accept(B1, 2, LARGE, 0))
    host.step()
    host.sync()
    votes = [envelope.message for envelope in host.step() if isinstance(envelope.message, Accepted)]
    assert [vote.slot for vote in votes] == taken


def test_a_leader_whose_disk_is_full_steps_aside_once_and_takes_no_large_value_from_others() -> None:
    host = NodeHost()
    host.lead()
    host.node.space_changed(DiskSpace.LOW)
    roles = [host.node.replica.role]
    host.lead()
    host.node.space_changed(DiskSpace.CRITICAL)
    roles.append(host.node.replica.role)
    assert roles == [Role.FOLLOWER, Role.LEADER], "another voter may be as full"
    host.receive("n2", Propose((LARGE,)), Propose((value(Delete(b"k")),)))
    assert host.node.replica.queued == 1
