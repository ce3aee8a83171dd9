"""What only the storage on disk has: files, a lock, pragmas, a schema, and damage."""

import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest

from paxos.ready import Write
from paxos.types import Ballot, PValue
from storage import connection as settings
from storage import sqlite as module
from storage.base import DamagedError, StorageError
from storage.directory import DATA_FILE, LOCK_FILE
from storage.schema import VERSION
from storage.sqlite import SqliteStorage, open_storage
from tests.unit.storage.numbered_writes import MEMBERS

B1 = Ballot(1, "n1")


def fill(directory: Path) -> None:
    storage = open_storage(directory, "test", "n1", MEMBERS)
    storage.write([Write(promise=B1, accepts=[PValue(slot, B1, b"value") for slot in range(1, 6)], chosen=3)])
    storage.close()


def change(directory: Path, sql: str) -> None:
    """What a disk, or a person with a tool, may do to the file behind our back."""
    connection = sqlite3.connect(directory / DATA_FILE)
    with connection:
        assert connection.execute(sql).rowcount != 0
    connection.close()


def open_and_read(directory: Path) -> list[PValue]:
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        return storage.read(1, 5, 1000)


def pragma(storage: SqliteStorage, name: str) -> object:
    return storage._connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_the_connection_syncs_each_commit_and_is_alone(sqlite: SqliteStorage) -> None:
    """Rules 1 and 4."""
    names = ("locking_mode", "journal_mode", "synchronous", "wal_autocheckpoint")
    assert [pragma(sqlite, name) for name in names] == ["exclusive", "wal", 2, 0]


@pytest.mark.parametrize(
    "weaker", [("synchronous", "NORMAL", 2), ("journal_mode", "MEMORY", "wal"), ("locking_mode", "NORMAL", "exclusive")]
)
def test_less_durability_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch, weaker: tuple[str, str, str]
) -> None:
    """Rule 1: read the pragmas back at start; refuse to run on less. Here a weaker setting plays a weaker SQLite."""
    monkeypatch.setattr(settings, "_PRAGMAS", (weaker,))
    with pytest.raises(StorageError, match=rf"reports \w+ for PRAGMA {weaker[0]}"):
        open_storage(directory, "test", "n1", MEMBERS)


