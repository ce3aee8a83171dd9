"""What only real processes can show: a kill at any point, syncs that are made, and syncs that fail."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.base import StorageError
from storage.sqlite import open_storage
from tests.unit.storage.numbered_writes import MEMBERS, entry

ROOT = Path(__file__).parents[3]
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def command(directory: Path, count: int, size: int) -> list[str]:
    return [sys.executable, "-m", "tests.unit.storage.numbered_writes", str(directory), str(count), str(size)]


def reports(child: subprocess.Popen[str]) -> Iterator[str]:
    assert child.stdout is not None
    return map(str.strip, child.stdout)


def start(directory: Path, count: int, size: int) -> subprocess.Popen[str]:
    return subprocess.Popen(command(directory, count, size), cwd=ROOT, stdout=subprocess.PIPE, text=True)


def kill(child: subprocess.Popen[str]) -> list[str]:
    """Kill it, and give what it had still reported by then."""
    os.kill(child.pid, signal.SIGKILL)
    rest = list(reports(child))
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    return rest


def assert_prefix(directory: Path, reported: int, size: int) -> int:
    """All that was reported is there, and what is there is the first t transactions, each whole. Returns t."""
    storage = open_storage(directory, "test", "n1", MEMBERS)
    recovered = storage.recovered()
    stored = recovered.promised.round
    assert reported <= stored <= reported + 1
    assert (recovered.chosen, recovered.last) == (2 * stored, 2 * stored)
    assert storage.read(1, 1 << 40, 1 << 40) == [entry(slot, size) for slot in range(1, 2 * stored + 1)]
    storage.close()
    return stored


@pytest.mark.parametrize("size", [80, 80_000], ids=["small", "with checkpoints"])
def test_what_was_reported_durable_survives_a_kill(directory: Path, size: int) -> None:
    """Rule 1, again and again on the same files, at points of the kernel's choosing."""
    stored = 0
    for reached in (1, 20, 33, 50):
        with start(directory, 1_000_000, size) as child:
            lines = reports(child)
            assert next(lines) == "open"
            reported = [int(line) for line in itertools.islice(lines, reached)]
            reported += [int(line) for line in kill(child)]
        assert reported == list(range(stored + 1, stored + 1 + len(reported)))
        stored = assert_prefix(directory, reported[-1], size)


def test_a_second_process_is_told_who_has_the_directory_until_that_one_is_gone(directory: Path) -> None:
    """Rule 28."""
    with start(directory, 1_000_000, 80) as child:
        assert next(reports(child)) == "open"
        with pytest.raises(
            StorageError, match=f"{directory} is in use by process {child.pid}, node n1 of cluster test"
        ):
            open_storage(directory, "test", "n1", MEMBERS)
        kill(child)
    open_storage(directory, "test", "n1", MEMBERS).close()


def traced(directory: Path, count: int, size: int, *options: str) -> tuple[list[str], list[str]]:
    """What the child reported, and the traced system calls."""
    trace = directory.parent / "trace"
    strace = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync,write", "-o", str(trace), *options]
    child = subprocess.run(
        strace + command(directory, count, size), cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return child.stdout.splitlines(), trace.read_text().splitlines()


def syncs_before_each_report(calls: list[str]) -> dict[str, list[str]]:
    """For each line that was reported, the files that were synced since the line before it."""
    synced: dict[str, list[str]] = {}
    since: list[str] = []
    for call in calls:
        if done := re.search(r"\b(?:fsync|fdatasync)\(\d+<(.*?)>\)\s+= 0", call):
            since.append(done[1])
        elif said := re.search(r'\bwrite\(1<.*?>, "(\w+)\\n"', call):
            synced[said[1]], since = since, []
    return synced


@needs_strace
def test_each_write_is_synced_before_it_returns(directory: Path) -> None:
    """Rule 1; and the directory entries that lead to the files are synced, too."""
    _, calls = traced(directory, 5, 80)
    synced = syncs_before_each_report(calls)
    assert list(synced) == ["open", "1", "2", "3", "4", "5", "votes", "end"]
    assert {str(directory.parent), str(directory), str(directory / "kvstore.db-wal")} <= set(synced["open"])
    for number in "12345":
        assert str(directory / "kvstore.db-wal") in synced[number]
    assert synced["votes"] == []
    assert str(directory / "kvstore.db") in synced["end"]


@needs_strace
def test_what_a_killed_process_left_is_checkpointed_before_anything_rests_on_it(directory: Path) -> None:
    """Rule 4."""
    with start(directory, 1_000_000, 80) as child:
        lines = reports(child)
        assert [next(lines), next(lines)] == ["open", "1"]
        kill(child)
    _, calls = traced(directory, 1, 80)
    synced = next(iter(syncs_before_each_report(calls).values()))
    log, database = str(directory / "kvstore.db-wal"), str(directory / "kvstore.db")
    assert synced.index(log) < synced.index(database) < len(synced) - 1 - synced[::-1].index(log)


@needs_strace
@pytest.mark.parametrize(
    ("file", "nth", "size"),
    [("kvstore.db-wal", 2, 80), ("kvstore.db-wal", 5, 80), ("kvstore.db", 1, 80_000)],
    ids=["at opening", "in a commit", "in a checkpoint"],
)
def test_a_sync_that_fails_ends_it_and_nothing_is_reported_any_more(
    directory: Path, file: str, nth: int, size: int
) -> None:
    """Rule 4: without a retry, although the next sync would succeed."""
    with start(directory, 1, size) as child:
        assert list(reports(child)) == ["open", "1", "votes", "end"]
    fault = f"inject=fdatasync:error=EIO:when={nth}"
    lines, calls = traced(directory, 100, size, "-P", str(directory / file), "-e", fault)
    assert sum("INJECTED" in call for call in calls) == 1
    *before, last = lines
    assert "disk I/O error; the disk failed: see the kernel log" in last
    assert before == [] if nth == 2 else before[0] == "open" and 2 < len(before) < 100
    assert_prefix(directory, len(before[1:]) + 1, size)
