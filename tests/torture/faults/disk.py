"""Disk faults of one replica: strace, attached to the running process, changes the results of system calls.

https://man7.org/linux/man-pages/man1/strace.1.html, section "Tampering".
"""

import asyncio
import shutil
import signal
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from kvstore.testing.process_cluster import POLL_S

ATTACH_S = 10.0
"""Time for strace to attach, which usually takes milliseconds."""

SYNCS = "fdatasync,fsync"
WRITES = "pwrite64"
"""The system call by which SQLite writes its files."""


class SyscallInjection:
    """Injection into the system calls `calls` of a process, from `attach` to `detach`.

    `how` is an argument of strace: `error=EIO`, or `delay_enter=50000` in microseconds. strace writes to `log`.
    """

    def __init__(self, process_id: int, calls: str, how: str, log: Path) -> None:
        self._log = log
        self._errors = log.with_suffix(".err")
        with self._errors.open("wb") as errors:
            self._strace = subprocess.Popen(
                [
                    *("strace", "-f", "-p", str(process_id), "-o", str(log)),
                    *("-e", f"trace={calls}", "-e", f"inject={calls}:{how}", "-e", "signal=none"),
                ],
                stdin=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )

    async def attach(self) -> str:
        """Wait until strace is attached; return an empty string, or the reason why strace could not attach."""
        deadline = time.monotonic() + ATTACH_S
        while "attached" not in self._output():
            if self._strace.poll() is not None or time.monotonic() > deadline:
                return self._output().strip() or "strace printed nothing"
            await asyncio.sleep(POLL_S / 5)
        return ""

    def detach(self) -> None:
        """End the injection; the process goes on."""
        self._strace.send_signal(signal.SIGINT)
        self._strace.wait()

    @property
    def count(self) -> int:
        """Number of changed system calls so far."""
        if not self._log.exists():
            return 0
        text = self._log.read_text(errors="replace")
        return text.count("(INJECTED)") + text.count("(DELAYED)")

    def _output(self) -> str:
        return self._errors.read_text(errors="replace")


async def why_not() -> str:
    """Return why disk faults are impossible here, or an empty string, after trying strace on a child process."""
    if shutil.which("strace") is None:
        return "strace is not installed: run apt install strace"
    sleeper = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220 - starts at once; from POSIX
    try:
        with TemporaryDirectory() as directory:
            injection = SyscallInjection(sleeper.pid, SYNCS, "error=EIO", Path(directory) / "probe.strace")
            reason = await injection.attach()
            injection.detach()
    finally:
        sleeper.kill()
        sleeper.wait()
    return reason and f"strace may not attach to a process ({reason}): run as root, or allow ptrace"