def test_only_the_owner_can_read_the_files(sqlite: SqliteStorage, directory: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {DATA_FILE: 0o600, DATA_FILE + "-wal": 0o600, "lock": 0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_second_opening_is_refused_while_the_first_lasts(sqlite: SqliteStorage, directory: Path) -> None:
    """Rule 28."""
    with pytest.raises(StorageError, match=r"in use by process \d+, node n1 of cluster test: stop that process"):
        open_storage(directory, "test", "n1", MEMBERS)
    sqlite.close()
    open_storage(directory, "test", "n1", MEMBERS).close()


def test_a_program_that_reads_the_file_keeps_it_from_being_opened(directory: Path) -> None:
    fill(directory)
    tool = sqlite3.connect(directory / DATA_FILE, isolation_level=None)
    tool.execute("BEGIN")
    tool.execute("SELECT * FROM log").fetchone()
    with pytest.raises(StorageError, match="another program has the file open: close that program"):
        open_storage(directory, "test", "n1", MEMBERS)
    tool.close()
    open_storage(directory, "test", "n1", MEMBERS).close()


@pytest.mark.parametrize(("cluster", "node"), [("test", "n2"), ("other", "n1")])
def test_data_of_another_node_or_cluster_is_refused_and_stays_as_it_is(
    directory: Path, cluster: str, node: str
) -> None:
    """Rule 28."""
    fill(directory)
    with pytest.raises(StorageError, match=f"node n1 of cluster test, but this is node {node} of cluster {cluster}"):
        open_storage(directory, cluster, node, MEMBERS)
    storage = open_storage(directory, "test", "n1", MEMBERS)
    assert storage.recovered().identity.boot == 2
    storage.close()


@pytest.mark.parametrize("others", [(), ("n1",), ("n1", "n2", "n3", "n4")])
def test_data_remembers_the_members_that_it_began_with_whatever_it_is_told_later(
    directory: Path, others: tuple[str, ...]
) -> None:
    fill(directory)
    storage = open_storage(directory, "test", "n1", others)
    assert storage.recovered().identity.members == ("n1", "n2", "n3")
    storage.close()


def test_data_of_a_replica_that_joins_remembers_no_members(directory: Path) -> None:
    for told in ((), MEMBERS):
        storage = open_storage(directory, "test", "n1", told)
        assert storage.recovered().identity.members == ()
        storage.close()


@pytest.mark.parametrize("boots", [1, 2])
@pytest.mark.parametrize("lost", [DATA_FILE, DATA_FILE + "-wal"])
def test_a_replica_whose_file_was_lost_does_not_start_as_if_it_were_new(
    directory: Path, tmp_path: Path, boots: int, lost: str
) -> None:
    """Rule 5: it would have forgotten its votes. The image is what a killed process leaves."""
    image = tmp_path / "image"
    for _ in range(boots):
        storage = open_storage(directory, "test", "n1", MEMBERS)
        storage.write([Write(promise=B1)])
        image = Path(shutil.copytree(directory, image, dirs_exist_ok=True))
        storage.close()
    (image / lost).unlink()
    left = {path.name: path.read_bytes() for path in image.glob("kvstore*")}
    for _ in range(2):
        says = (
            f"had reached boot {boots}"
            if lost == DATA_FILE
            else "log is missing, but the replica did not shut down cleanly"
        )
        with pytest.raises(DamagedError, match=f"{says}.*does not use"):
            open_storage(image, "test", "n1", MEMBERS)
    assert {path.name: path.read_bytes() for path in image.glob("kvstore*")} == left


def test_an_older_copy_of_the_database_alone_is_refused(directory: Path) -> None:
    fill(directory)
    older = (directory / DATA_FILE).read_bytes()
    storage = open_storage(directory, "test", "n1", MEMBERS)
    storage.write([Write(promise=Ballot(2, "n1"))])
    storage.close()
    (directory / DATA_FILE).write_bytes(older)
    with pytest.raises(StorageError, match="the data has reached boot 1, but this replica had reached boot 2"):
        open_storage(directory, "test", "n1", MEMBERS)


def test_a_first_opening_that_failed_may_be_tried_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as weaker:
        weaker.setattr(settings, "_PRAGMAS", (("synchronous", "NORMAL", 2),))
        with pytest.raises(StorageError, match="reports 1 for PRAGMA synchronous"):
            open_storage(directory, "test", "n1", MEMBERS)
    (directory / DATA_FILE).unlink()
    open_storage(directory, "test", "n1", MEMBERS).close()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"is unusable .*set another directory with --data"):
        open_storage(tmp_path / "file" / "data", "test", "n1", MEMBERS)


@pytest.mark.parametrize("content", [b"hello", b"hello" * 10_000])
def test_a_file_that_is_no_database_is_refused(directory: Path, content: bytes) -> None:
    directory.mkdir()
    (directory / DATA_FILE).write_bytes(content)
    with pytest.raises(StorageError, match=r"not a database.*does not use"):
        open_storage(directory, "test", "n1", MEMBERS)
    assert (directory / DATA_FILE).read_bytes() == content


def test_a_newer_lock_file_is_refused_and_left_as_it_is(directory: Path) -> None:
    fill(directory)
    lock = directory / LOCK_FILE
    lock.write_text(newer := 'process 1, node n1 of cluster test\n{"version":2,"boot":1,"of_tomorrow":true}\n')
    with pytest.raises(
        StorageError, match=r"lock was written by a newer version of this program .*: start that version"
    ):
        open_storage(directory, "test", "n1", MEMBERS)
    assert lock.read_text() == newer


def test_a_newer_schema_is_refused(directory: Path) -> None:
    fill(directory)
    change(directory, f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StorageError, match="newer version of this program"):
        open_storage(directory, "test", "n1", MEMBERS)


DAMAGE_TO_A_ROW = [
    "UPDATE log SET value = x'76616C7564' WHERE slot = 2",
    "UPDATE log SET value = x'' WHERE slot = 2",
    "UPDATE log SET round = 2 WHERE slot = 2",
    "UPDATE log SET node = 'n2' WHERE slot = 2",
    "UPDATE log SET node = CAST(x'FF31' AS TEXT) WHERE slot = 2",
    "UPDATE log SET checksum = checksum + 1 WHERE slot = 2",
    "UPDATE log SET (value, checksum) = (SELECT value, checksum FROM log WHERE slot = 1) WHERE slot = 2",
]


@pytest.mark.parametrize("damage", DAMAGE_TO_A_ROW)
def test_a_damaged_row_is_told_and_never_used(directory: Path, damage: str) -> None:
    """Rule 5: a damaged entry is not an absent one; a replica that finds damage does not vote."""
    fill(directory)
    change(directory, damage)
    storage = open_storage(directory, "test", "n1", MEMBERS)
    assert storage.read(3, 5, 1000) == [PValue(slot, B1, b"value") for slot in (3, 4, 5)]
    with pytest.raises(StorageError, match=r"row of slot 2 in table log.*does not use"):
        storage.read(1, 5, 1000)
    with pytest.raises(StorageError, match="has failed"):
        storage.write([Write(promise=Ballot(2, "n1"))])
    storage.close()


@pytest.mark.parametrize("slot", [1, 3])
def test_an_absent_row_of_the_chosen_prefix_is_damage(directory: Path, slot: int) -> None:
    fill(directory)
    change(directory, f"DELETE FROM log WHERE slot = {slot}")
    with pytest.raises(StorageError, match=f"lacks the row of slot {slot}, which is known to be chosen"):
        open_and_read(directory)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE acceptor SET round = 0", "row of table acceptor fails its checksum"),
        ("UPDATE acceptor SET node = 'n0'", "row of table acceptor fails its checksum"),
        ("UPDATE acceptor SET chosen = 2", "row of table acceptor fails its checksum"),
        ("DELETE FROM acceptor", "table acceptor has 0 rows instead of one"),
        ("UPDATE identity SET boot = 0", "row of table identity fails its checksum"),
        ("INSERT INTO identity SELECT * FROM identity", "table identity has 2 rows instead of one"),
        ("DELETE FROM log WHERE slot > 2", "log ends at slot 2, but slots up to 3 are known to be chosen"),
    ],
)
def test_a_damaged_promise_prefix_or_identity_is_refused_at_opening(directory: Path, damage: str, says: str) -> None:
    fill(directory)
    change(directory, damage)
    with pytest.raises(StorageError, match=says):
        open_storage(directory, "test", "n1", MEMBERS)


