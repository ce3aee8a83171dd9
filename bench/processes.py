"""What processes use, from `/proc`: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError

_UTIME, _STIME, _RSS = 14, 15, 24
_AFTER_NAME = 3
"""Fields are numbered from 1; the second one, the name, may hold spaces and ends in the last parenthesis."""


class Usage(NamedTuple):
    """CPU seconds since the start, in user and kernel mode, and resident memory now."""

    cpu_s: float
    resident_bytes: int


def check_platform() -> None:
    """Raises BenchError where there is no `/proc`."""
    if sys.platform != "linux":
        raise BenchError("the CPU time of the servers is read from /proc: run this on Linux")


def parse_stat(stat: str) -> tuple[int, int]:
    """Clock ticks of CPU and resident pages out of the content of `/proc/PID/stat`."""
    fields = stat[stat.rindex(")") + 1 :].split()
    cpu, system, pages = (int(fields[number - _AFTER_NAME]) for number in (_UTIME, _STIME, _RSS))
    return cpu + system, pages


def thread_cpu_s(process_id: int) -> dict[int, float]:
    """CPU seconds of each thread of a process that is there, by its id. Raises OSError when the process is gone."""
    found = {}
    for task in Path(f"/proc/{process_id}/task").iterdir():
        with suppress(FileNotFoundError):  # it has ended since
            found[int(task.name)] = parse_stat((task / "stat").read_text())[0] / os.sysconf("SC_CLK_TCK")
    return found


def usage(process_ids: Iterable[int]) -> Usage:
    """All of these processes together. Raises OSError when one of them is gone."""
    stats = [parse_stat(Path(f"/proc/{process}/stat").read_text()) for process in process_ids]
    ticks = sum(ticks for ticks, _ in stats)
    pages = sum(pages for _, pages in stats)
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))
