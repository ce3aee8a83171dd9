"""The long runs of `tests/torture` that count events, increments and keys, in short."""

import asyncio
from pathlib import Path

import pytest

from tests.torture import counter, full_speed, listing
from tests.torture.histories import run as histories
from tests.torture.watching import command as watching

pytestmark = pytest.mark.cluster


@pytest.mark.slow
def test_each_increment_happens_exactly_once_while_leaders_are_killed(tmp_path: Path) -> None:
    result = asyncio.run(counter.measure(tmp_path, increments=200, kills=2, clients=4, with_key=True))
    assert (result.final, result.done, result.unknown) == (200, 200, 0)


def test_every_watcher_receives_every_change_once_while_leaders_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SETTLE_S", 0.1)  # only measured delays need longer
    result = asyncio.run(watching.measure(tmp_path, watchers=20, rate=100, kills=1, seconds=1))
    assert result.correct, (result.verdict, result.differing)
    assert result.resumed > 0
    assert result.verdict.events == 20 * result.verdict.changes > 0


def test_a_list_has_all_keys_at_one_revision_while_clients_write(tmp_path: Path) -> None:
    measuring = listing.measure(tmp_path, keys=5000, value_bytes=20, rate=500, lists=2, seconds=1, say=lambda _: None)
    result = asyncio.run(measuring)
    assert result.sound, [each.wrong for each in result.lists]
    assert result.lists[0].keys == 5000 + listing.WRITTEN_KEYS


def test_the_answers_at_full_speed_are_linearizable(tmp_path: Path) -> None:
    result = asyncio.run(full_speed.measure(tmp_path, connections=16, keys=20, reads=50, seconds=1.0))
    assert result.verdict.sound, result.verdict
    assert not result.verdict.unverified
    assert result.verdict.keys == 20


@pytest.mark.slow
def test_watches_reads_of_the_past_leases_and_locks_agree_while_replicas_fetch_snapshots(tmp_path: Path) -> None:
    result = asyncio.run(histories.measure(tmp_path, seconds=15, seed=1, say=lambda _: None))
    assert result.violations == []
    assert result.snapshots
