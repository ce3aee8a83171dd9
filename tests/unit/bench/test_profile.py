"""Samples of stacks, by stage."""

from collections import Counter

import pytest

from bench.profile import ProfileResult, profile_report
from bench.stages import OTHER, costs, read, stage_of
from tests.unit.bench.reports import shown

HTTP, LIBRARY = "/x/kvstore/server/http", "/x/lib/python3.11/site-packages"


STAGES = [
    ("target (/x/kvstore/server/http/target.py:3)", "parse HTTP"),
    (f"Parser.feed ({HTTP}/protocol.py:3)", "parse HTTP"),
    (f"Connection.data_received ({HTTP}/connection.py:3)", "parse HTTP"),
    (f"Keys._put ({HTTP}/kv.py:3)", "HTTP front end"),
    (f"Answer.prepare ({HTTP}/answer.py:3)", "answer"),
    (f"Protocol._respond ({HTTP}/protocol.py:3)", "answer"),
    (f"start ({LIBRARY}/aiohttp/web_protocol.py:3)", "HTTP library"),
    (f"observe ({LIBRARY}/prometheus_client/metrics.py:3)", "metrics"),
    ("Node.step (/x/kvstore/replica/node.py:3)", "replica"),
    ("EventLoop._work (/x/kvstore/server/event_loop.py:3)", "server"),
    ("Outgoing._flush (/x/kvstore/peers/connection.py:3)", "peer links"),
    ("encode (/x/paxos/wire.py:3)", "peer links"),
    ("Leader.propose (/x/paxos/leader.py:3)", "paxos"),
    ("StateMachine.apply (/x/kvstore/state_machine/state_machine.py:3)", "apply"),
    ("Writer._take (/x/storage/writer.py:3)", "storage: SQLite and fsync"),
    ("Runner.run (/usr/lib/python3.11/asyncio/runners.py:3)", "event loop"),
    ("strange", OTHER),
    ("f (/somewhere/else.py)", OTHER),
]


def test_a_sample_belongs_to_the_stage_of_its_innermost_frame(subtests: pytest.Subtests) -> None:
    for innermost, stage in STAGES:
        with subtests.test(innermost):
            assert stage_of([innermost]) == stage


def test_a_frame_that_no_rule_knows_belongs_to_its_caller() -> None:
    assert stage_of(["run (/x/asyncio/runners.py:1)", "write (/x/storage/sqlite.py:1)", "dumps (/x/json.py:1)"]) == (
        "storage: SQLite and fsync"
    )


STACKS = [
    "thread (17): MainThread;run (/x/asyncio/runners.py:1);step (/x/kvstore/replica/node.py:9) 6",
    "thread (17): MainThread;run (/x/asyncio/runners.py:1) 2",
    "thread (0x12): storage;write (/x/storage/sqlite.py:1) 4",
    "thread (17): MainThread 9",
    "",
]


def test_samples_are_counted_by_thread() -> None:
    found = read(STACKS)
    assert found.keys() == {17, 18}
    assert found[17].stages == {"replica": 6, "event loop": 2}
    assert found[17].functions == {"replica/node.py step": 6, "asyncio/runners.py run": 2}
    assert found[18].stages == {"storage: SQLite and fsync": 4}


def test_the_cpu_time_of_a_thread_is_divided_by_its_samples() -> None:
    seen = {17: Counter({"replica": 6, "event loop": 2}), 18: Counter({"storage": 100})}
    assert costs({17: 40.0, 18: 5.0, 19: 1.0}, seen) == {
        "replica": 30.0,
        "event loop": 10.0,
        "storage": 5.0,
        OTHER: 1.0,
    }


def test_the_report_has_a_row_for_each_stage() -> None:
    found = ProfileResult(
        connections=64,
        reads=0,
        per_second=8000.0,
        sampled_per_second=7000.0,
        samples=12,
        stages_us={"replica": 30.0, "storage": 10.0},
        functions_us={"replica/node.py step": 40.0},
    )
    text = shown(profile_report(found))
    rows = [line.split() for line in text.splitlines()]
    assert ["replica", "75.0%", "30.0"] in rows
    assert ["all", "40.0"] in rows
    assert ["replica/node.py", "step", "100.0%", "40.0"] in rows
    assert "8,000 requests/s, 7,000 while sampled; 12 samples" in text
