"""A new cluster from a backup: the same on every node, and without the old cluster's votes and memberships."""

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kvstore.api.commands import (
    AcquireLock,
    AcquireResult,
    AnswerExpired,
    Command,
    CommandBatch,
    Compare,
    GrantLease,
    Idempotent,
    KeepLeaseAlive,
    LeaderResult,
    LeasedPut,
    LeaseNotFound,
    Put,
    PutResult,
    RecordLeader,
    Relation,
    Result,
    Target,
    Transact,
    TransactResult,
)
from kvstore.api.key_range import EVERY_KEY
from kvstore.api.membership import founded as memberships_after
from kvstore.api.queries import Lookup, Scan
from kvstore.api.results import ReadAnswer, RevisionUnavailable
from kvstore.backup.file import Backup, BackupError, BackupWriter, MisuseError
from kvstore.backup.renumbering import MAX_ABOVE, RestoredState
from kvstore.backup.restore import restore_node
from kvstore.replica.applier import PAGE_BYTES, Applier, load_restored, load_state, restored_mark
from kvstore.replica.founding import FoundingPlan
from kvstore.replica.node import Node
from kvstore.replica.snapshot_receive import END
from kvstore.replica.snapshot_send import state_message
from kvstore.state_machine.reads import look_up
from paxos import wire
from paxos.messages import FetchSnapshot
from paxos.options import Options
from storage.base import AppliedProgress, Recovered, revision_of
from storage.sqlite import SqliteStorage, open_storage
from tests.unit.kvstore.backup.states import COMMANDS, RECORDS, make_backup
from tests.unit.kvstore.memberships import genesis

MEMBERS = ("n1", "n2")
ABOVE = 1000
TAKEN_AT = "2026-01-03T00:00:00+00:00"


def restore(path: Path, directory: Path, node: str = "n1", cluster: str = "new", above: int = ABOVE) -> RestoredState:
    with Backup(path) as backup:
        state = RestoredState(backup, above)
        restore_node(state, directory, cluster, node, MEMBERS)
        return state


def opened(directory: Path, node: str = "n1") -> tuple[Recovered, Applier]:
    """What a member reports of its data, and the state with which it may found a cluster."""
    with closing(open_storage(directory, "new", node, MEMBERS)) as storage:
        applier = load_restored(storage)
        assert applier is not None
        return storage.recovered(), applier


def founded(directory: Path) -> SqliteStorage:
    """Found a cluster of n1 alone with the restored data, and return the data."""
    storage = open_storage(directory, "new", "n1", MEMBERS)
    plan = FoundingPlan(("n1",))
    Node(storage, Options(), clock=lambda: 0, rng=Random(1), request_timeout_ms=1, max_waiting=1, plan=plan)
    return storage


def test_a_node_begins_with_the_values_and_with_nothing_of_the_old_cluster(tmp_path: Path) -> None:
    make_backup(tmp_path / "b.db", *COMMANDS)
    state = restore(tmp_path / "b.db", tmp_path / "new" / "n1")
    recovered, applier = opened(tmp_path / "new" / "n1")
    machine = applier.machine
    assert {key: record.value for key, record in machine.records.items()} == {
        key: value for key, (value, *_) in RECORDS.items()
    }
    assert (applier.applied, applier.chain, machine.revision) == (ABOVE, state.progress.chain, ABOVE + 4)
    assert recovered.identity.members == MEMBERS
    assert applier.restored == state.mark
    assert [child.name for child in (tmp_path / "new").iterdir()] == ["n1"]


def test_rule_31_a_restored_node_has_no_vote_no_log_and_no_membership_before_its_cluster_is_founded(
    tmp_path: Path,
) -> None:
    make_backup(tmp_path / "b.db", *COMMANDS)
    state = restore(tmp_path / "b.db", tmp_path / "n1")
    recovered, applier = opened(tmp_path / "n1")
    assert (recovered.chosen, recovered.last, recovered.truncation.slot, recovered.promised.round) == (0, 0, 0, 0)
    assert (recovered.founding, recovered.progress, applier.machine.memberships) == (None, AppliedProgress(), [])
    with closing(founded(tmp_path / "n1")) as storage:
        assert storage.recovered().restored is not None, "as of the opening"
    with closing(open_storage(tmp_path / "n1", "new", "n1", MEMBERS)) as storage:
        recovered, applier = storage.recovered(), load_state(storage, [])
        assert (recovered.chosen, recovered.last, recovered.truncation.slot) == (ABOVE, ABOVE, ABOVE)
        assert (recovered.restored, restored_mark(recovered.progress)) == (None, state.mark)
        incarnation = recovered.identity.incarnation
        assert applier.machine.memberships == memberships_after([("n1", incarnation)], (), after=ABOVE)


