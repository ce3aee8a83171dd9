from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.sqlite import SqliteStorage, open_storage
from tests.unit.storage.numbered_writes import MEMBERS


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def sqlite(directory: Path) -> Iterator[SqliteStorage]:
    storage = open_storage(directory, "test", "n1", MEMBERS)
    yield storage
    storage.close()
