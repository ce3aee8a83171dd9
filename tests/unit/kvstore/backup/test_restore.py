"""A new cluster from a backup: the same on every node, and without the old cluster's votes and memberships."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kvstore.api.commands import (
    Command,
    CommandBatch,
    ExpireLease,
    GrantLease,
    Idempotent,
    LeaderResult,
    LeasedPut,
    Put,
    PutResult,
    RecordLeader,
)
from kvstore.api.membership import genesis
from kvstore.backup.file import Backup, BackupError, MisuseError
from kvstore.backup.restore import restore_node
from kvstore.replica.applier import PAGE_BYTES, Applier, load_state
from storage.base import Recovered
from storage.sqlite import open_storage
from tests.unit.kvstore.backup.states import COMMANDS, RECORDS, make_backup

MEMBERS = ("n1", "n2")


def restore(path: Path, directory: Path, node: str = "n1", cluster: str = "new") -> None:
    with Backup(path) as backup:
        restore_node(backup, directory, cluster, node, MEMBERS)


def opened(directory: Path, node: str = "n1") -> tuple[Recovered, Applier]:
    with closing(open_storage(directory, "new", node, MEMBERS)) as storage:
        return storage.recovered(), load_state(storage, [])


def test_a_node_begins_with_the_records_and_with_nothing_of_the_old_cluster(tmp_path: Path) -> None:
    old = make_backup(tmp_path / "b.db", *COMMANDS)
    restore(tmp_path / "b.db", tmp_path / "new" / "n1")
    recovered, applier = opened(tmp_path / "new" / "n1")
    found = {
        key: (record.value, record.revision, record.create_revision, record.version)
        for key, record in applier.machine.records.items()
    }
    assert found == RECORDS
    assert (applier.applied, applier.chain, applier.machine.revision) == (6, old.chain, 6)
    assert (recovered.chosen, recovered.last, recovered.truncation.slot, recovered.promised.round) == (6, 6, 6, 0)
    assert recovered.identity.members == MEMBERS
    assert applier.machine.memberships == genesis(MEMBERS)
    assert [child.name for child in (tmp_path / "new").iterdir()] == ["n1"]


def test_nodes_differ_only_in_their_identity(tmp_path: Path) -> None:
    make_backup(tmp_path / "b.db", *COMMANDS)
    states: list[Any] = []
    for node in MEMBERS:
        restore(tmp_path / "b.db", tmp_path / node, node)
        recovered, applier = opened(tmp_path / node, node)
        states.append((recovered.progress, recovered.truncation, recovered.compacted, applier.machine.records))
        assert recovered.identity.node == node
    assert states[0] == states[1]


def test_request_ids_of_the_old_cluster_do_not_exist_in_the_new_one(tmp_path: Path) -> None:
    """In the old cluster n1 had reached its 17th start; in the new one it begins with its first, which must count."""
    make_backup(tmp_path / "b.db", *COMMANDS)
    restore(tmp_path / "b.db", tmp_path / "n1")
    _, applier = opened(tmp_path / "n1")
    assert applier.machine.apply(CommandBatch("n1", 1, 1, 1, [Put(b"a", b"3")]), 7) == [PutResult(7, 3)]


def test_leases_and_what_hangs_on_them_are_there_and_are_no_keys(tmp_path: Path) -> None:
    commands = (
        GrantLease(5000),
        LeasedPut(b"a", b"1", 1),
        Idempotent(1, 1, b"f", Put(b"b", b"2")),
        RecordLeader("9.n1", 0),
    )
    make_backup(tmp_path / "b.db", *commands)
    with Backup(tmp_path / "b.db") as backup:
        assert backup.info.records == 2
    with closing(sqlite3.connect(tmp_path / "b.db")) as connection:
        assert connection.execute("SELECT key, value FROM readable").fetchall() == [("a", "1"), ("b", "2")]
    restore(tmp_path / "b.db", tmp_path / "n1")
    _, applier = opened(tmp_path / "n1")
    machine = applier.machine
    assert (machine.lease_index.lease_of, list(machine.lease_index.leases[1].answers)) == ({b"a": 1}, [1])
    new: list[Command] = [RecordLeader("1.n1", 1), Idempotent(1, 1, b"f", Put(b"b", b"2")), ExpireLease(1, 1, "1.n1")]
    assert machine.apply(CommandBatch("n1", 1, 1, 1, new), 5) == [
        LeaderResult(True),
        PutResult(3, 1),
        LeaderResult(True),
    ]
    assert list(machine.records) == [b"b"]


@pytest.mark.parametrize("values", [0, 1, 5])
def test_a_state_of_many_pages_or_of_none_is_restored(tmp_path: Path, values: int) -> None:
    make_backup(tmp_path / "b.db", *(Put(b"%d" % number, bytes(PAGE_BYTES // 2 + number)) for number in range(values)))
    restore(tmp_path / "b.db", tmp_path / "n1")
    recovered, applier = opened(tmp_path / "n1")
    assert len(applier.machine.records) == values
    assert recovered.progress.applied == values


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
    assert opened(tmp_path / "n1")[1].applied == 6


def _fail(*_: object) -> None:
    raise OSError(5, "Input/output error")
