"""Rule 5: a broken prefix of the write-ahead log, which SQLite drops in silence with all behind it, is found."""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos.ready import Write
from paxos.types import Ballot, PValue
from storage import sqlite as module
from storage import wal
from storage.base import StorageError
from storage.directory import DATA_FILE
from storage.sqlite import open_storage
from tests.unit.storage.numbered_writes import MEMBERS

B1 = Ballot(1, "n1")
HEADER, FRAME_HEADER = 32, 24
FRAME = FRAME_HEADER + 4096
TRANSACTIONS = 6
LOG = DATA_FILE + "-wal"


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed process leaves: the log holds the boot and six transactions, one for each slot."""
    root = tmp_path_factory.mktemp("wal")
    storage = open_storage(root / "data", "test", "n1", MEMBERS)
    for slot in range(1, TRANSACTIONS + 1):
        storage.write([Write(accepts=[PValue(slot, B1, bytes([slot]) * 3000)], chosen=slot)])
    shutil.copytree(root / "data", root / "crashed")
    storage.close()
    return root / "crashed"


@pytest.fixture
def image(crashed: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(crashed, tmp_path / "image")
    yield tmp_path / "image"
    shutil.rmtree(tmp_path / "image")


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def last_slot(directory: Path) -> int:
    """Highest slot that is there after opening; everything below it has to be there, too."""
    storage = open_storage(directory, "test", "n1", MEMBERS)
    found = storage.read(1, TRANSACTIONS, 1 << 30)
    assert found == [PValue(slot, B1, bytes([slot]) * 3000) for slot in range(1, len(found) + 1)]
    assert storage.recovered().chosen == len(found)
    storage.close()
    return len(found)


def test_a_sound_log_is_replayed(image: Path) -> None:
    assert last_slot(image) == TRANSACTIONS


@pytest.mark.parametrize(
    ("at", "where"),
    [(HEADER + FRAME_HEADER + 100, "frame 1"), (HEADER + 3 * FRAME + 17, "frame 4"), (9, "the header")],
)
def test_damage_that_hides_votes_is_refused_and_nothing_is_touched(image: Path, at: int, where: str) -> None:
    flip(image / LOG, at)
    before = [(image / name).read_bytes() for name in (DATA_FILE, LOG)]
    for _ in range(2):
        with pytest.raises(StorageError, match=f"{where} of the write-ahead log is damaged.*does not use"):
            open_storage(image, "test", "n1", MEMBERS)
    assert [(image / name).read_bytes() for name in (DATA_FILE, LOG)] == before


@pytest.mark.parametrize("cut", [1, FRAME - 1, FRAME])
def test_a_torn_last_transaction_was_never_durable(image: Path, cut: int) -> None:
    log = image / LOG
    log.write_bytes(log.read_bytes()[:-cut])
    assert last_slot(image) == TRANSACTIONS - 1


def test_what_an_earlier_round_left_in_the_file_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a checkpoint the file is written again from its start; old frames follow the new ones."""
    storage = open_storage(tmp_path / "data", "test", "n1", MEMBERS)
    for slot in range(1, TRANSACTIONS + 1):
        monkeypatch.setattr(module, "CHECKPOINT_BYTES", 0 if slot == 4 else 1 << 30)
        storage.write([Write(accepts=[PValue(slot, B1, bytes([slot]) * 3000)], chosen=slot)])
    shutil.copytree(tmp_path / "data", tmp_path / "image")
    storage.close()
    log = tmp_path / "image" / LOG
    flip(log, log.stat().st_size - 1)
    assert last_slot(tmp_path / "image") == TRANSACTIONS


@settings(max_examples=40, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_bit_can_take_more_than_the_last_two_transactions_away(
    crashed: Path, tmp_path_factory: pytest.TempPathFactory, where: float, bit: int
) -> None:
    """The last may be taken for a torn write; the last two, when the bit hard_state where the first of them ends."""
    image = tmp_path_factory.mktemp("flip") / "image"
    shutil.copytree(crashed, image)
    log = image / LOG
    flip(log, int(log.stat().st_size * where), bit)
    try:
        left = last_slot(image)
    except StorageError:
        left = TRANSACTIONS
    assert left >= TRANSACTIONS - 2
    shutil.rmtree(image)


def checksum(data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    for one, two in struct.iter_unpack("<II", data):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second


def plainly(content: bytes) -> int | None:
    """What `wal.unreachable` finds, word by word as the format is described."""
    if len(content) <= HEADER:
        return None
    salt, sums = content[16:24], checksum(content[:24], (0, 0))
    if content[:4] != bytes.fromhex("377f0682") or struct.pack(">II", *sums) != content[24:32]:
        return 0
    first_bad, committed = None, False
    for number, start in enumerate(range(HEADER, len(content) - FRAME + 1, FRAME), start=1):
        head, page = content[start : start + FRAME_HEADER], content[start + FRAME_HEADER : start + FRAME]
        current = head[8:16] == salt
        sums = checksum(head[:8] + page, sums)
        if first_bad is None and not (current and struct.pack(">II", *sums) == head[16:24]):
            first_bad = number
        if first_bad is not None and current:
            if committed:
                return first_bad
            committed = head[4:8] != bytes(4)
    return None


@settings(max_examples=200, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 7)), max_size=3), cut=st.integers(0, 3 * FRAME))
def test_many_frames_at_once_give_what_one_after_the_other_gives(
    crashed: Path, flips: list[tuple[int, int]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.getbasetemp() / "log"
    content = bytearray((crashed / LOG).read_bytes())
    for at, bit in flips:
        content[at % len(content)] ^= 1 << bit
    log.write_bytes(content[: len(content) - cut])
    assert wal.unreachable(log) == plainly(log.read_bytes())


@pytest.mark.parametrize("bad", [0, 1, 1023, 1024, 1025, 1499])
def test_the_first_bad_frame_of_a_long_log_is_named(tmp_path: Path, bad: int) -> None:
    """Longer than what is looked at together."""
    log = tmp_path / "log"
    content = bytearray(long_log(1500))
    content[HEADER + bad * FRAME + 2000] ^= 4
    log.write_bytes(content)
    assert wal.unreachable(log) == (bad + 1 if bad < 1499 else None)  # the last transaction may be torn


def long_log(frames: int) -> bytes:
    """Each frame commits a transaction. All words are large, so that the sums carry."""
    header = struct.pack(">IIII8s", 0x377F0682, 3007000, 4096, 0, b"saltsalt")
    sums = checksum(header, (0, 0))
    log = [header, struct.pack(">II", *sums)]
    for number in range(frames):
        head, page = (
            struct.pack(">II", 1, 1),
            struct.pack("<1024I", *(0xFFFFFFFF - number - word for word in range(1024))),
        )
        sums = checksum(head + page, sums)
        log += [head, b"saltsalt", struct.pack(">II", *sums), page]
    return b"".join(log)
