"""CPU time and memory of processes, from `/proc`: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError

_UTIME, _STIME, _RSS = 14, 15, 24
_AFTER_NAME = 3
"""Number of the first field after the process name, which may contain spaces and ends at the last parenthesis."""


class ProcessUsage(NamedTuple):
    """CPU time since the start of a process, in user and kernel mode, and resident memory."""

    cpu_s: float
    resident_bytes: int


def check_platform() -> None:
    """Raise BenchError where there is no `/proc`."""
    if sys.platform != "linux":
        raise BenchError("CPU time and memory are read from /proc: run this on Linux")


def parse_stat(stat: str) -> tuple[int, int]:
    """Return CPU clock ticks and resident pages from the content of `/proc/PID/stat`."""
    fields = stat[stat.rindex(")") + 1 :].split()
    cpu, system, pages = (int(fields[number - _AFTER_NAME]) for number in (_UTIME, _STIME, _RSS))
    return cpu + system, pages


def thread_cpu_s(process_id: int) -> dict[int, float]:
    """Return the CPU seconds of each thread of a process by its id. Raises OSError when the process has ended."""
    found = {}
    for task in Path(f"/proc/{process_id}/task").iterdir():
        with suppress(FileNotFoundError):  # the thread has ended meanwhile
            found[int(task.name)] = parse_stat((task / "stat").read_text())[0] / os.sysconf("SC_CLK_TCK")
    return found


def usage(process_ids: Iterable[int]) -> ProcessUsage:
    """Return the usage of all these processes together. Raises OSError when one of them has ended."""
    stats = [parse_stat(Path(f"/proc/{process}/stat").read_text()) for process in process_ids]
    ticks = sum(ticks for ticks, _ in stats)
    pages = sum(pages for _, pages in stats)
    return ProcessUsage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))
