"""Files that are removed, replaced or cut short under a storage that has them open."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from paxos.ready import Write
from paxos.types import Ballot
from storage.base import StorageError
from storage.directory import DATA_FILE, LOCK_FILE
from storage.sqlite import open_storage
from tests.unit.storage.numbered_writes import MEMBERS

FILES = (DATA_FILE, DATA_FILE + "-wal", LOCK_FILE)


def replace_by_copy(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.rename(path)


def remove_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


HARM: list[tuple[str, Callable[[Path], None], str]] = [
    *((name, Path.unlink, "was removed") for name in FILES),
    *((name, replace_by_copy, "was replaced by another file") for name in FILES),
    (DATA_FILE, remove_directory, "was removed"),
    (DATA_FILE, lambda path: os.truncate(path, 0), "was cut from"),
]


@pytest.mark.parametrize(("name", "harm", "what"), HARM, ids=[f"{name} {what}" for name, _, what in HARM])
@pytest.mark.parametrize("idle", [False, True])
def test_a_write_is_not_reported_once_a_file_is_gone(
    tmp_path: Path, name: str, harm: Callable[[Path], None], what: str, idle: bool
) -> None:
    directory = tmp_path / "data"
    storage = open_storage(directory, "test", "n1", MEMBERS)
    storage.write([Write(promise=Ballot(1, "n1"))])
    storage.verify_files()
    harm(directory / name)
    write = partial(storage.write, [Write(promise=Ballot(2, "n1"))])
    with pytest.raises(StorageError, match=f"{name} {what}.* while the replica ran.*kvstore member replace"):
        (storage.verify_files if idle else write)()
    with pytest.raises(StorageError, match="has failed"):
        storage.write([Write(promise=Ballot(3, "n1"))])
    storage.close()


def test_the_data_of_another_replica_that_took_the_place_is_left_alone(tmp_path: Path) -> None:
    """SQLite removes the write-ahead log at its path when it closes a database."""
    directory = tmp_path / "data"
    storage = open_storage(directory, "test", "n1", MEMBERS)
    storage.write([Write(promise=Ballot(1, "n1"))])
    directory.rename(tmp_path / "aside")
    other = open_storage(directory, "test", "n1", MEMBERS)
    other.write([Write(promise=Ballot(7, "n1"))])
    with pytest.raises(StorageError, match="was replaced by another file"):
        storage.write([Write(promise=Ballot(2, "n1"))])
    storage.close()
    other.write([Write(promise=Ballot(8, "n1"))])
    other.close()
    again = open_storage(directory, "test", "n1", MEMBERS)
    assert again.recovered().promised == Ballot(8, "n1")
    again.close()
    back = open_storage(tmp_path / "aside", "test", "n1", MEMBERS)
    assert back.recovered().promised == Ballot(2, "n1"), "what was stored before it ended is there"
    back.close()
