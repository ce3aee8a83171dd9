"""The lock file after a write that was cut short, and with damage (rules 5 and 28)."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from paxos.ready import Write
from paxos.types import Ballot
from storage.base import DamagedError, StorageError
from storage.directory import DATA_FILE, LOCK_FILE, lock_directory, read_lock_record
from storage.lock_record import COPY_BYTES, LockRecord, pack, unpack
from storage.set_aside import set_aside
from storage.sqlite import open_storage
from tests.unit.storage.numbered_writes import MEMBERS

LONG = LockRecord(boot=12, incarnation=1 << 61, replaces=7, open=True)
SHORT = LockRecord(boot=3, incarnation=5)


class KilledError(Exception):
    """The process ended."""


def killed_image(directory: Path, image: Path) -> int:
    """Copy what a killed process leaves to `image`. Return the incarnation of the data."""
    storage = open_storage(directory, "test", "n1", MEMBERS)
    storage.write([Write(promise=Ballot(4, "n1"))])
    shutil.copytree(directory, image)
    incarnation = storage.recovered().identity.incarnation
    storage.close()
    return incarnation


def garbage(lock: Path) -> None:
    lock.write_bytes(bytes(range(256)))


def a_line(lock: Path) -> None:
    lock.write_bytes(b"process 7, node n1 of clus")


def overwritten(lock: Path) -> None:
    lock.write_bytes(b"\xff" * len(lock.read_bytes()))


def test_a_record_of_an_earlier_release_with_a_tail_behind_it_is_understood(tmp_path: Path) -> None:
    """The earlier release wrote the record over a longer one, and was killed before it cut the rest."""
    data = tmp_path / "data"
    killed_image(tmp_path / "first", data)
    record = read_lock_record(data)
    (data / LOCK_FILE).write_text(
        f'process 1, node n1 of cluster test\n{{"boot":1,"incarnation":{record.incarnation},"open":true}}\n":false}}\n'
    )
    storage = open_storage(data, "test", "n1", MEMBERS)
    assert (storage.recovered().identity.boot, storage.recovered().promised) == (2, Ballot(4, "n1"))
    storage.close()


def test_a_tail_behind_the_record_is_understood(tmp_path: Path) -> None:
    data = tmp_path / "data"
    killed_image(tmp_path / "first", data)
    with (data / LOCK_FILE).open("ab") as file:
        file.write(b'":false}\n')
    open_storage(data, "test", "n1", MEMBERS).close()
    assert read_lock_record(data).boot == 2


@pytest.mark.parametrize("harm", [garbage, a_line, overwritten], ids=lambda harm: harm.__name__)
def test_data_with_a_damaged_lock_file_is_set_aside_and_names_what_it_replaces(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """The leader readmits the replica by the incarnation of its damaged data, which only the database still names."""
    data = tmp_path / "data"
    incarnation = killed_image(tmp_path / "first", data)
    harm(data / LOCK_FILE)
    with pytest.raises(DamagedError, match=r"lock: the lock record is damaged.*sets the data aside"):
        open_storage(data, "test", "n1", MEMBERS)
    moved = set_aside(data)
    assert {path.name for path in moved.iterdir()} == {DATA_FILE, f"{DATA_FILE}-wal"}
    storage = open_storage(data, "test", "n1", ())
    recovered = storage.recovered()
    assert (recovered.replaces, recovered.identity.boot, recovered.promised.round) == (incarnation, 1, 0)
    storage.close()


def test_a_damaged_lock_file_beside_a_damaged_database_is_set_aside(tmp_path: Path) -> None:
    data = tmp_path / "data"
    killed_image(tmp_path / "first", data)
    for path in data.iterdir():
        overwritten(path)
    set_aside(data)
    storage = open_storage(data, "test", "n1", ())
    assert (storage.recovered().replaces, storage.recovered().identity.boot) == (0, 1)
    storage.close()


@pytest.mark.parametrize("moves", [0, 1])
@pytest.mark.parametrize("harm", [None, garbage], ids=["good record", "damaged record"])
def test_a_kill_while_data_is_set_aside_does_not_bring_the_data_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int, harm: Callable[[Path], None] | None
) -> None:
    data = tmp_path / "data"
    incarnation = killed_image(tmp_path / "first", data)
    if harm is not None:
        harm(data / LOCK_FILE)
    rename, left = Path.rename, [moves]

    def killed_later(path: Path, target: Path) -> Path:
        if not left[0]:
            raise KilledError
        left[0] -= 1
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed_later)
        with pytest.raises(KilledError):
            set_aside(data)
    with pytest.raises(DamagedError, match="ended while it set this damaged data aside"):
        open_storage(data, "test", "n1", MEMBERS)
    set_aside(data)
    storage = open_storage(data, "test", "n1", ())
    assert (storage.recovered().replaces, storage.recovered().promised.round) == (incarnation, 0)
    storage.close()


@pytest.mark.parametrize(("before", "after"), [(LONG, SHORT), (SHORT, LONG)], ids=["shorter", "longer"])
def test_an_update_that_is_cut_short_anywhere_leaves_the_record_before_or_after_it(
    before: LockRecord, after: LockRecord
) -> None:
    """Also when the copy that was read is the second one, because the first one was damaged."""
    texts = [pack(record, "process 1, node n1 of cluster test") for record in (before, after)]
    for first_is_damaged in (False, True):
        file = bytearray(2 * COPY_BYTES)
        for copy in (0, 1):
            file[copy * COPY_BYTES : copy * COPY_BYTES + len(texts[0])] = texts[0]
        if first_is_damaged:
            file[3] ^= 1
        source = unpack(bytes(file), Path(LOCK_FILE)).copy
        assert source == int(first_is_damaged)
        for copy in (1 - source, source):
            for length in range(len(texts[1]) + 1):
                torn = bytearray(file)
                torn[copy * COPY_BYTES : copy * COPY_BYTES + length] = texts[1][:length]
                assert unpack(bytes(torn), Path(LOCK_FILE)).record in (before, after)
            file[copy * COPY_BYTES : copy * COPY_BYTES + len(texts[1])] = texts[1]
        assert unpack(bytes(file), Path(LOCK_FILE)).record == after


def test_a_lock_writes_a_copy_only_once_the_other_one_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = lock_directory(tmp_path, "test")
    lock.load_record()
    file = tmp_path / LOCK_FILE
    durable: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda _: durable.append(file.read_bytes()))
    lock.update_record(boot=9)
    half, whole = durable
    assert [unpack(content[:COPY_BYTES], file).record.boot for content in durable] == [0, 9]
    assert half[COPY_BYTES:] == whole[COPY_BYTES:]
    lock.close()


def test_no_single_flipped_bit_of_the_lock_file_changes_the_record(tmp_path: Path) -> None:
    data = tmp_path / "data"
    killed_image(tmp_path / "first", data)
    content = (data / LOCK_FILE).read_bytes()
    record = read_lock_record(data)
    text = pack(record, "process 1, node n1 of cluster test")
    for start in (0, COPY_BYTES):
        for bit in range(8 * (len(text) + 8)):
            if start + bit // 8 < len(content):
                flipped = bytearray(content)
                flipped[start + bit // 8] ^= 1 << bit % 8
                assert unpack(bytes(flipped), data / LOCK_FILE).record == record


@pytest.mark.parametrize("content", [b"", bytes(COPY_BYTES), bytes(COPY_BYTES) + b"process 1, no"])
def test_a_first_record_that_was_not_written_completely_is_none(tmp_path: Path, content: bytes) -> None:
    """Nothing happened in the directory before its first record was durable."""
    data = tmp_path / "data"
    data.mkdir()
    (data / LOCK_FILE).write_bytes(content)
    open_storage(data, "test", "n1", MEMBERS).close()


def test_the_lock_is_held_while_its_record_changes(tmp_path: Path) -> None:
    """The file is never replaced: a second process would lock another file."""
    lock = lock_directory(tmp_path, "test")
    lock.load_record()
    inode = (tmp_path / LOCK_FILE).stat().st_ino
    for boot in range(3):
        lock.update_record(boot=boot)
        with pytest.raises(StorageError, match="in use by process"):
            lock_directory(tmp_path, "other")
    assert (tmp_path / LOCK_FILE).stat().st_ino == inode
    lock.close()
    lock_directory(tmp_path, "other").close()


def test_a_longer_record_needs_no_further_block_of_the_disk(tmp_path: Path) -> None:
    """A replica starts and stops on a full disk, and both copies have their blocks since the first update."""
    lock = lock_directory(tmp_path, "test")
    lock.load_record()
    size = (tmp_path / LOCK_FILE).stat().st_size
    lock.update_record(**{name: getattr(LONG, name) for name in ("boot", "incarnation", "replaces", "open")})
    assert COPY_BYTES < size <= (tmp_path / LOCK_FILE).stat().st_size <= 2 * COPY_BYTES
    lock.close()


def test_the_incarnation_is_read_without_changing_the_damaged_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    killed_image(tmp_path / "first", data)
    before = {path.name: path.read_bytes() for path in data.glob(f"{DATA_FILE}*")}
    garbage(data / LOCK_FILE)
    moved = set_aside(data)
    assert {path.name: path.read_bytes() for path in moved.iterdir()} == before
