"""Rule 28: the starts on the data are told apart, also on copies of it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage import lineage as module
from storage.base import DamagedError, Recovered
from storage.directory import DATA_FILE
from storage.inspection import inspect
from storage.lineage import Lineage
from storage.sqlite import open_storage
from tests.torture.files import downgrade
from tests.unit.storage.numbered_writes import MEMBERS


def start(directory: Path) -> Recovered:
    """Start on the data, and stop."""
    storage = open_storage(directory, "test", "n1", MEMBERS)
    storage.close()
    return storage.recovered()


def test_each_start_is_included_in_all_later_ones(directory: Path) -> None:
    starts = [start(directory) for _ in range(4)]
    assert len({each.lineage.life for each in starts}) == 4
    for number, each in enumerate(starts, 1):
        included = [each.lineage.includes(other.identity.boot, other.lineage.life) for other in starts]
        assert included == [index < number for index in range(4)]


def test_rule_28_a_copy_never_includes_the_starts_that_it_missed(directory: Path, tmp_path: Path) -> None:
    before = start(directory)
    shutil.copytree(directory, tmp_path / "copy")
    missed = start(directory)
    for boot in range(2, 6):
        copy = start(tmp_path / "copy")
        assert copy.identity.boot == boot
        assert copy.lineage.includes(1, before.lineage.life)
        assert not copy.lineage.includes(2, missed.lineage.life)


def test_the_oldest_starts_are_forgotten_and_count_as_included(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STARTS", 3)
    lineage = Lineage()
    for boot in range(1, 6):
        lineage = lineage.after(boot, boot * 11)
    assert (lineage.first, len(lineage.lives)) == (3, 24)
    assert [lineage.includes(boot, boot * 11) for boot in range(1, 8)] == [True] * 5 + [False] * 2
    assert [lineage.includes(boot, 7) for boot in range(1, 8)] == [True] * 2 + [False] * 5


def test_data_of_an_earlier_release_includes_every_start_before_the_upgrade(directory: Path) -> None:
    for _ in range(2):
        start(directory)
    downgrade(directory)
    upgraded = start(directory)
    assert upgraded.lineage.first == upgraded.identity.boot == 3
    assert [upgraded.lineage.includes(boot, 7) for boot in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize("damage", ["lineage SET lives = x'0000000000000001'", "seen SET starts = '[[1,2,3]]'"])
def test_damage_to_the_record_of_starts_is_found(directory: Path, damage: str) -> None:
    start(directory)
    with closing(sqlite3.connect(directory / DATA_FILE, isolation_level=None)) as connection:
        connection.execute(f"UPDATE {damage}")
    table = damage.partition(" ")[0]
    with pytest.raises(DamagedError, match=f"row of table {table} fails its checksum"), inspect(directory) as found:
        found.storage(found.identity())
    with pytest.raises(DamagedError, match=f"row of table {table} fails its checksum"):
        start(directory)
