"""A full disk: the reserve is given up, and the same transaction is stored after all."""

import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from paxos.ready import Write
from paxos.types import Ballot, PValue
from storage import connection
from storage import sqlite as storage_module
from storage.base import DiskFullError, DiskSpace, StorageError
from storage.memory import MemoryStorage
from storage.reserve import RESERVE_FILE, Reserve
from storage.sqlite import SqliteStorage, open_storage
from tests.unit.storage.numbered_writes import MEMBERS
from tests.unit.storage.states import numbered, shown

B1 = Ballot(1, "n1")
KB = 1024


class LimitedDisk:
    """A disk that has no further page for the database until the reserve is given up. It stands in for Reserve."""

    def __init__(self, storage: SqliteStorage) -> None:
        self._connection = storage._connection
        self.held = False
        self.given_up = 0
        storage._reserve = self  # type: ignore[assignment] # the same methods

    def fill(self, reserve: bool = True) -> None:
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        self._connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        self.held = reserve

    def give_up(self) -> bool:
        if not self.held:
            return False
        self._connection.execute("PRAGMA max_page_count = 1000000").fetchone()
        self.held = False
        self.given_up += 1
        return True

    def space(self, reusable_bytes: int, before: DiskSpace) -> DiskSpace:
        return DiskSpace.AMPLE if self.held else DiskSpace.LOW


def accept(slot: int, size: int = 100_000) -> Write:
    return Write(promise=B1, accepts=[PValue(slot, B1, bytes(size))])


def test_a_write_that_finds_the_disk_full_is_stored_with_the_room_of_the_reserve(directory: Path) -> None:
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        disk = LimitedDisk(storage)
        disk.fill()
        storage.write([accept(1)])
        assert (disk.given_up, storage.space) == (1, DiskSpace.LOW)
        storage.write([accept(2)])
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        assert (storage.recovered().promised, storage.recovered().last) == (B1, 2)


def test_without_a_reserve_a_full_disk_is_an_error_and_stores_nothing(directory: Path) -> None:
    storage = open_storage(directory, "test", "n1", MEMBERS)
    disk = LimitedDisk(storage)
    disk.fill(reserve=False)
    with pytest.raises(DiskFullError, match="the disk is full: free some space"):
        storage.write([accept(1)])
    with pytest.raises(StorageError, match="has failed"):
        storage.write([accept(1, size=1)])
    storage.close()
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        assert storage.recovered().last == 0


