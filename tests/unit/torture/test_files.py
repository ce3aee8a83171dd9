"""Reading and damaging the files of a replica, against the real storage."""

from pathlib import Path

import pytest

from bench.errors import BenchError
from kvstore.replica.applier import extend_chain
from paxos.ready import Write
from paxos.types import Ballot, PValue
from storage.base import AppliedProgress, StateWrite, Truncation
from storage.directory import DATA_FILE
from storage.sqlite import open_storage
from tests.torture import files

B1 = Ballot(1, "n1")


def stored(directory: Path, slots: int, cut: int = 0) -> None:
    storage = open_storage(directory, "test", "n1", ["n1"])
    storage.write([Write(accepts=[PValue(slot, B1, b"value") for slot in range(1, slots + 1)], chosen=slots)])
    if cut:
        storage.write(
            [
                StateWrite(
                    progress=AppliedProgress(cut, 0, extend_chain(bytes(16), 1, b"")),
                    truncate=Truncation(cut, bytes(16)),
                )
            ]
        )
    storage.close()


def test_downgraded_data_is_migrated_by_the_storage(tmp_path: Path) -> None:
    stored(tmp_path / "data", slots=3)
    files.downgrade(tmp_path / "data")
    assert files.under_way(tmp_path / "data") == ["migrating"]
    storage = open_storage(tmp_path / "data", "test", "n1", ["n1"])
    assert [pvalue.slot for pvalue in storage.read(1, 3, 1 << 20)] == [1, 2, 3]
    assert storage.recovered().progress == AppliedProgress()
    assert storage.recovered().identity.boot == 2
    storage.close()


def test_data_whose_log_is_cut_has_no_earlier_schema(tmp_path: Path) -> None:
    stored(tmp_path / "data", slots=3, cut=2)
    with pytest.raises(BenchError, match="its log was truncated up to slot 2"):
        files.downgrade(tmp_path / "data")


def test_the_stage_of_a_killed_replica_is_read_without_touching_its_files(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert files.under_way(data) == ["starting"]
    storage = open_storage(data, "test", "n1", ["n1"])
    storage.write([Write(accepts=[PValue(slot, B1, b"value") for slot in range(1, 9)], chosen=8)])
    storage.write([StateWrite(progress=AppliedProgress(5, 0, bytes(16)), truncate=Truncation(5, bytes(16)))])
    before = {path: path.read_bytes() for path in data.iterdir()}
    assert files.under_way(data) == ["truncating"]
    assert {path: path.read_bytes() for path in data.iterdir()} == before
    while storage.maintain():
        pass
    assert files.under_way(data) == []
    storage.close()


def test_a_bit_is_flipped_and_flipped_back(tmp_path: Path) -> None:
    file = tmp_path / DATA_FILE
    file.write_bytes(b"\x00\x00\x00")
    files.flip(file, 13)
    assert file.read_bytes() == b"\x00\x20\x00"
    files.flip(file, 13)
    assert file.read_bytes() == b"\x00\x00\x00"


def test_every_file_of_a_running_replica_can_be_damaged(tmp_path: Path) -> None:
    data = tmp_path / "data"
    storage = open_storage(data, "test", "n1", ["n1"], reserve_bytes=4096)
    storage.verify_files()
    (data / "damaged-1").mkdir()
    assert [path.name for path in files.damageable(data)] == [DATA_FILE, f"{DATA_FILE}-wal", "lock", "reserve"]
    storage.close()
