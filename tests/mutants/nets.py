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
    return tuple(f"tests/unit/kvstore/test_{name}.py" for name in names)


_NODE = _of_kvstore("node", "node_reads", "node_state", "node_members", "queries", "proposals", "state_machine")
_STATE = _of_kvstore("applier", "checkpointer", "retention", "transfer", "node_state", "node", "backup_hold")
_MEMBERS = _of_kvstore("members", "membership_manager", "node_members", "state_machine")
_LINKS = (
    "tests/unit/kvstore/peers/test_handshake.py",
    "tests/unit/kvstore/peers/test_send_queue.py",
    "tests/unit/kvstore/peers",
)
_COMMANDS = _of_kvstore("transactions", "leasing", "once", "expiry")
_UNIT_TESTS = {
    "paxos": ("tests/unit/paxos", *_NODE[:2]),
    "storage": ("tests/unit/storage",),
    "storage/marks.py": ("tests/unit/storage/test_state.py", "tests/unit/storage/test_sqlite_state.py"),
    "storage/revisions.py": ("tests/unit/storage/test_state.py", "tests/unit/storage/test_sqlite_state.py"),
    "storage/generation.py": ("tests/unit/storage/test_state.py", "tests/unit/storage/test_sqlite_state.py"),
    "storage/compaction.py": ("tests/unit/storage/test_sqlite_state.py", "tests/unit/storage/test_crash_state.py"),
    "kvstore/replica/node.py": (
        *_NODE,
        "tests/unit/kvstore/replica/test_backup_hold.py",
        "tests/unit/kvstore/replica/test_divergence.py",
    ),
    "kvstore/replica/snapshot_receive.py": (*_NODE, *_STATE),
    "kvstore/replica/read_queue.py": _NODE,
    "kvstore/replica/proposal_queue.py": _NODE,
    "kvstore/state_machine/state_machine.py": (*_NODE, *_STATE[:2], *_COMMANDS),
    "kvstore/replica/applier.py": _STATE,
    "kvstore/state_machine/history.py": ("tests/unit/kvstore/state_machine/test_history.py",),
    "kvstore/state_machine/transactions.py": (*_COMMANDS, "tests/unit/kvstore/server/http/test_locks.py"),
    "kvstore/state_machine/leases.py": _COMMANDS,
    "kvstore/state_machine/lease_index.py": _COMMANDS,
    "kvstore/state_machine/idempotency.py": _COMMANDS,
    "kvstore/replica/lease_expiry.py": ("tests/unit/kvstore/replica/test_lease_expiry.py",),
    "kvstore/replica/checkpointer.py": _STATE,
    "kvstore/replica/retention.py": _STATE,
    "kvstore/replica/snapshot_send.py": _STATE,
    "kvstore/api/membership.py": _MEMBERS,
    "kvstore/replica/membership_manager.py": _MEMBERS,
    "kvstore/replica/divergence.py": (
        "tests/unit/kvstore/replica/test_divergence.py",
        "tests/unit/kvstore/replica/test_node_state.py",
    ),
    "kvstore/peers/handshake.py": _LINKS,
    "kvstore/peers/send_queue.py": _LINKS,
    "kvstore/peers/connection.py": _LINKS,
    "kvstore/peers/transport.py": _LINKS,
    "kvstore/server/event_loop.py": ("tests/unit/kvstore/server/test_event_loop.py",),
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