def test_a_damaged_page_is_told_as_damage(directory: Path) -> None:
    fill(directory)
    path = directory / DATA_FILE
    content = bytearray(path.read_bytes())
    content[-4096:] = b"\xaa" * 4096
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"malformed.*does not use"):
        open_and_read(directory)


def test_the_wal_stays_bounded(sqlite: SqliteStorage, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_BYTES", 200_000)
    log = directory / (DATA_FILE + "-wal")
    for slot in range(1, 200):
        sqlite.write([Write(accepts=[PValue(slot, B1, b"x" * 9_000)], chosen=slot)])
        assert log.stat().st_size < 400_000
    assert len(sqlite.read(1, 200, 1 << 30)) == 199


def test_a_write_leaves_its_checkpoint_to_tidy(
    sqlite: SqliteStorage, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_BYTES", 5_000)
    database = directory / DATA_FILE
    before = database.stat().st_mtime_ns
    sqlite.write([Write(accepts=[PValue(1, B1, b"x" * 9_000)])])
    assert database.stat().st_mtime_ns == before
    sqlite.tidy()
    assert database.stat().st_mtime_ns > before


def test_a_checkpoint_that_cannot_finish_is_an_error(sqlite: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 4: any storage error ends the process. A statement that still reads keeps the checkpoint from its end."""
    monkeypatch.setattr(module, "CHECKPOINT_BYTES", 0)
    sqlite.write([Write(accepts=[PValue(slot, B1, b"value") for slot in (1, 2)])])
    reader = sqlite._connection.execute("SELECT * FROM log")
    reader.fetchone()
    with pytest.raises(StorageError, match="database table is locked"):
        sqlite.write([Write(accepts=[PValue(3, B1, b"value")])])
    reader.close()
    with pytest.raises(StorageError, match="has failed"):
        sqlite.read(1, 3, 1000)


@pytest.mark.parametrize("answer", [(1, 10, 0), (0, 10, 4)], ids=["nothing moved", "a part moved"])
def test_rule_4_a_checkpoint_that_moves_only_a_part_of_the_log_is_an_error(
    answer: tuple[int, int, int], directory: Path
) -> None:
    connection = Mock()
    connection.execute.return_value.fetchone.return_value = answer
    with pytest.raises(StorageError, match=f"moved only {answer[2]} of 10 frames"):
        settings.checkpoint(connection, directory / DATA_FILE, "PASSIVE")


def test_rule_5_a_replica_that_is_killed_within_its_clean_shutdown_starts_again(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its write-ahead log is empty, and its lock record must not ask for one. The image is what a killed process
    leaves."""
    image = tmp_path / "image"
    storage = open_storage(directory, "test", "n1", MEMBERS)
    storage.write([Write(promise=B1)])

    def checkpoint(connection: sqlite3.Connection, path: Path, mode: str) -> None:
        settings.checkpoint(connection, path, mode)
        shutil.copytree(directory, image)

    with monkeypatch.context() as patches:
        patches.setattr(module, "checkpoint", checkpoint)
        storage.close()
    with closing(open_storage(image, "test", "n1", MEMBERS)) as again:
        assert again.recovered().promised == B1


def test_an_error_in_a_write_leaves_nothing_of_it(directory: Path) -> None:
    storage = open_storage(directory, "test", "n1", MEMBERS)
    storage.write([Write(promise=B1)])
    too_big = PValue(2**63, B1, b"value")
    with pytest.raises(OverflowError):
        storage.write([Write(promise=Ballot(2, "n1"), accepts=[PValue(1, B1, b"value"), too_big])])
    with pytest.raises(StorageError, match="has failed"):
        storage.write([Write(promise=Ballot(3, "n1"))])
    storage.close()
    storage = open_storage(directory, "test", "n1", MEMBERS)
    assert (storage.recovered().promised, storage.recovered().last) == (B1, 0)
    storage.close()


def test_a_full_disk_says_what_to_do(sqlite: SqliteStorage) -> None:
    pages = pragma(sqlite, "page_count")
    sqlite._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"full.*free some space and start the replica again"):
        sqlite.write([Write(accepts=[PValue(1, B1, b"x" * 100_000)])])


def test_closing_twice_is_closing_once(directory: Path) -> None:
    storage = open_storage(directory, "test", "n1", MEMBERS)
    storage.close()
    storage.close()
    with pytest.raises(StorageError, match="was closed"):
        storage.read(1, 1, 1)
    assert not (directory / (DATA_FILE + "-wal")).exists()
