"""What a backup asks of the replica: all that is applied is stored, and compaction waits, but not for ever."""

from kvstore.api.commands import Delete, Put
from kvstore.replica.retention import RetentionLimits
from kvstore.replica.snapshot_send import IDLE_MS, MAX_WAIT_MS
from paxos.types import MS
from storage.base import StateWrite
from tests.unit.kvstore.replica.host import NodeHost


def leading() -> NodeHost:
    """A leader that keeps no history longer than it must."""
    host = NodeHost()
    host.node._checkpointer._retention._limits = RetentionLimits(history_revisions=0)
    host.lead()
    return host


def change(host: NodeHost) -> int:
    """Something is superseded; how far the state is compacted then."""
    for command in (Put(b"k", b"v"), Delete(b"k"), Put(b"k", b"v")):
        host.write(command)
        host.settle()
    return host.storage.hard_state.compact


def hold(host: NodeHost, after: int, reader: str = "backup 1") -> int:
    return host.node.hold_state(reader, after)


def test_what_was_applied_is_stored_at_once_though_nothing_else_is_to_be_stored() -> None:
    host = leading()
    host.write(Put(b"k", b"v"))
    host.settle()
    assert host.storage.read_state(0, 1 << 20).changes == []
    hold(host, 0)
    host.step()
    assert [type(write) for write in host.writes] == [StateWrite]
    host.sync()
    page = host.storage.read_state(0, 1 << 20)
    assert page.progress is not None
    assert page.progress.applied == host.node.applied
    assert [row.key for row in page.changes] == [b"k"]
    hold(host, page.changes[-1].position)
    host.step()
    assert host.writes == []


def test_compaction_waits_for_a_reader_until_it_ends() -> None:
    host = leading()
    assert change(host) < change(host)
    held = hold(host, 0)
    assert (change(host), change(host)) == (held, held)
    hold(host, 0, "backup 2")
    host.node.release_state("backup 1")
    assert change(host) == held
    host.node.release_state("backup 2")
    assert change(host) > held


def test_compaction_does_not_wait_for_a_reader_that_fell_silent() -> None:
    host = leading()
    change(host)
    held = hold(host, 0)
    host.later(IDLE_MS - 1)
    assert change(host) == held
    host.later(2)
    host.lead()
    assert change(host) > held


def test_compaction_does_not_wait_for_ever_for_one_that_goes_on_asking() -> None:
    host = leading()
    change(host)
    held = hold(host, 0)
    begun = host.now
    while host.now < begun + (MAX_WAIT_MS - IDLE_MS) * MS:
        assert change(host) == held
        host.later(IDLE_MS // 2)
        host.lead()
        hold(host, 1)
    host.later(IDLE_MS)
    hold(host, 1)
    host.lead()
    assert change(host) > held
