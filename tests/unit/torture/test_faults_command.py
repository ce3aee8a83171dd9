"""Refusals, report and files of `python -m tests.torture faults`."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.errors import BenchError
from tests.torture.__main__ import app
from tests.torture.command import MAX_REASONS
from tests.torture.faults import command, disk
from tests.torture.faults.result import FaultsResult
from tests.torture.faults.run import FaultsOptions
from tests.torture.history import RecordedCall
from tests.unit.torture.faults_results import GOOD, judged, result

CALLS = [
    RecordedCall("get", "k", "n1", 2, 3, "answered", "x", 1),
    RecordedCall("put", "k", "n1", 1, 2, "answered", "y", 1),
    RecordedCall("put", "other", "n1", 0, 1, "unknown", "z"),
]


def lines(path: Path) -> list[tuple[str, int]]:
    return [(entry["key"], entry["called_ns"]) for entry in map(json.loads, path.read_text().splitlines())]


def test_an_illegal_key_is_written_alone_in_the_order_of_its_calls(tmp_path: Path) -> None:
    command.write_history(tmp_path / "history", CALLS, judged(illegal=["k"]))
    assert lines(tmp_path / "history") == [("k", 1), ("k", 2)]


def test_everything_is_written_when_no_single_key_is_to_blame(tmp_path: Path) -> None:
    command.write_history(tmp_path / "history", CALLS, judged(lost=["put k"]))
    assert lines(tmp_path / "history") == [("other", 0), ("k", 1), ("k", 2)]


def test_a_fault_that_cannot_be_made_here_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_strace() -> str:
        return "strace is not installed"

    monkeypatch.setattr(disk, "why_not", no_strace)
    outcome = CliRunner().invoke(app, ["faults", "--fault", "eio"])
    assert isinstance(outcome.exception, BenchError)
    assert str(outcome.exception) == "--fault eio is impossible here: strace is not installed"


def test_the_command_repeats_the_options() -> None:
    options = FaultsOptions(faults=[], seconds=60, kills=0, nodes=3, clients=8, seed=7)
    assert options.command == "python -m tests.torture faults --seconds 60 --nodes 3 --clients 8 --seed 7"


def shown(run: FaultsResult) -> str:
    output = io.StringIO()
    Console(file=output, width=200).print(command.faults_report(run))
    return output.getvalue()


def test_the_report_has_faults_counts_verdict_and_command() -> None:
    text = shown(GOOD)
    assert "eio is impossible here: no strace" in text
    assert "90 writes acknowledged, 0 lost; 1 kills with SIGKILL" in text
    assert "2,000 keys: 0 not linearizable, 0 unverified" in text
    assert "ok: No acknowledged write was lost" in text
    assert f"to repeat: {GOOD.command}" in text


def test_the_report_has_the_first_reasons() -> None:
    text = shown(judged(lost=[f"put [{number}]" for number in range(MAX_REASONS + 5)]))
    assert "lost: put [0]" in text
    assert "and 5 more" in text
    assert "n1 [ended]" in shown(result(troubles=["n1 [ended]"]))