def test_backups_of_the_same_records_at_different_slots_have_different_marks(tmp_path: Path) -> None:
    """A slot without a command makes no revision, and a log that is one slot longer."""
    marks = []
    for slots in (1, 2):
        applier = Applier(genesis(MEMBERS))
        for slot in range(1, slots + 1):
            applier.apply(slot, b"")
        with BackupWriter(tmp_path / f"{slots}.db") as writer:
            writer.finish(applier.progress(), cluster="old", node="n1", kvstore="0", taken_at=TAKEN_AT)
        state = restore(tmp_path / f"{slots}.db", tmp_path / f"n{slots}", f"n{slots}")
        assert state.progress.applied == ABOVE + slots
        marks.append(state.mark)
    assert marks[0] != marks[1]


def test_nodes_differ_only_in_their_identity(tmp_path: Path) -> None:
    make_backup(tmp_path / "b.db", *COMMANDS)
    states: list[Any] = []
    for node in MEMBERS:
        restore(tmp_path / "b.db", tmp_path / node, node)
        recovered, applier = opened(tmp_path / node, node)
        states.append((recovered.restored, recovered.staged, recovered.staged_compacted, applier.machine.records))
        assert recovered.identity.node == node
    assert states[0] == states[1]


def test_request_ids_of_the_old_cluster_do_not_exist_in_the_new_one(tmp_path: Path) -> None:
    """In the old cluster n1 had reached its 17th start; in the new one it begins with its first, which must count."""
    make_backup(tmp_path / "b.db", *COMMANDS)
    restore(tmp_path / "b.db", tmp_path / "n1")
    assert do(tmp_path / "n1", Put(b"new", b"3")) == [PutResult(ABOVE + 5, 1)]


def do(directory: Path, *commands: Command) -> list[Result]:
    """Apply commands as the first ones of a restored cluster."""
    _, applier = opened(directory)
    results = applier.machine.apply(CommandBatch("n1", 1, 1, 1, list(commands)), applier.applied + 1)
    assert results is not None
    return results


def test_no_number_of_the_old_cluster_has_a_meaning_in_the_new_one(tmp_path: Path) -> None:
    """The old cluster has a lease 1, a fencing token 2, and entity tags and versions of keys, and has given out more of
    them after the backup."""
    commands: list[Command] = [
        GrantLease(5000),
        AcquireLock(b"deploy", 1, 0, b"", queue=False),
        Idempotent(1, 1, b"f", Put(b"a", b"2")),
        LeasedPut(b"session", b"1", 1),
        RecordLeader("9.n1", 0),
    ]
    make_backup(tmp_path / "b.db", *commands)
    with Backup(tmp_path / "b.db") as backup:
        assert backup.info.records == 2
    with closing(sqlite3.connect(tmp_path / "b.db")) as connection:
        assert connection.execute("SELECT key, value FROM readable").fetchall() == [("a", "2"), ("session", "1")]
    restore(tmp_path / "b.db", tmp_path / "n1")
    results = do(
        tmp_path / "n1",
        KeepLeaseAlive(1),
        Idempotent(1, 1, b"f", Put(b"a", b"2")),
        Transact([Compare(b"a", Target.REVISION, Relation.EQUAL, 3)], [Put(b"a", b"old")], []),
        Transact([Compare(b"a", Target.CREATE_REVISION, Relation.EQUAL, 3)], [Put(b"a", b"old")], []),
        Transact([Compare(b"a", Target.VERSION, Relation.EQUAL, 1)], [Put(b"a", b"old")], []),
        AcquireLock(b"deploy", 0, 5000, b"", queue=False),
        Put(b"a", b"new"),
        Transact([Compare(b"a", Target.VERSION, Relation.EQUAL, 2)], [Put(b"a", b"old")], []),
        RecordLeader("1.n1", 0),
    )
    revision = ABOVE + 2
    refused = TransactResult(False, revision, [])
    assert results == [
        LeaseNotFound(1),
        AnswerExpired(),
        refused,
        refused,
        refused,
        AcquireResult(revision + 1, revision + 1, True),
        PutResult(revision + 2, ABOVE - 5 + 2),
        TransactResult(False, revision + 2, []),
        LeaderResult(True),
    ]


