from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.sqlite import SqliteStorage, open_storage


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def sqlite(directory: Path) -> Iterator[SqliteStorage]:
    storage = open_storage(directory, "test", "n1")
    yield storage
    storage.close()
