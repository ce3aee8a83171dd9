"""`kvstore check`: it finds damage of every kind, says what to do, and changes nothing."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kvstore.backup.file import Backup
from kvstore.backup.renumbering import RestoredState
from kvstore.backup.restore import restore_node
from paxos.ready import Write
from paxos.types import Ballot, PValue
from storage.base import StateWrite, Truncation
from storage.directory import DATA_FILE, LOCK_FILE
from storage.schema import VERSION
from storage.sqlite import open_storage
from tests.unit.kvstore.backup.states import COMMANDS, applier_of, make_backup, value_of
from tests.unit.kvstore.cli.command_line import run
from tests.unit.storage.version_1 import make_version_1

MEMBERS = ("n1", "n2", "n3")


def fill(directory: Path, *, stop: bool = True) -> None:
    """Store six applied slots and a seventh that is accepted. Without `stop` the write-ahead log stays."""
    working = directory if stop else directory.with_name("working")
    applier, changes = applier_of(*COMMANDS)
    accepts = [PValue(slot, Ballot(2, "n2"), value_of(slot, command)) for slot, command in enumerate(COMMANDS, 1)]
    with closing(open_storage(working, "c", "n1", MEMBERS)) as storage:
        storage.write(
            [Write(promise=Ballot(2, "n2"), accepts=[*accepts, PValue(7, Ballot(2, "n2"), b"tail")], chosen=6)]
        )
        storage.write([StateWrite(changes=changes, progress=applier.progress())])
        if not stop:
            shutil.copytree(working, directory)


def check(directory: Path, *flags: str) -> tuple[int, str, str]:
    return run("check", str(directory), *flags)


def report(directory: Path) -> tuple[int, dict[str, Any]]:
    code, out, _ = check(directory, "--json")
    return code, json.loads(out)


def alter(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / DATA_FILE)) as connection, connection:
        connection.execute(statement)


def picture(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Content and modification time of all files."""
    files = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir() if path.is_file()}
    return {**files, "": (b"", directory.stat().st_mtime_ns)}


@pytest.mark.parametrize("stop", [True, False], ids=["stopped", "killed"])
def test_sound_data_is_reported_and_not_changed(tmp_path: Path, stop: bool) -> None:
    directory = tmp_path / "n1"
    fill(directory, stop=stop)
    before = picture(directory)
    code, out, err = check(directory)
    assert (code, err) == (0, "")
    for text in (
        "sound",
        "n1 of cluster c, incarnation",
        "boot 1, founded with n1, n2, n3",
        "n1, n2, n3; membership version 0",
        "ballot 2.n2",
        "slots 1 to 7, 7 entries",
        "chosen up to slot 6, applied and hash chain verified up to slot 6",
        "3 keys",
        "every revision from 1 to 6",
        f"schema {VERSION}",
        "empty: the replica was shut down cleanly" if stop else "in use",
    ):
        assert text in out
    code, found = report(directory)
    assert (code, found["sound"], found["damage"]) == (0, True, [])
    assert found["log"] == {
        "truncated": 0,
        "last": 7,
        "chosen": 6,
        "applied": 6,
        "entries": 7,
        "bytes": found["log"]["bytes"],
    }
    assert picture(directory) == before


def test_a_truncated_log_and_a_compacted_history_are_sound(tmp_path: Path) -> None:
    fill(tmp_path)
    with closing(open_storage(tmp_path, "c", "n1", MEMBERS)) as storage:
        progress = storage.recovered().progress
        storage.write([StateWrite(truncate=Truncation(progress.applied, progress.chain), compact=progress.position)])
        while storage.maintain():
            pass
    code, found = report(tmp_path)
    assert (code, found["log"]["truncated"], found["log"]["entries"], found["state"]["compacted"]) == (0, 6, 1, 6)
    assert "none: only the latest revision of each key" in check(tmp_path)[1]


def test_rule_5_a_restored_state_whose_cluster_is_not_founded_is_verified(tmp_path: Path) -> None:
    make_backup(tmp_path / "b.db", *COMMANDS)
    with Backup(tmp_path / "b.db") as backup:
        restore_node(RestoredState(backup, 1000), tmp_path / "n1", "c", "n1", MEMBERS)
    code, out, _ = check(tmp_path / "n1")
    assert code == 0
    for text in (
        "founded with n1, n2, n3",
        "not known yet",
        "3 keys",
        "at revision 1,004",
        "restored from a backup; its cluster is founded when all founding members run",
    ):
        assert text in out
    found = report(tmp_path / "n1")[1]["state"]
    assert (found["restored"], found["staged"], found["compacted"]) == (True, 0, 1004)
    alter(tmp_path / "n1", "DELETE FROM records_b WHERE position = (SELECT min(position) FROM records_b)")
    code, out, _ = check(tmp_path / "n1")
    assert (code, "some are missing or differ" in out) == (1, True)


DAMAGE = [
    ("UPDATE log SET value = x'00' WHERE slot = 3", "the row of slot 3 in table log", "log"),
    ("UPDATE log SET value = x'00' WHERE slot = 7", "the row of slot 7 in table log", "log"),
    ("DELETE FROM log WHERE slot = 3", "table log lacks the row of slot 3", "log"),
    ("UPDATE history_a SET changes = x'00'", "the row of position", "state"),
    ("DELETE FROM history_a", "table history_a ends at position 0", "state"),
    ("UPDATE identity SET boot = 7", "row of table identity", "owner"),
    ("UPDATE progress SET applied = 5", "row of table progress", "state"),
    ("DELETE FROM bounds", "table bounds has 0 rows", "log"),
]


