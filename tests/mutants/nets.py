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

_PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-m", "not cluster")


def _of_kvstore(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/kvstore/test_{name}.py" for name in names)


_NODE = _of_kvstore("node", "node_reads", "node_state", "node_members", "queries", "submissions", "state_machine")
_STATE = _of_kvstore("ledger", "keeper", "retention", "transfer", "node_state", "node", "backup_hold")
_MEMBERS = _of_kvstore("members", "stewardship", "node_members", "state_machine")
_LINKS = ("tests/kvstore/test_handshake.py", "tests/kvstore/test_frames.py", "tests/kvstore/peer_links")
_COMMANDS = _of_kvstore("transactions", "leasing", "once", "expiry")
_UNIT_TESTS = {
    "paxos": ("tests/paxos", *_NODE[:2]),
    "storage": ("tests/storage",),
    "storage/marks.py": ("tests/storage/test_state.py", "tests/storage/test_sqlite_state.py"),
    "storage/revisions.py": ("tests/storage/test_state.py", "tests/storage/test_sqlite_state.py"),
    "storage/generation.py": ("tests/storage/test_state.py", "tests/storage/test_sqlite_state.py"),
    "storage/compaction.py": ("tests/storage/test_sqlite_state.py", "tests/storage/test_crash_state.py"),
    "kvstore/node.py": (*_NODE, "tests/kvstore/test_backup_hold.py", "tests/kvstore/test_comparison.py"),
    "kvstore/state_fetch.py": (*_NODE, *_STATE),
    "kvstore/queries.py": _NODE,
    "kvstore/submissions.py": _NODE,
    "kvstore/state_machine.py": (*_NODE, *_STATE[:2], *_COMMANDS),
    "kvstore/ledger.py": _STATE,
    "kvstore/past.py": ("tests/kvstore/test_past.py",),
    "kvstore/transactions.py": (*_COMMANDS, "tests/kvstore/http/test_locks.py"),
    "kvstore/leasing.py": _COMMANDS,
    "kvstore/holdings.py": _COMMANDS,
    "kvstore/once.py": _COMMANDS,
    "kvstore/expiry.py": ("tests/kvstore/test_expiry.py",),
    "kvstore/keeper.py": _STATE,
    "kvstore/retention.py": _STATE,
    "kvstore/transfer.py": _STATE,
    "kvstore/members.py": _MEMBERS,
    "kvstore/stewardship.py": _MEMBERS,
    "kvstore/comparison.py": ("tests/kvstore/test_comparison.py", "tests/kvstore/test_node_state.py"),
    "kvstore/handshake.py": _LINKS,
    "kvstore/frames.py": _LINKS,
    "kvstore/links.py": _LINKS,
    "kvstore/transport.py": _LINKS,
    "kvstore/runtime.py": ("tests/kvstore/test_runtime.py",),
}
"""The tests that are about a file or a room, so that not all of them run for each mutant."""
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


def casts(mutant: Mutant, seeds: int) -> list[Cast]:
    """What to cast for this mutant, in order."""
    room = mutant.path.partition("/")[0]
    tests = _UNIT_TESTS.get(mutant.path) or _UNIT_TESTS[room]
    every = (
        Cast(Net.UNIT, (*_PYTEST, *tests)),
        Cast(Net.SIMULATION, ("-m", "tests.mutants.seeds", str(seeds))),
        Cast(Net.EXPLORATION, ("-m", "tests.exploration", "--quick")),
    )
    return [cast for cast in every if cast.net in mutant.nets]


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
    return Catch(by, time.monotonic() - start)


def _culprit(output: str) -> str:
    lines = output.strip().splitlines() or ["no output"]
    found = next(filter(None, map(_NAMED.match, lines)), None)
    return (next(filter(None, found.groups())) if found else lines[-1])[:_MESSAGE_CHARS]
