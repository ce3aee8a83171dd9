"""A crash at any point of the life of a state leaves what was there before a transaction, or after it."""

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from storage import compaction, maintenance, schema, wal
from storage import sqlite as module
from storage.base import AppliedProgress, StorageError, Truncation
from storage.directory import DATA_FILE
from storage.memory import MemoryStorage
from storage.sqlite import open_storage
from tests.unit.storage.numbered_writes import MEMBERS
from tests.unit.storage.states import entry, numbered, shown
from tests.unit.storage.version_1 import make_version_1

ROOT = Path(__file__).parents[3]
LOG = DATA_FILE + "-wal"
HEADER, FRAME = 32, 24 + 4096


def opened(directory: Path) -> dict[str, Any]:
    with closing(open_storage(directory, "test", "n1", MEMBERS)) as storage:
        return shown(storage)


def crash_image(directory: Path, image: Path, log_bytes: int) -> Path:
    """What a crash leaves when so much of the write-ahead log had reached the disk."""
    shutil.rmtree(image, ignore_errors=True)
    shutil.copytree(directory, image)
    with (image / LOG).open("r+b") as log:
        log.truncate(log_bytes)
    return image


@pytest.mark.parametrize("slice_units", [2, 512], ids=["small slices", "slices as they are"])
def test_every_frame_may_be_the_last_one(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slice_units: int
) -> None:
    """Applying, cutting, compacting, staging, installing and tidying. Nothing is put into the database on the way, and
    so the log has every transaction; cut anywhere, it holds those that were whole."""
    monkeypatch.setattr(module, "CHECKPOINT_BYTES", 1 << 40)
    monkeypatch.setattr(module, "_SLICE_UNITS", slice_units)
    monkeypatch.setattr(compaction, "PIECE_UNITS", slice_units // 2)
    monkeypatch.setattr(maintenance, "BACKLOG_BYTES", 20 * slice_units)
    storage = open_storage(directory, "test", "n1", MEMBERS)
    model = MemoryStorage("test", "n1")
    expected = [(wal.length(directory / LOG), shown(model.reopen()))]
    for writes in islice(numbered(), 32):
        storage.write(writes)
        model.write(writes)
        expected.append((wal.length(directory / LOG), shown(model.reopen())))
        storage.maintain()
    end = wal.length(directory / LOG)
    whole = crash_image(directory, tmp_path / "whole", HEADER + end)
    storage.close()
    begun = expected[0][0]
    for at in range(begun, end + 1, FRAME):
        before = [state for length, state in expected if length <= at][-1]
        assert opened(crash_image(whole, tmp_path / "image", HEADER + at)) == before


def test_a_kill_leaves_what_was_reported_durable(directory: Path) -> None:
    """Again and again on the same files, at points of the kernel's choosing, with checkpoints."""
    command = [sys.executable, "-m", "tests.unit.storage.state_writes", str(directory), "8000"]
    stored = 0
    model, script = MemoryStorage("test", "n1"), numbered(8000)
    for reached in (1, 9, 14, 33, 60):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines = map(str.strip, child.stdout)
            assert next(lines) == "open"
            reported = [int(line) for line in itertools.islice(lines, reached)]
            os.kill(child.pid, signal.SIGKILL)
            reported += [int(line) for line in lines]
        storage = open_storage(directory, "test", "n1", MEMBERS)
        found = storage.recovered().promised.round
        assert reported[-1] <= found <= reported[-1] + 1
        for writes in islice(script, found - stored):
            model.write(writes)
        stored = found
        assert shown(storage) == shown(model.reopen())
        storage.close()


def test_a_crash_in_the_midst_of_an_upgrade_leaves_the_older_version(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next opening upgrades it."""
    make_version_1(directory)
    shutil.copytree(directory, tmp_path / "upgraded")
    storage = open_storage(tmp_path / "upgraded", "test", "n1", MEMBERS)
    end = wal.length(tmp_path / "upgraded" / LOG)
    whole = crash_image(tmp_path / "upgraded", tmp_path / "whole", HEADER + end)
    storage.close()
    shutil.copy(directory / "lock", whole / "lock")
    assert end > 5 * FRAME
    for at in range(0, end + 1, FRAME):
        image = crash_image(whole, tmp_path / "image", HEADER + at)
        with closing(sqlite3.connect(image / DATA_FILE)) as tool:
            version = tool.execute("PRAGMA user_version").fetchone()[0]
            boot = tool.execute("SELECT boot FROM identity").fetchone()[0]
            assert (version, boot) == ((schema.VERSION, 6) if at == end else (1, 5))
        found = opened(image)
        assert found["log"] == [entry(slot) for slot in (1, 2, 3, 5)]
        assert (found["hard_state"][3], found["progress"]) == (Truncation(), (AppliedProgress(), AppliedProgress()))


def test_an_upgrade_that_fails_leaves_the_older_version(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_version_1(directory)

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("it fails")

    with monkeypatch.context() as failing:
        failing.setattr(schema, "insert_first", fail)
        with pytest.raises(StorageError, match="it fails"):
            open_storage(directory, "test", "n1", MEMBERS)
    with closing(sqlite3.connect(directory / DATA_FILE)) as tool:
        assert tool.execute("PRAGMA user_version").fetchone()[0] == 1
    assert opened(directory)["log"] == [entry(slot) for slot in (1, 2, 3, 5)]
