"""What only the storage on disk has of the state: its tables, older files, damage, and rows that go later."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from paxos.ready import Write
from paxos.types import Ballot
from storage import compaction, maintenance, wal
from storage import sqlite as module
from storage.base import AppliedProgress, Change, StagedPage, StatePage, StateWrite, StorageError, Truncation
from storage.directory import DATA_FILE
from storage.hard_state import HardState
from storage.inspection import inspect
from storage.maintenance import Maintenance
from storage.memory import MemoryStorage
from storage.sqlite import SqliteStorage, open_storage
from tests.unit.storage.numbered_writes import MEMBERS
from tests.unit.storage.states import EVERYTHING, WriteMaker, compacted, entry, rows, shown, tidied
from tests.unit.storage.test_sqlite import change, pragma
from tests.unit.storage.version_1 import make_version_1

TABLES = ("log", "records_a", "history_a", "records_b", "history_b")


def count(storage: SqliteStorage, table: str) -> int:
    found: int = storage._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return found


def tidy_and_count(storage: SqliteStorage, table: str) -> int:
    tidied(storage)
    return count(storage, table)


def page_count(storage: SqliteStorage) -> int:
    found = pragma(storage, "page_count")
    assert isinstance(found, int)
    return found


def fill(directory: Path) -> None:
    """Of positions 1 to 6 those up to 4 are records, and 1 is superseded. Slots 1 to 6, cut at 2; pages up to 3 are
    staged, of which 2 is a record."""
    machine = WriteMaker()
    writes = [machine.write(machine.put(b"key %d" % key)) for key in (1, 1, 2, 3, 1, 2)]
    storage = open_storage(directory, "test", "n1", MEMBERS)
    for write in writes:
        storage.write([write])
    storage.write([StateWrite(truncate=machine.truncation(2), compact=4)])
    staged = [Change(position, b"key", b"value", 1, position, 0) for position in (2, 3)]
    storage.write([StateWrite(staged=StagedPage(0, StatePage(staged, 2, None)))])
    assert [count(storage, table) for table in TABLES] == [6, 0, 6, 1, 1]
    assert [tidy_and_count(storage, table) for table in TABLES] == [4, 3, 2, 1, 1]
    storage.close()


def open_and_read(directory: Path) -> None:
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        rows(storage, 10)
        rows(storage, 10, staged=True)


def test_an_older_file_is_upgraded_and_keeps_what_it_holds(directory: Path) -> None:
    """Nothing is known to be applied: the replica replays its log once."""
    make_version_1(directory)
    for boot in (6, 7):
        with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
            recovered = storage.recovered()
            assert (recovered.identity.incarnation, recovered.identity.boot) == (77, boot)
            assert (recovered.promised, recovered.chosen, recovered.last) == (Ballot(3, "n2"), 3, 5)
            assert (recovered.truncation, recovered.progress, recovered.log_bytes) == (
                Truncation(),
                AppliedProgress(),
                32,
            )
            assert storage.read(1, 9, 1000) == [entry(slot) for slot in (1, 2, 3, 5)]
    machine = WriteMaker()
    machine.applied = 2
    replayed = machine.write(machine.put(b"key"))
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        storage.write([StateWrite(changes=replayed.changes, progress=replayed.progress)])
        assert rows(storage) == replayed.changes


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE records_a SET key = x'00' WHERE position = 3", "row of position 3 in table records_a"),
        ("UPDATE records_a SET value = NULL WHERE position = 4", "row of position 4 in table records_a"),
        ("UPDATE records_a SET version = 9 WHERE position = 3", "row of position 3 in table records_a"),
        ("UPDATE records_a SET supersedes = 9 WHERE position = 3", "row of position 3 in table records_a"),
        ("UPDATE records_a SET create_revision = 9 WHERE position = 3", "row of position 3 in table records_a"),
        ("UPDATE records_a SET checksum = 9 WHERE position = 2", "row of position 2 in table records_a"),
        ("UPDATE history_a SET changes = x'90' WHERE first = 5", "row of position 5 in table history_a"),
        ("UPDATE history_a SET checksum = 9 WHERE first = 6", "row of position 6 in table history_a"),
        ("UPDATE history_a SET last = 6 WHERE first = 5", "row of position 5 in table history_a"),
        ("UPDATE history_a SET last = 7 WHERE first = 6", "history_a ends at position 7, but the state has position 6"),
        ("DELETE FROM history_a WHERE first = 6", "history_a ends at position 5, but the state has position 6"),
        ("DELETE FROM history_a", "history_a ends at position 4, but the state has position 6"),
        ("DELETE FROM history_a WHERE first = 5", "history_a lacks the row after position 4"),
        ("UPDATE records_b SET value = x'00' WHERE position = 2", "row of position 2 in table records_b"),
        ("DELETE FROM history_b", "history_b lacks the row after position 2"),
        ("UPDATE progress SET applied = 5", "row of table progress fails its checksum"),
        ("UPDATE progress SET chain = x'00'", "row of table progress fails its checksum"),
        ("UPDATE progress SET digest = 'x'", "row of table progress fails its checksum"),
        ("UPDATE progress SET extra = x''", "row of table progress fails its checksum"),
        ("DELETE FROM progress", "table progress has 0 rows instead of one"),
        ("UPDATE bounds SET cut = 1", "row of table bounds fails its checksum"),
        ("UPDATE bounds SET live = 'b'", "row of table bounds fails its checksum"),
        ("UPDATE bounds SET staged = 0", "row of table bounds fails its checksum"),
        ("INSERT INTO bounds SELECT * FROM bounds", "table bounds has 2 rows instead of one"),
        ("DELETE FROM log WHERE slot > 2", "log ends at slot 2, but slots up to 6 are known to be chosen"),
    ],
)
def test_damage_of_the_state_is_told(directory: Path, damage: str, says: str) -> None:
    """Rule 5."""
    fill(directory)
    open_and_read(directory)
    change(directory, damage)
    with pytest.raises(StorageError, match=f"{says}.*does not use"):
        open_and_read(directory)


def test_an_older_row_of_the_chosen_prefix_is_told(directory: Path) -> None:
    fill(directory)
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        older = storage._connection.execute("SELECT * FROM acceptor").fetchone()
        storage.write([Write(accepts=[entry(7)], chosen=7), StateWrite(progress=AppliedProgress(7, 6))])
    columns = ("round", "node", "chosen", "checksum")
    change(directory, "UPDATE acceptor SET " + ", ".join(f"{c} = {v!r}" for c, v in zip(columns, older, strict=True)))
    with pytest.raises(StorageError, match="up to 7 are applied, but only slots up to 6 are known to be chosen"):
        open_and_read(directory)


def test_what_a_damaged_row_superseded_does_not_go(directory: Path) -> None:
    fill(directory)
    change(directory, "UPDATE history_a SET checksum = 9 WHERE first = 6")
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        storage.write([StateWrite(compact=6)])
        with pytest.raises(StorageError, match=r"row of position 6 in table history_a.*does not use"):
            tidied(storage)
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        assert count(storage, "records_a") == 3


def overwrite(
    storage: SqliteStorage, machine: WriteMaker, times: int, after_each: Callable[[], object], *, every: int = 20
) -> None:
    """200 keys again and again, with a history of 500 positions and a log of 100 slots; what has become too old is let
    go of with every so many writes."""
    for number in range(times):
        changes = [machine.put(b"key %d" % ((machine.position * 7) % 200), bytes(100)) for _ in range(10)]
        write = machine.write(*changes, size=1000)
        if number % every == 0:
            write.compact = max(0, machine.position - 500)
            write.truncate = machine.truncation(max(0, machine.applied - 100))
        storage.write([write])
        after_each()


@pytest.mark.parametrize("every", [20, 1], ids=["much at once", "a little with each write"])
@pytest.mark.parametrize("idle", [True, False], ids=["idle between writes", "never idle"])
def test_freed_pages_are_used_again(
    sqlite: SqliteStorage, monkeypatch: pytest.MonkeyPatch, idle: bool, every: int
) -> None:
    """The same keys for ever take no more room than at the start: 200 records of some 150 bytes, some 150 runs and 220
    slots of 1000."""
    monkeypatch.setattr(maintenance, "BACKLOG_BYTES", 50_000)
    machine = WriteMaker()
    after_each = sqlite.maintain if idle else lambda: None
    overwrite(sqlite, machine, 200, after_each, every=every)
    first = page_count(sqlite)
    overwrite(sqlite, machine, 800, after_each, every=every)
    assert first < 400
    assert page_count(sqlite) <= first * 1.2
    assert tidy_and_count(sqlite, "history_a") <= 70
    assert count(sqlite, "records_a") <= 200
    assert count(sqlite, "log") <= 120


def test_a_write_of_many_changes_leaves_maintenance_to_the_next_ones(
    sqlite: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small writes that share its transaction, or wait for it, do not wait for all of the maintenance."""
    monkeypatch.setattr(maintenance, "BACKLOG_BYTES", 50_000)
    monkeypatch.setattr(module, "_MOST_UNITS", 300)
    monkeypatch.setattr(module, "_MOST_OWED", 5_000)
    units: list[int] = []
    work = Maintenance.slice

    def record(self: Maintenance, most: int, hard_state: HardState, *, idle: bool) -> int:
        units.append(most)
        return work(self, most, hard_state, idle=idle)

    monkeypatch.setattr(Maintenance, "slice", record)
    machine = WriteMaker()
    for _ in range(8):
        write = machine.write(*[machine.put(b"key %d" % key) for key in range(1000)])
        write.compact = machine.position
        sqlite.write([write])
    assert units[0] == 300
    assert max(units) > 2_000  # more than the limit is not owed
    assert sqlite._owed_units <= 5_000


