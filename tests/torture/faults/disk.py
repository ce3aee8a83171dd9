"""Faults of one replica's disk: strace, attached to the process that runs, changes what its system calls do.

https://man7.org/linux/man-pages/man1/strace.1.html, "Tampering".
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
"""strace attaches within milliseconds; the rest is for a busy machine."""

SYNCS = "fdatasync,fsync"
WRITES = "pwrite64"
"""What SQLite writes its files with."""


class Tampering:
    """System calls `calls` of a process with `how` done to them (`error=EIO`, `delay_enter=50000` in microseconds),
    from `attach` to `detach`. What was done is listed in `log`."""

    def __init__(self, process_id: int, calls: str, how: str, log: Path) -> None:
        self._log = log
        self._said = log.with_suffix(".err")
        with self._said.open("wb") as said:
            self._strace = subprocess.Popen(
                [
                    *("strace", "-f", "-p", str(process_id), "-o", str(log)),
                    *("-e", f"trace={calls}", "-e", f"inject={calls}:{how}", "-e", "signal=none"),
                ],
                stdin=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )

    async def attach(self) -> str:
        """Wait until it is attached. Gives why it could not, empty when it is."""
        deadline = time.monotonic() + ATTACH_S
        while "attached" not in self._words():
            if self._strace.poll() is not None or time.monotonic() > deadline:
                return self._words().strip() or "strace said nothing"
            await asyncio.sleep(POLL_S / 5)
        return ""

    def detach(self) -> None:
        """Let the process go, unharmed."""
        self._strace.send_signal(signal.SIGINT)
        self._strace.wait()

    @property
    def injected(self) -> int:
        """How many calls it changed so far."""
        if not self._log.exists():
            return 0
        text = self._log.read_text(errors="replace")
        return text.count("(INJECTED)") + text.count("(DELAYED)")

    def _words(self) -> str:
        return self._said.read_text(errors="replace")


async def why_not() -> str:
    """Why disks cannot be tampered with here, empty when they can: tried on a process of our own."""
    if shutil.which("strace") is None:
        return "strace is not installed: apt install strace"
    sleeper = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220 - starts at once; from POSIX
    try:
        with TemporaryDirectory() as directory:
            tampering = Tampering(sleeper.pid, SYNCS, "error=EIO", Path(directory) / "probe.strace")
            said = await tampering.attach()
            tampering.detach()
    finally:
        sleeper.kill()
        sleeper.wait()
    return said and f"strace may not attach to a process here ({said}): run as root, or allow ptrace"
