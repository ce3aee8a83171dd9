"""The nets: commands that end well on sound code and should not on a mutant. Each runs in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from tests.mutants.mutant import Mutant, Net
from tests.mutants.sight import blindness

_PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-m", "not cluster")


_UNIT_TESTS = {
    "paxos/": ("tests/unit/paxos", "tests/unit/kvstore/replica"),
    "storage/": ("tests/unit/storage",),
    "kvstore/api/": ("tests/unit/kvstore/api", "tests/unit/kvstore/replica"),
    "kvstore/state_machine/": (
        "tests/unit/kvstore/state_machine",
        "tests/unit/kvstore/replica",
        "tests/unit/kvstore/server/http/test_locks.py",
    ),
    "kvstore/backup/": ("tests/unit/kvstore/backup",),
    "kvstore/replica/": ("tests/unit/kvstore/replica",),
    "kvstore/peers/": ("tests/unit/kvstore/peers",),
    "kvstore/server/http/provisional.py": ("tests/unit/kvstore/server/http/test_provisional.py",),
    "kvstore/server/http/event_pages.py": (
        "tests/unit/kvstore/server/http/test_event_pages.py",
        "tests/unit/kvstore/server/http/test_events.py",
        "tests/unit/kvstore/server/http/test_watch.py",
    ),
    "kvstore/server/http/feed.py": (
        "tests/unit/kvstore/server/http/test_feed.py",
        "tests/unit/kvstore/server/http/test_events.py",
        "tests/unit/kvstore/server/http/test_watch.py",
    ),
    "kvstore/server/": ("tests/unit/kvstore/server/test_event_loop.py",),
}
"""The unit tests that run for a mutant of each folder."""
_NAMED = re.compile(
    r"(?:FAILED|ERROR) \S+?::(\S+)|(seed \d+: .*)|([a-z][a-z ,-]*[a-z]) +\d.* violation$| *(NOT REACHED: [^.]*)"
)
"""How a net names what it caught: a test, a seed, a set-up or a goal."""
_MESSAGE_CHARS = 100


class Cast(msgspec.Struct, frozen=True):
    """One command of a net."""

    net: Net
    arguments: tuple[str, ...]


class Catch(msgspec.Struct, frozen=True):
    """What a cast brought. `by`: the seed, test or schedule that failed, "" if nothing did."""

    by: str
    seconds: float


def casts(mutant: Mutant, seeds: int, only: frozenset[Net] = frozenset()) -> list[Cast]:
    """What to cast for this mutant, in order. With `only`, these nets alone are cast, and the
    simulation also for a mutant that another net is there for, unless no simulation could see it."""
    tests = next(tests for folder, tests in _UNIT_TESTS.items() if mutant.path.startswith(folder))
    every = (
        Cast(Net.UNIT, (*_PYTEST, *tests)),
        Cast(Net.SIMULATION, ("-m", "tests.mutants.seeds", str(seeds))),
        Cast(Net.EXPLORATION, ("-m", "tests.exploration", "--quick")),
    )
    if not only:
        return [cast for cast in every if cast.net in mutant.nets]
    seeing = mutant.nets if blindness(mutant) else mutant.nets | {Net.SIMULATION}
    return [cast for cast in every if cast.net in seeing & only]


def run(cast: Cast, root: Path, limit_s: float | None) -> Catch:
    """Cast it in the tree at `root`. Without an end within `limit_s` it is ended, and has caught something."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *cast.arguments],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # what it started ends with it
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
        by = _culprit(output) if process.returncode else ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        by = "no end"
    except BaseException:  # the end of this process ends the command, too
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Catch(by, time.monotonic() - start)


def _culprit(output: str) -> str:
    lines = output.strip().splitlines() or ["no output"]
    found = next(filter(None, map(_NAMED.match, lines)), None)
    return (next(filter(None, found.groups())) if found else lines[-1])[:_MESSAGE_CHARS]