def test_the_past_of_the_old_cluster_cannot_be_read(tmp_path: Path) -> None:
    make_backup(tmp_path / "b.db", *COMMANDS)
    restore(tmp_path / "b.db", tmp_path / "n1")
    _, applier = opened(tmp_path / "n1")
    assert applier.machine.history.oldest == applier.machine.revision
    for query in (Lookup(b"a", 6), Scan(EVERY_KEY, 10, 6), Lookup(b"a", ABOVE)):
        assert look_up(query, applier.machine, applier.applied, None) == RevisionUnavailable(ABOVE + 4, ABOVE + 4)
    assert isinstance(look_up(Lookup(b"a", ABOVE + 4), applier.machine, applier.applied, None), ReadAnswer)


def test_a_backup_of_a_restored_cluster_is_restored(tmp_path: Path) -> None:
    make_backup(tmp_path / "b.db", *COMMANDS)
    restore(tmp_path / "b.db", tmp_path / "n1")
    _, applier = opened(tmp_path / "n1")
    with closing(founded(tmp_path / "n1")) as storage:
        changes = storage.read_state(0, 1 << 20).changes
    with BackupWriter(tmp_path / "again.db") as writer:
        writer.add(changes)
        writer.finish(applier.progress(), cluster="new", node="n1", kvstore="0", taken_at=TAKEN_AT)
    again = restore(tmp_path / "again.db", tmp_path / "n2", cluster="newer", above=2 * ABOVE)
    assert (again.records, again.info.revision, again.revision) == (3, ABOVE + 4, 2 * ABOVE + 4)


def test_a_state_at_the_highest_revisions_is_sent_to_peers(tmp_path: Path) -> None:
    make_backup(tmp_path / "b.db", *COMMANDS)
    restore(tmp_path / "b.db", tmp_path / "n1", above=MAX_ABOVE)
    with closing(founded(tmp_path / "n1")) as storage:
        whole = storage.read_state(0, 1 << 20)
        after = whole.changes[-2].position
        assert revision_of(after) > 2**42
        for position, rows in ((after, whole.changes[-1:]), (END, [])):
            assert wire.decode(wire.encode(FetchSnapshot(position))) == FetchSnapshot(position)
            page = storage.read_state(position, 1 << 20)
            assert (page.changes, page.progress) == (rows, whole.progress)
            message = state_message(position, page)
            assert wire.decode(wire.encode(message)) == message


@pytest.mark.parametrize("values", [0, 1, 5])
def test_a_state_of_many_pages_or_of_none_is_restored(tmp_path: Path, values: int) -> None:
    make_backup(tmp_path / "b.db", *(Put(b"%d" % number, bytes(PAGE_BYTES // 2 + number)) for number in range(values)))
    restore(tmp_path / "b.db", tmp_path / "n1")
    recovered, applier = opened(tmp_path / "n1")
    assert len(applier.machine.records) == values
    assert recovered.restored is not None
    assert recovered.restored.applied == ABOVE
    with closing(founded(tmp_path / "n1")) as storage:
        assert len(load_state(storage, []).machine.records) == values


def test_an_existing_directory_is_not_overwritten(tmp_path: Path) -> None:
    make_backup(tmp_path / "b.db", *COMMANDS)
    restore(tmp_path / "b.db", tmp_path / "n1")
    before = (tmp_path / "n1" / "kvstore.db").read_bytes()
    (tmp_path / "empty").mkdir()
    for directory in (tmp_path / "n1", tmp_path / "empty"):
        with pytest.raises(MisuseError, match="exists and may hold data: give another"):
            restore(tmp_path / "b.db", directory)
    assert (tmp_path / "n1" / "kvstore.db").read_bytes() == before


def test_the_name_of_the_old_cluster_is_refused(tmp_path: Path) -> None:
    make_backup(tmp_path / "b.db", *COMMANDS)
    with pytest.raises(MisuseError, match="of cluster old: give the new cluster another name with --cluster"):
        restore(tmp_path / "b.db", tmp_path / "n1", cluster="old")
    assert not (tmp_path / "n1").exists()


def test_a_failed_restore_leaves_no_directory_and_a_killed_one_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_backup(tmp_path / "b.db", *COMMANDS)
    (tmp_path / "n1.partial").mkdir()
    (tmp_path / "n1.partial" / "kvstore.db").write_text("half")
    monkeypatch.setattr(Path, "rename", _fail)
    with pytest.raises(BackupError, match=r"n1 cannot be created .*: give another --data"):
        restore(tmp_path / "b.db", tmp_path / "n1")
    monkeypatch.undo()
    assert [child.name for child in tmp_path.iterdir()] == ["b.db"]
    restore(tmp_path / "b.db", tmp_path / "n1")
    assert opened(tmp_path / "n1")[1].applied == ABOVE


def _fail(*_: object) -> None:
    raise OSError(5, "Input/output error")
