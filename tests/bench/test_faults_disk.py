"""strace on a process of our own, which ends when its sync fails, as a replica does."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.faults.disk import SYNCS, Tampering, why_not

SYNCER = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
print("syncing", flush=True)
while True:
    try:
        os.fdatasync(file)
    except OSError as error:
        sys.exit(error.errno)
"""
EIO = 5

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def test_without_strace_the_reason_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "apt install strace" in asyncio.run(why_not())


def syncer(directory: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", SYNCER, str(directory / "file")], stdout=subprocess.PIPE)


@needs_strace
def test_syncs_of_a_running_process_fail_and_are_counted(tmp_path: Path) -> None:
    if why := asyncio.run(why_not()):
        pytest.skip(why)
    with syncer(tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"syncing\n"
        tampering = Tampering(process.pid, SYNCS, "error=EIO", tmp_path / "syncer.strace")
        assert asyncio.run(tampering.attach()) == ""
        assert process.wait(30) == EIO
        tampering.detach()
        assert tampering.injected > 0


@needs_strace
def test_a_process_that_is_let_go_runs_on(tmp_path: Path) -> None:
    if why := asyncio.run(why_not()):
        pytest.skip(why)
    with syncer(tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"syncing\n"
        tampering = Tampering(process.pid, SYNCS, "delay_enter=1000", tmp_path / "syncer.strace")
        assert asyncio.run(tampering.attach()) == ""
        while not tampering.injected:
            pass
        tampering.detach()
        assert process.poll() is None
        process.kill()


@needs_strace
def test_what_keeps_strace_off_is_told(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
        tampering = Tampering(gone.pid, SYNCS, "error=EIO", tmp_path / "gone.strace")
        assert "No such process" in asyncio.run(tampering.attach())
        tampering.detach()
        assert tampering.injected == 0