@pytest.mark.parametrize(("statement", "says", "hidden"), DAMAGE)
def test_damage_is_reported_with_the_next_step_and_the_sound_rest(
    tmp_path: Path, statement: str, says: str, hidden: str
) -> None:
    fill(tmp_path)
    alter(tmp_path, statement)
    before = picture(tmp_path)
    code, out, _ = check(tmp_path)
    assert code == 1
    assert says in out
    assert "next     start the replica: it sets this data aside" in out
    found = report(tmp_path)[1]
    assert not found["sound"]
    assert found[hidden] is None
    assert found["files"]["schema"] == VERSION
    assert (found["owner"] is None) == (hidden == "owner")
    assert picture(tmp_path) == before


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def damage_log_file(directory: Path) -> None:
    fill(directory, stop=False)
    flip(directory / (DATA_FILE + "-wal"), 100)


def lose_database(directory: Path) -> None:
    fill(directory)
    (directory / DATA_FILE).unlink()


def lose_log_file(directory: Path) -> None:
    fill(directory, stop=False)
    (directory / (DATA_FILE + "-wal")).unlink()


def truncate(directory: Path) -> None:
    fill(directory)
    content = (directory / DATA_FILE).read_bytes()
    (directory / DATA_FILE).write_bytes(content[: len(content) // 2])


def put_older_copy(directory: Path) -> None:
    fill(directory)
    older = (directory / DATA_FILE).read_bytes()
    open_storage(directory, "c", "n1", MEMBERS).close()
    (directory / DATA_FILE).write_bytes(older)


def put_other_data(directory: Path) -> None:
    fill(directory)
    fill(directory.with_name("other"))
    shutil.copy(directory.with_name("other") / DATA_FILE, directory / DATA_FILE)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (damage_log_file, "write-ahead log is damaged and hides the transactions after it"),
        (lose_database, "the database is missing"),
        (lose_log_file, "the write-ahead log is missing"),
        (truncate, "malformed"),
        (put_older_copy, "the data has reached boot 1, but this replica had reached boot 2"),
        (put_other_data, "other data of the replica"),
    ],
)
def test_damaged_lost_and_exchanged_files_are_reported(
    tmp_path: Path, prepare: Callable[[Path], None], says: str
) -> None:
    directory = tmp_path / "n1"
    prepare(directory)
    before = picture(directory)
    code, out, _ = check(directory)
    assert code == 1
    assert says in out
    assert picture(directory) == before


def test_a_log_that_differs_from_the_applied_one_is_reported_though_its_rows_are_sound(tmp_path: Path) -> None:
    fill(tmp_path)
    with closing(open_storage(tmp_path, "c", "n1", MEMBERS)) as storage:
        storage.write([Write(accepts=[PValue(3, Ballot(3, "n3"), b"another")], promise=Ballot(3, "n3"))])
    code, found = report(tmp_path)
    assert code == 1
    assert found["damage"] == ["the log up to slot 6 is not the one that was applied: entries were replaced or lost"]


def test_the_data_of_a_running_replica_is_left_alone(tmp_path: Path) -> None:
    with closing(open_storage(tmp_path, "c", "n1", MEMBERS)) as storage:
        code, _, err = check(tmp_path)
        assert code == 3
        assert "is in use by process" in err
        assert "node n1 of cluster c: see its state with `kvstore status`, or stop it and check again" in err
        storage.write([Write(promise=Ballot(1, "n1"))])
    assert check(tmp_path)[0] == 0


def test_data_of_the_first_schema_is_read_and_not_migrated(tmp_path: Path) -> None:
    make_version_1(tmp_path)
    before = picture(tmp_path)
    code, found = report(tmp_path)
    assert (code, found["files"]["schema"], found["log"]["entries"], found["state"]["keys"]) == (0, 1, 4, 0)
    assert picture(tmp_path) == before


def newer_schema(directory: Path) -> None:
    alter(directory, "PRAGMA user_version = 9")


def newer_lock(directory: Path) -> None:
    (directory / LOCK_FILE).write_text('process 1\n{"version":9,"boot":1}\n')


@pytest.mark.parametrize("make_newer", [newer_schema, newer_lock])
def test_data_of_a_newer_release_is_refused_but_not_damaged(tmp_path: Path, make_newer: Callable[[Path], None]) -> None:
    fill(tmp_path)
    make_newer(tmp_path)
    code, out, err = check(tmp_path)
    assert (code, out) == (2, "")
    assert "written by a newer version of this program" in err
    assert "start that version" in err


def test_a_directory_without_the_data_of_one_replica_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "absent"):
        code, _, err = check(directory)
        assert code == 2
        assert "holds no data of a replica: name the directory that `kvstore serve --data` uses" in err
    fill(tmp_path / "n1")
    code, _, err = check(tmp_path)
    assert code == 2
    assert f"holds the data of several replicas: check one of {tmp_path}/n1" in err


def test_data_that_was_set_aside_is_reported(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "damaged-1").mkdir()
    assert "damaged-1: earlier damaged data" in check(tmp_path)[1]
