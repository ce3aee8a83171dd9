"""Who may import whom, read from the imports of every file.

A rule names modules by a prefix, ours and others. Whatever a file imports has to fall under what its first matching
rule allows; what it must not touch at all is listed beside it.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
OURS = frozenset({"bench", "kvstore", "paxos", "storage"})
ASYNC = frozenset({"aiohttp", "asyncio", "uvloop"})
IMPURE = frozenset(
    {"multiprocessing", "os", "pathlib", "random", "selectors", "socket", "subprocess", "threading", "time"}
)


RNG_TYPE = "random.Random"
"""The type of a generator that is handed in. To name it is no randomness of one's own, to make one is."""


class Rule(NamedTuple):
    """What files of the package `of` may import of ours, which third parties, and what they must never."""

    of: str
    ours: frozenset[str]
    third: frozenset[str] | None
    """None: any that the project depends on."""
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
    Rule(
        "kvstore.api.commands",
        frozenset({"kvstore.api.membership", "kvstore.api.key_range"}),
        frozenset({"msgspec"}),
        IMPURE | ASYNC,
    ),
    Rule(
        "kvstore.replica.node",
        frozenset(
            {"paxos", "storage.base"}
            | {
                f"kvstore.{name}"
                for name in (
                    "commands",
                    "comparison",
                    "expiry",
                    "keeper",
                    "ledger",
                    "lookups",
                    "members",
                    "queries",
                    "requests",
                    "retention",
                    "sizes",
                    "state_fetch",
                    "state_machine",
                    "stewardship",
                    "submissions",
                    "transactions",
                    "transfer",
                )
            }
        ),
        frozenset({"msgspec"}),
        IMPURE | ASYNC,
    ),
    *(
        Rule(f"kvstore.{name}", OURS - {"bench"}, None, frozenset())
        for name in ("runtime", "process", "links", "transport", "http", "client", "cli", "supervisor", "testing")
    ),
    Rule("kvstore", OURS - {"bench"}, None, ASYNC),
    Rule(
        "bench",
        frozenset(
            {
                "bench",
                "kvstore.cli",
                "kvstore.client",
                "kvstore.api.commands",
                "kvstore.api.requests",
                "kvstore.testing.supervisor",
                "kvstore.testing",
            }
        ),
        None,
        frozenset(),
    ),
]


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


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_follow_the_rules(module: str, path: Path) -> None:
    assert violations(module, path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
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
        ("kvstore.api.commands", "from kvstore.api.requests import Consistency"),
        ("kvstore.replica.node", "from kvstore.server.event_loop import Runtime"),
        ("kvstore.replica.node", "from storage.sqlite import open_storage"),
        ("kvstore.replica.node", "import time"),
        ("kvstore.state_machine.state_machine", "import asyncio"),
        ("kvstore.server.config", "from aiohttp import web"),
        ("kvstore.client", "import bench.load"),
        ("bench.load", "from kvstore.replica.node import Node"),
        ("bench.load", "from paxos.types import Ballot"),
    ],
)
def test_a_planted_violation_is_caught(module: str, source: str) -> None:
    assert violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "paxos.replica",
            "import msgspec\nfrom random import Random\nfrom collections import deque\nfrom paxos.types import Slot",
        ),
        ("storage.sqlite", "import sqlite_utils, sqlite3, threading\nfrom paxos import types"),
        ("kvstore.server.http.server", "import asyncio\nfrom aiohttp import web"),
        ("bench.load", "import aiohttp\nfrom kvstore.client import Client"),
    ],
)
def test_what_the_rules_allow_passes(module: str, source: str) -> None:
    assert violations(module, source) == []
