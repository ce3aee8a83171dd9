"""Rule 5: a broken prefix of the write-ahead log, which SQLite drops in silence with all behind it, is found."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos.ready import Write
from paxos.types import Ballot, PValue
from storage import sqlite as module
from storage.base import StorageError
from storage.directory import DATA_FILE
from storage.sqlite import open_storage
from tests.storage.numbered_writes import MEMBERS

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
        with pytest.raises(StorageError, match=f"{where} of the write-ahead log is damaged.*is not used"):
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
    """The last may be taken for a torn write; the last two, when the bit marks where the first of them ends."""
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
