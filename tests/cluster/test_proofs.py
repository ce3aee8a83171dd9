"""The benches that count what must not be lost, doubled or torn, in short: see docs/testing.md for the long runs."""

import asyncio
from pathlib import Path

import pytest

from tests.torture import counter, full_speed, listing
from tests.torture.watching.command import measure as watched

pytestmark = pytest.mark.cluster


def test_each_increment_is_done_once_though_leaders_die(tmp_path: Path) -> None:
    found = asyncio.run(counter.measure(tmp_path, increments=200, kills=2, clients=4, with_key=True))
    assert (found.final, found.done, found.unknown) == (200, 200, 0)


def test_every_watcher_is_told_every_change_once_though_leaders_die(tmp_path: Path) -> None:
    found = asyncio.run(watched(tmp_path, watchers=50, rate=200, kills=2, seconds=1))
    assert found.complete, (found.judgement, found.listed)
    assert found.resumed > 0
    assert found.judgement.events == 50 * found.judgement.changes > 0


def test_a_list_is_all_keys_as_of_one_revision_while_clients_write(tmp_path: Path) -> None:
    asked = listing.measure(tmp_path, keys=5000, value_bytes=20, rate=500, lists=2, seconds=1, say=lambda _: None)
    found = asyncio.run(asked)
    assert found.sound, [each.wrong for each in found.lists]
    assert found.lists[0].keys == 5000 + listing.WRITTEN_KEYS
    assert found.refused == 0


def test_the_answers_at_full_speed_are_linearizable(tmp_path: Path) -> None:
    found = asyncio.run(full_speed.measure(tmp_path, connections=16, keys=20, reads=50, seconds=1.0))
    assert found.linearizable, found.judgement
    assert found.judgement.keys == 20
    assert not found.judgement.silent
