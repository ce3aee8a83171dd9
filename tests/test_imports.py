"""The import rules of docs/architecture.md, checked against the imports of every file."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
OURS = frozenset({"bench", "kvstore", "paxos", "storage"})
ASYNC = frozenset({"aiohttp", "asyncio", "uvloop"})
IMPURE = frozenset(
    {"multiprocessing", "os", "pathlib", "random", "selectors", "socket", "subprocess", "threading", "time"}
)


PURE = frozenset({"msgspec", "sortedcontainers"})
BELOW_REPLICA = ("kvstore.state_machine", "kvstore.api", "storage", "paxos.types")

REPLICA_PROCESS = (
    "kvstore.server.config",
    "kvstore.server.config_sources",
    "kvstore.server.output",
    "kvstore.server.process",
)
"""The modules that start a replica need no other part of the server."""

RNG_TYPE = "random.Random"
"""The type of a generator that is an argument. A pure module may name the type; only its caller makes a generator."""


class Rule(NamedTuple):
    """The imports that are allowed to the modules below `of`: ours, those of third parties, and exceptions to both."""

    of: str
    ours: frozenset[str]
    third: frozenset[str] | None
    """None allows every package that the project depends on."""
    never: frozenset[str]


RULES = [
    Rule("paxos.lecture", frozenset({"paxos"}), frozenset({"msgspec"}), ASYNC),
    Rule("paxos", frozenset({"paxos"}), frozenset({"msgspec"}), IMPURE | ASYNC | {"paxos.lecture"}),
    Rule(
        "storage",
        frozenset({"storage", "paxos.types", "paxos.ready"}),
        frozenset({"msgspec", "sqlite_utils"}),
        ASYNC | {"random", "socket"},
    ),
    Rule("kvstore.api", frozenset({"kvstore.api", "paxos.types", "paxos.configuration"}), PURE, IMPURE | ASYNC),
    Rule(
        "kvstore.state_machine",
        frozenset({"kvstore.state_machine", "kvstore.api", "storage.base", "paxos.types"}),
        PURE,
        IMPURE | ASYNC,
    ),
    Rule(
        "kvstore.replica",
        frozenset({"kvstore.replica", "kvstore.state_machine", "kvstore.api", "storage.base", "paxos"}),
        PURE,
        IMPURE | ASYNC | {"paxos.lecture"},
    ),
    Rule(
        "kvstore.peers",
        frozenset({"kvstore.peers", "kvstore.api", "paxos"}),
        PURE | {"tenacity"},
        frozenset({"paxos.lecture"}),
    ),
    Rule("kvstore.backup", frozenset({"kvstore.backup", "kvstore.replica", *BELOW_REPLICA}), None, ASYNC),
    Rule("kvstore.client", frozenset({"kvstore.client", "kvstore.backup.stream", "kvstore.api"}), None, frozenset()),
    Rule(
        "kvstore.server",
        frozenset({"kvstore.server", "kvstore.backup", "kvstore.replica", "kvstore.peers", *BELOW_REPLICA, "paxos"}),
        None,
        frozenset({"paxos.lecture", "aiohttp"}),
    ),
    Rule(
        "kvstore.testing",
        frozenset({"kvstore.testing", *REPLICA_PROCESS, "kvstore.client", "kvstore.api", "storage.base"}),
        None,
        frozenset(),
    ),
    Rule(
        "kvstore.cli",
        frozenset(
            {f"kvstore.{room}" for room in ("cli", "testing", "client", "backup", "api")}
            | {*REPLICA_PROCESS, "storage.base", "storage.directory"}
        ),
        None,
        frozenset(),
    ),
    Rule("kvstore", frozenset({"kvstore.cli"}), None, ASYNC),
    Rule(
        "bench",
        frozenset({"bench", "kvstore.cli", "kvstore.client", "kvstore.api", "kvstore.testing"}),
        None,
        frozenset(),
    ),
]
"""The first rule whose `of` is a prefix of a module's name applies to the module."""


def under(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is named in an import, wherever it stands; `from a import b` may name the module a.b."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                whole = module.partition(".")[0] in OURS or module == "random"
                yield from (f"{module}.{alias.name}" if whole else module for alias in names)
            case ast.Call(func=ast.Name("Random")):
                yield "random"
            case ast.ImportFrom():
                yield "a relative import"


def violations(module: str, source: str) -> list[str]:
    rule = next(rule for rule in RULES if under(module, rule.of))
    return [f"{module} imports {name}" for name in imported(ast.parse(source)) if not _allowed(rule, name)]


def _allowed(rule: Rule, name: str) -> bool:
    top = name.partition(".")[0]
    if name != RNG_TYPE and any(under(name, never) for never in rule.never):
        return False
    if name == "kvstore.__version__":
        return True
    if top in OURS:
        return any(under(name, prefix) for prefix in rule.ours)
    return top in sys.stdlib_module_names or rule.third is None or top in rule.third


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in sorted(OURS):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def test_there_is_something_to_check() -> None:
    assert {name.partition(".")[0] for name, _ in modules()} == OURS


def test_imports_follow_the_rules() -> None:
    assert [each for module, path in modules() for each in violations(module, path.read_text())] == []


FORBIDDEN = [
    ("paxos.replica", "import time"),
    ("paxos.replica", "import random"),
    ("paxos.replica", "from random import randint"),
    ("paxos.replica", "from random import Random\nrng = Random(1)"),
    ("paxos.lease", "def now():\n    import os.path"),
    ("paxos.types", "from storage.base import Storage"),
    ("paxos.types", "import kvstore"),
    ("paxos.types", "import aiohttp"),
    ("paxos.types", "import orjson"),
    ("paxos.types", "from . import messages"),
    ("paxos.replica", "from paxos.lecture.stage import Stage"),
    ("paxos.lecture.stage", "import asyncio"),
    ("paxos.lecture.text", "import rich"),
    ("storage.sqlite", "from paxos.messages import Accept"),
    ("storage.sqlite", "from paxos import replica"),
    ("storage.sqlite", "import asyncio"),
    ("kvstore.api.commands", "from kvstore.state_machine.history import History"),
    ("kvstore.replica.node", "from kvstore.server.event_loop import NodeDriver"),
    ("kvstore.replica.node", "from storage.sqlite import open_storage"),
    ("kvstore.replica.node", "import time"),
    ("kvstore.state_machine.state_machine", "import asyncio"),
    ("kvstore.peers.transport", "from kvstore.server.config import Settings"),
    ("kvstore.cli.keys", "from kvstore.replica.node import Node"),
    ("kvstore.cli.txn", "from kvstore.server.http.problems import Problem"),
    ("kvstore.server.http.server", "from aiohttp import web"),
    ("kvstore.client.client", "from kvstore.server.http.problems import Problem"),
    ("kvstore.client", "import bench.load"),
    ("bench.load", "from kvstore.replica.node import Node"),
    ("bench.load", "from paxos.types import Ballot"),
]

ALLOWED = [
    (
        "paxos.replica",
        "import msgspec\nfrom random import Random\nfrom collections import deque\nfrom paxos.types import Slot",
    ),
    ("storage.sqlite", "import sqlite_utils, sqlite3, threading\nfrom paxos import types"),
    ("kvstore.server.http.server", "import asyncio\nfrom httptools import HttpRequestParser"),
    ("bench.load", "import aiohttp\nfrom kvstore.client import Client"),
]


def test_a_planted_violation_is_caught() -> None:
    assert [case for case in FORBIDDEN if not violations(*case)] == []


def test_what_the_rules_allow_passes() -> None:
    assert [each for case in ALLOWED for each in violations(*case)] == []