def test_rounds_that_take_less_than_is_stored_meanwhile_fall_not_behind(
    sqlite: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many follow each other as it takes, though nothing is ever idle."""
    monkeypatch.setattr(maintenance, "BACKLOG_BYTES", 50_000)
    monkeypatch.setattr(compaction, "ROUND_KEYS", 100)  # of 107 bytes
    overwrite(sqlite, machine := WriteMaker(), 1000, lambda: None)
    assert machine.position - sqlite._key_space.compacted <= 500 + 500 + 200


def test_states_that_are_replaced_again_and_again_take_the_room_of_two(sqlite: SqliteStorage) -> None:
    machine, peer = WriteMaker(), MemoryStorage("test", "n2")
    pages = []
    for _ in range(12):
        for _ in range(10):
            peer.write([machine.write(*[machine.put(b"key %d" % (key * 13 % 1000)) for key in range(100)])])
        peer.write([StateWrite(compact=machine.position, truncate=machine.truncation(machine.applied))])
        after = 0
        while True:
            page = peer.read_state(after, 2000)
            sqlite.write([StateWrite(staged=StagedPage(after, page))])
            if page.progress is not None:
                break
            after = page.changes[-1].position
        assert rows(sqlite) == rows(peer)
        assert sum(count(sqlite, table) for table in TABLES) <= 2000
        pages.append(page_count(sqlite))
    assert pages[-1] <= pages[2]


def test_tidying_is_done_in_slices_and_each_is_durable(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log goes first, then the positions are looked at, and those that are alive become records."""
    machine = WriteMaker()
    storage = open_storage(directory, "test", "n1", MEMBERS)
    for number in range(50):
        storage.write([machine.write(machine.put(b"key %d" % (number % 20)))])
    state = rows(storage)
    storage.write([StateWrite(compact=50, truncate=machine.truncation(50))])
    monkeypatch.setattr(module, "_SLICE_UNITS", 10)
    monkeypatch.setattr(compaction, "PIECE_UNITS", 10)
    left = []
    while storage.maintain():
        left.append([count(storage, table) for table in ("log", "records_a", "history_a")])
        shutil.copytree(directory, directory.parent / str(len(left)))
    assert [log for log, _, _ in left[:6]] == [40, 30, 20, 10, 0, 0]
    assert [records for _, records, _ in left[9:12]] == [0, 10, 20]
    assert [runs for _, _, runs in left[11:]] == [50, 40, 30, 20, 10, 0]
    assert storage.read_state(0, EVERYTHING).compacted == 50
    storage.close()
    for number in range(1, len(left) + 1):
        with closing(open_storage(directory.parent / str(number), "test", "n1", MEMBERS)) as storage:
            assert compacted(rows(storage), 0, 50) == compacted(state, 0, 50)


def test_long_values_make_slices_shorter(sqlite: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of 100,000 bytes counts for 25 rows; one at least goes."""
    machine = WriteMaker()
    for _ in range(6):
        sqlite.write([machine.write(machine.put(b"key", bytes(100_000)), size=100_000)])
    sqlite.write([StateWrite(compact=6, truncate=machine.truncation(6))])
    monkeypatch.setattr(module, "_SLICE_UNITS", 60)
    left = []
    while sqlite.maintain():
        left.append((count(sqlite, "log"), count(sqlite, "history_a")))
    assert left == [(4, 6), (2, 6), (0, 6), (0, 6), (0, 4), (0, 2), (0, 0)]
    assert count(sqlite, "records_a") == 1


@pytest.mark.parametrize("limit", ["ROUND_KEYS", "ROUND_BYTES"])
def test_a_round_takes_only_so_much(sqlite: SqliteStorage, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(compaction, limit, {"ROUND_KEYS": 2, "ROUND_BYTES": 40}[limit])
    monkeypatch.setattr(module, "_SLICE_UNITS", 8)
    machine = WriteMaker()
    for key in (b"a", b"b", b"a", b"c", b"a", b"b", b"a", b"a"):
        sqlite.write([machine.write(machine.put(key, bytes(19)))])
    expected = compacted(rows(sqlite), 0, 8)
    sqlite.write([StateWrite(compact=8)])
    bases = []
    while sqlite.maintain():
        bases.append(sqlite._key_space.compacted)
    assert sorted({*bases}) == [2, 4, 6, 8]
    assert rows(sqlite) == expected


@pytest.mark.parametrize("restarted", [False, True])
def test_who_reads_the_state_sees_all_that_was_alive_at_its_base(
    directory: Path, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    """A round removes records before the base moves. It is ended first, also one of an earlier life."""
    monkeypatch.setattr(module, "_SLICE_UNITS", 2)
    monkeypatch.setattr(compaction, "PIECE_UNITS", 1)
    machine = WriteMaker()
    storage = open_storage(directory, "test", "n1", MEMBERS)
    for upto in (4, 8):
        storage.write([machine.write(*[machine.put(b"key %d" % number) for number in range(4)])])
        storage.write([StateWrite(compact=upto)])
        most = 0
        while count(storage, "records_a") >= most and storage.maintain():
            most = max(most, count(storage, "records_a"))
    assert storage._key_space.compacted == 4
    if restarted:
        storage.close()
        storage = open_storage(directory, "test", "n1", MEMBERS)
    page = storage.read_state(0, EVERYTHING)
    storage.close()
    assert (page.compacted, [change.position for change in page.changes]) == (8, [5, 6, 7, 8])


def test_who_reads_the_state_waits_for_no_round_that_only_adds(
    sqlite: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does a slice, so that asking again and again gets there."""
    monkeypatch.setattr(module, "_SLICE_UNITS", 2)
    monkeypatch.setattr(compaction, "PIECE_UNITS", 1)
    machine = WriteMaker()
    sqlite.write([machine.write(*[machine.put(b"key %d" % number) for number in range(6)])])
    sqlite.write([StateWrite(compact=6)])
    bases: list[int] = []
    while not bases or bases[-1] < 6:
        page = sqlite.read_state(0, EVERYTHING)
        assert [change.position for change in page.changes] == [1, 2, 3, 4, 5, 6]
        bases.append(page.compacted)
    assert len(bases) > 3


def test_what_a_round_has_left_is_not_seen_by_who_only_looks(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records behind the base are in the history, too, until it moves."""
    monkeypatch.setattr(module, "_SLICE_UNITS", 2)
    monkeypatch.setattr(compaction, "PIECE_UNITS", 1)
    machine = WriteMaker()
    storage = open_storage(directory, "test", "n1", MEMBERS)
    changes = [machine.put(b"key %d" % number) for number in range(6)]
    storage.write([machine.write(*changes), StateWrite(compact=6)])
    while count(storage, "records_a") < 3:
        assert storage.maintain()
    shutil.copytree(directory, directory.parent / "copy")
    with inspect(directory.parent / "copy") as data:
        assert rows(data.storage(data.identity())) == changes
    storage.close()


def test_a_state_may_be_replaced_in_the_midst_of_a_round(
    sqlite: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round was about the one that is idle now."""
    monkeypatch.setattr(module, "_SLICE_UNITS", 2)
    machine, peer = WriteMaker(), MemoryStorage("test", "n2")
    for number in range(20):
        sqlite.write([machine.write(machine.put(b"key %d" % (number % 3)))])
    sqlite.write([StateWrite(compact=15)])
    for _ in range(4):
        assert sqlite.maintain()
    other = WriteMaker()
    for number in range(30):
        peer.write([other.write(other.put(b"other %d" % (number % 5)))])
    peer.write([StateWrite(compact=10)])
    sqlite.write([StateWrite(staged=StagedPage(0, peer.read_state(0, EVERYTHING)))])
    for storage in (sqlite, peer):
        storage.write([StateWrite(compact=25)])
    assert rows(tidied(sqlite)) == rows(peer)
    assert [count(sqlite, table) for table in TABLES] == [0, 0, 0, 5, 1]


def test_a_page_finds_its_place_empty(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a state that was replaced are in the idle table: none of them may come back."""
    monkeypatch.setattr(module, "_SLICE_UNITS", 2)
    storage = open_storage(directory, "test", "n1", MEMBERS)
    older, newer = WriteMaker(), WriteMaker()
    storage.write([older.write(*[older.put(b"key %d" % key) for key in range(40)])])
    peer = MemoryStorage("test", "n2")
    for _ in range(2):
        peer.write([newer.write(*[newer.put(b"other %d" % key) for key in range(3)])])
    for _ in range(3):
        storage.write([StateWrite(staged=StagedPage(0, peer.read_state(0, EVERYTHING)))])
        assert rows(storage) == rows(peer)
    storage.close()
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        assert shown(storage)["state"] == rows(peer)
        tidied(storage)
        assert [count(storage, table) for table in TABLES[1:]] in ([0, 1, 0, 0], [0, 0, 0, 1])


def test_the_log_of_the_present_round_is_measured(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(directory, "test", "n1", MEMBERS)
    log = directory / (DATA_FILE + "-wal")
    lengths = []
    for slot in range(1, 7):
        storage.write([Write(accepts=[entry(slot, 20_000)])])
        monkeypatch.setattr(module, "CHECKPOINT_BYTES", 0 if slot == 3 else 1 << 30)
        storage.tidy()
        monkeypatch.setattr(module, "CHECKPOINT_BYTES", 1 << 30)
        lengths.append(wal.length(log))
    assert lengths[0] < lengths[1] < lengths[2] == log.stat().st_size - 32
    assert lengths[3] < lengths[4] < lengths[5] < lengths[2]
    assert all(length % (4096 + 24) == 0 for length in lengths)
    storage.close()
    log.write_bytes(b"")
    assert wal.length(log) == 0


def test_the_log_stays_bounded_while_the_state_is_tidied(
    sqlite: SqliteStorage, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_BYTES", 200_000)
    log = directory / (DATA_FILE + "-wal")
    sizes: list[int] = []
    overwrite(sqlite, WriteMaker(), 300, lambda: sizes.append(wal.length(log)))
    assert 150_000 < max(sizes) < 400_000
    assert log.stat().st_size < 400_000


def puts(*positions: int) -> list[Change]:
    return [Change(position, b"key %d" % position, b"value", position, 1, 0) for position in positions]


@pytest.mark.parametrize("also", [[], [StateWrite(staged=StagedPage(0, StatePage(puts(1, 2), 0, None)))]])
def test_pages_that_begin_anew_leave_nothing_of_those_before(sqlite: SqliteStorage, also: list[StateWrite]) -> None:
    """Of positions 1 to 6 that were staged only 2 and 4 are in the new pages, perhaps all in one transaction."""
    sqlite.write([StateWrite(staged=StagedPage(0, StatePage(puts(1, 2, 3, 4, 5, 6), 0, None)))])
    sqlite.write([*also, StateWrite(staged=StagedPage(0, StatePage(puts(2), 4, None)))])
    assert rows(sqlite, staged=True) == puts(2)
    sqlite.write([StateWrite(staged=StagedPage(2, StatePage(puts(4), 4, None)))])
    assert rows(sqlite, staged=True) == puts(2, 4)
    sqlite.write([StateWrite(staged=StagedPage(4, StatePage([], 4, AppliedProgress(1, 4))))])
    assert rows(sqlite) == puts(2, 4)
    assert sqlite.read_state(4, EVERYTHING) == StatePage([], 4, AppliedProgress(1, 4))


def test_what_pages_that_begin_anew_do_not_cover_goes_later(sqlite: SqliteStorage) -> None:
    sqlite.write([StateWrite(staged=StagedPage(0, StatePage(puts(1, 2, 3, 4, 5, 6), 0, None)))])
    for after, page in ((0, StatePage(puts(2), 4, None)), (2, StatePage(puts(4), 4, None))):
        sqlite.write([StateWrite(staged=StagedPage(after, page))])
    assert (tidy_and_count(sqlite, "records_b"), count(sqlite, "history_b")) == (2, 0)


def test_a_late_accept_of_a_slot_that_is_cut_takes_no_room(sqlite: SqliteStorage) -> None:
    machine = WriteMaker()
    sqlite.write([machine.write(), machine.write()])
    sqlite.write([StateWrite(truncate=machine.truncation(2))])
    assert tidy_and_count(sqlite, "log") == 0
    sqlite.write([Write(accepts=[entry(1), entry(2)])])
    assert tidy_and_count(sqlite, "log") == 0
