"""The file of a backup: complete and durable or absent, and refused if a bit was altered."""

import gzip
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlite_utils import Database

from kvstore.backup.file import FORMAT, Backup, BackupError, BackupWriter, MisuseError
from storage.base import AppliedProgress, Change, first_of, revision_of
from tests.unit.kvstore.backup.states import COMMANDS, RECORDS, applier_of, make_backup


def alter(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def read(path: Path) -> list[Change]:
    with Backup(path) as backup:
        return list(backup.changes())


def write(path: Path, changes: list[Change], progress: AppliedProgress, *, replace: bool = False) -> None:
    with BackupWriter(path, replace=replace) as writer:
        writer.add(changes)
        writer.finish(progress, cluster="c", node="n1", kvstore="0", taken_at="")


def test_a_backup_has_the_present_records_and_the_metadata_for_a_restore(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    applier = make_backup(path, *COMMANDS)
    with Backup(path) as backup:
        assert {change.key: (change.value, *change[3:5]) for change in backup.changes()} == {
            key: (value, created, version) for key, (value, _, created, version) in RECORDS.items()
        }
        assert [revision_of(change.position) for change in backup.changes()] == [2, 3, 5]
        info = backup.info
        assert (info.cluster, info.node, info.records, info.format) == ("old", "n2", 3, FORMAT)
        progress = applier.progress()
        assert info.progress == AppliedProgress(6, first_of(6), progress.chain, progress.digest)
    assert [child.name for child in tmp_path.iterdir()] == ["b.db"]
    assert path.stat().st_mode & 0o077 == 0


def test_other_tools_read_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    make_backup(path, *COMMANDS)
    database = Database(path)
    rows = {row["key"]: (row["value"], row["revision"], row["version"]) for row in database["records"].rows}
    assert rows[b"a"] == (b"2", 3, 2)
    assert list(database.query("SELECT value FROM readable WHERE key = 'a'")) == [{"value": "2"}]
    assert list(database.query("SELECT cluster, records FROM backup")) == [{"cluster": "old", "records": 3}]
    database.close()
    tool = shutil.which("sqlite3")
    if tool is not None:
        query = "select key, value from records where revision = 3"
        assert subprocess.run([tool, path, query], capture_output=True, check=True).stdout == b"a|2\n"


def test_an_empty_store_has_a_backup(tmp_path: Path) -> None:
    make_backup(tmp_path / "b.db")
    assert read(tmp_path / "b.db") == []


def test_an_unfinished_backup_leaves_no_file(tmp_path: Path) -> None:
    def interrupted() -> None:
        with BackupWriter(tmp_path / "b.db") as writer:
            writer.add(applier_of(*COMMANDS)[1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_records_that_differ_from_the_replicas_make_no_backup(tmp_path: Path) -> None:
    applier, changes = applier_of(*COMMANDS)
    last = changes[-1]
    for wrong in (changes[:-1], changes[2:], [*changes[:-1], last._replace(key=b"a")]):
        with pytest.raises(BackupError, match=r"differ from those of n1 .*: take the backup again"):
            write(tmp_path / "b.db", wrong, applier.progress())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_only_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    path.write_text("precious")
    with pytest.raises(MisuseError, match=r"b\.db exists: give another name, or --force to replace it"):
        make_backup(path)
    assert path.read_text() == "precious"
    applier, changes = applier_of(*COMMANDS)
    write(path, changes, applier.progress(), replace=True)
    assert len(read(path)) == 3


def test_an_absent_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"b\.db\.partial cannot be written \(No such file .*\): give a name in a"):
        make_backup(tmp_path / "absent" / "b.db")


ALTERED = [
    "UPDATE records SET value = x'33' WHERE key = x'61'",
    "UPDATE records SET version = 3 WHERE key = x'61'",
    "UPDATE records SET create_revision = -1 WHERE key = x'61'",
    "DELETE FROM records WHERE key = x'61'",
    "INSERT INTO records VALUES (x'7a', x'7a', 6, 0, 6, 1)",
    "UPDATE backup SET revision = 7",
    "UPDATE backup SET applied = 5",
    "UPDATE backup SET cluster = 'other'",
    "UPDATE backup SET cluster = cast(x'ff' AS TEXT)",
    "UPDATE backup SET digest = 'zz'",
    "UPDATE backup SET checksum = ''",
    "DELETE FROM backup",
    "INSERT INTO backup SELECT * FROM backup",
    "DROP TABLE backup",
    "ALTER TABLE backup DROP COLUMN node",
    "ALTER TABLE records DROP COLUMN version",
]


@pytest.mark.parametrize("statement", ALTERED)
def test_an_altered_backup_is_refused(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "b.db"
    make_backup(path, *COMMANDS)
    if "DROP COLUMN version" in statement:
        alter(path, "DROP VIEW readable")
    alter(path, statement)
    with pytest.raises(BackupError, match=r"is damaged or was altered .*: restore from another backup"):
        read(path)


def test_a_truncated_backup_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    make_backup(path, *COMMANDS)
    content = path.read_bytes()
    for length in range(1, len(content), 997):
        path.write_bytes(content[:length])
        with pytest.raises(BackupError, match=r"restore from another backup|made by `kvstore backup`"):
            read(path)


@pytest.fixture(scope="module")
def sound_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "b.db"
    make_backup(path, *COMMANDS)
    return path


@given(st.data())
def test_no_flipped_bit_changes_a_record_unnoticed(sound_file: Path, data: st.DataObject) -> None:
    """Some bytes of a database have no meaning; then the records are unchanged."""
    sound = read(sound_file)
    content = bytearray(sound_file.read_bytes())
    path = sound_file.with_name("flipped.db")
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with suppress(BackupError):
        assert read(path) == sound


def test_other_files_are_no_backups(tmp_path: Path) -> None:
    alter(tmp_path / "other.db", "CREATE TABLE t (x)")
    (tmp_path / "text").write_text("text " * 500)
    with pytest.raises(BackupError, match=r"other\.db is not a backup: give a file made by `kvstore backup`"):
        read(tmp_path / "other.db")
    with pytest.raises(BackupError, match="text is not a backup"):
        read(tmp_path / "text")
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(BackupError, match="is not a file: give a file made by `kvstore backup`"):
            read(path)


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    make_backup(path, *COMMANDS)
    alter(path, f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(
        BackupError, match=r"by a newer release \(format 2, this one reads up to 1\): run `kvstore restore`"
    ):
        read(path)


OTHERS = {
    "gzip": (gzip.compress, "is compressed with gzip: decompress it with `gunzip` first"),
    "an export": (lambda _: b'{"key":"a","value":"1"}\n', "`kvstore import` reads"),
    "nothing": (lambda _: b"", "is empty"),
    "another file": (lambda _: b"\x7fELF" + bytes(4096), "is not a backup: give a file made by `kvstore backup`"),
    "another database": (lambda content: content[:68] + b"abcd" + content[72:], "is not a backup"),
    "cut in its head": (lambda content: content[:10], "is not a backup"),
    "cut in a page": (lambda content: content[:-100], "is damaged or was altered"),
    "cut after a page": (lambda content: content[:-4096], "is damaged or was altered"),
    "bytes behind it": (lambda content: content + b"\n", "is damaged or was altered (it has "),
    "pages behind it": (lambda content: content + bytes(8192), "is damaged or was altered (it has "),
    "line ends of text mode": (lambda content: content.replace(b"\n", b"\r\n"), "copy it again in binary mode"),
}


@pytest.mark.parametrize(("form", "why"), OTHERS.values(), ids=OTHERS)
def test_another_file_is_refused_with_its_kind(tmp_path: Path, form: Callable[[bytes], bytes], why: str) -> None:
    path = tmp_path / "b.db"
    make_backup(path, *COMMANDS)
    path.write_bytes(form(path.read_bytes()))
    with pytest.raises(BackupError) as refused, Backup(path):
        pass
    assert str(refused.value).startswith(str(path))
    assert why in str(refused.value)