@pytest.mark.parametrize("size", [1000, 8000])
def test_rule_4_a_transaction_that_is_rolled_back_and_done_again_leaves_the_same_state(
    directory: Path, size: int
) -> None:
    """The disk is full before each transaction of the life of a state: its writes, maintenance, and snapshots."""
    storage, model = open_storage(directory, "test", "n1", MEMBERS), MemoryStorage("test", "n1")
    disk = LimitedDisk(storage)
    for writes in islice(numbered(size), 150):
        disk.fill()
        storage.write(writes)
        disk.fill()
        storage.maintain()
        model.write(writes)
    assert disk.given_up > 10
    storage.close()
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        assert shown(storage) == shown(model.reopen())


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_FSYNC])
def test_rule_4_a_checkpoint_that_finds_no_room_is_done_later(
    directory: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The reserve is too small for the checkpoint. Only a lack of room lets the replica go on."""
    monkeypatch.setattr(storage_module, "CHECKPOINT_BYTES", 50_000)
    failed = sqlite3.OperationalError("planted")
    failed.sqlite_errorcode = code
    attempts = 0

    def fails_twice(*arguments: object) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 2:
            raise failed
        connection.checkpoint(*arguments)  # type: ignore[arg-type] # passed on

    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        disk = LimitedDisk(storage)
        disk.held = True
        storage.write([accept(1)])
        monkeypatch.setattr(storage_module, "checkpoint", fails_twice)
        if code != sqlite3.SQLITE_FULL:
            with pytest.raises(StorageError, match="planted"):
                storage.tidy()
            return
        storage.tidy()
        assert (disk.given_up, attempts, storage.space) == (1, 2, DiskSpace.LOW)
        storage.write([accept(2)])
        assert attempts == 3
        storage.tidy()
        assert attempts == 4  # write(2) is checkpointed, write(1) was
        storage.tidy()
        assert attempts == 4
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        assert storage.recovered().last == 2


class CountedRoom(Reserve):
    """A reserve on a disk with `free_bytes`, besides what the reserve takes."""

    free_bytes = 0

    def _available(self) -> int:
        return self.free_bytes


def test_the_reserve_is_a_file_of_its_size_and_comes_back_when_there_is_room_for_two(tmp_path: Path) -> None:
    reserve = CountedRoom(tmp_path, 64 * KB)
    assert reserve.space(0, DiskSpace.AMPLE) is DiskSpace.CRITICAL
    reserve.free_bytes = 128 * KB
    assert reserve.space(0, DiskSpace.LOW) is DiskSpace.AMPLE
    found = (tmp_path / RESERVE_FILE).stat()
    assert (found.st_size, found.st_blocks * 512) == (64 * KB, 64 * KB)
    assert reserve.give_up()
    assert not reserve.give_up()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [None, 1 * KB])
def test_a_reserve_that_somebody_removed_or_cut_is_noticed_by_the_next_check(tmp_path: Path, size: int | None) -> None:
    reserve = CountedRoom(tmp_path, 64 * KB)
    reserve.free_bytes = 128 * KB
    reserve.space(0, DiskSpace.AMPLE)
    (tmp_path / RESERVE_FILE).unlink()
    if size is not None:
        (tmp_path / RESERVE_FILE).write_bytes(bytes(size))
    assert reserve.space(0, DiskSpace.AMPLE) is DiskSpace.AMPLE
    assert (tmp_path / RESERVE_FILE).stat().st_size == 64 * KB
    (tmp_path / RESERVE_FILE).unlink()
    reserve.free_bytes = 32 * KB
    assert reserve.space(0, DiskSpace.AMPLE) is DiskSpace.LOW
    assert not reserve.held


def test_an_idle_replica_makes_its_reserve_again(directory: Path) -> None:
    with closing(open_storage(directory, "test", "n1", MEMBERS, reserve_bytes=64 * KB)) as storage:
        (directory / RESERVE_FILE).unlink()
        storage.verify_files()
        assert (directory / RESERVE_FILE).stat().st_size == 64 * KB


@pytest.mark.parametrize(
    ("free", "reusable", "before", "after"),
    [
        (64, 0, DiskSpace.AMPLE, DiskSpace.AMPLE),
        (63, 0, DiskSpace.AMPLE, DiskSpace.LOW),
        (64, 63, DiskSpace.LOW, DiskSpace.LOW),
        (64, 64, DiskSpace.LOW, DiskSpace.AMPLE),
        (0, 128, DiskSpace.LOW, DiskSpace.AMPLE),
        (0, 16, DiskSpace.LOW, DiskSpace.LOW),
        (0, 15, DiskSpace.LOW, DiskSpace.CRITICAL),
    ],
)
def test_free_pages_of_the_database_count_as_room(
    tmp_path: Path, free: int, reusable: int, before: DiskSpace, after: DiskSpace
) -> None:
    reserve = CountedRoom(tmp_path, 64 * KB)
    reserve.free_bytes = free * KB
    assert reserve.space(reusable * KB, before) is after


def test_a_directory_without_a_reserve_always_has_room(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 0)
    assert reserve.space(0, DiskSpace.AMPLE) is DiskSpace.AMPLE
    assert not reserve.give_up()
    assert not list(tmp_path.iterdir())


def test_data_that_can_only_be_opened_without_the_reserve_gives_it_up(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reserve, "_available", lambda _: 10 * KB)
    open_storage(directory, "test", "n1", MEMBERS).close()
    (directory / RESERVE_FILE).write_bytes(bytes(64 * KB))
    opened = storage_module._open

    def full(*arguments: object) -> SqliteStorage:
        if (directory / RESERVE_FILE).exists():
            raise DiskFullError("full")
        return opened(*arguments)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(storage_module, "_open", full)
    with closing(open_storage(directory, "test", "n1", MEMBERS, reserve_bytes=64 * KB)) as storage:
        assert storage.space is not DiskSpace.AMPLE
    assert not (directory / RESERVE_FILE).exists()


@pytest.mark.parametrize(
    ("code", "full"),
    [(sqlite3.SQLITE_FULL, True), (sqlite3.SQLITE_IOERR_FSYNC, False), (sqlite3.SQLITE_IOERR_WRITE, False)],
)
def test_rule_4_only_a_write_that_finds_no_room_is_done_again(directory: Path, code: int, full: bool) -> None:
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        disk = LimitedDisk(storage)
        disk.held = True
        failures = [sqlite3.OperationalError("planted")]
        failures[0].sqlite_errorcode = code

        def fails_once() -> str:
            if failures:
                raise failures.pop()
            return "done again"

        if full:
            assert storage._with_reserve(fails_once) == "done again"
        else:
            with pytest.raises(sqlite3.OperationalError, match="planted"):
                storage._with_reserve(fails_once)
        assert disk.given_up == full
