"""strace on a process of our own, which ends when its sync fails, as a replica does."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.faults.disk import SYNCS, SyscallInjection, why_not

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


@pytest.fixture
def syncer(tmp_path: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that syncs a file again and again, where strace may attach to one."""
    if why := asyncio.run(why_not()):
        pytest.skip(why)
    with subprocess.Popen([sys.executable, "-c", SYNCER, str(tmp_path / "file")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"syncing\n"
        yield process
        process.kill()


@needs_strace
def test_syncs_of_a_running_process_fail_and_are_counted(syncer: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    injection = SyscallInjection(syncer.pid, SYNCS, "error=EIO", tmp_path / "syncer.strace")
    assert asyncio.run(injection.attach()) == ""
    assert syncer.wait(30) == EIO
    injection.detach()
    assert injection.count > 0


@needs_strace
def test_a_process_runs_on_after_detach(syncer: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    injection = SyscallInjection(syncer.pid, SYNCS, "delay_enter=1000", tmp_path / "syncer.strace")
    assert asyncio.run(injection.attach()) == ""
    while not injection.count:
        pass
    injection.detach()
    assert syncer.poll() is None


@needs_strace
def test_the_reason_why_strace_cannot_attach_is_returned(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
        injection = SyscallInjection(gone.pid, SYNCS, "error=EIO", tmp_path / "gone.strace")
        assert "No such process" in asyncio.run(injection.attach())
        injection.detach()
        assert injection.count == 0
