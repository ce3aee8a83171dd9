"""What `python -m tests.torture faults` refuses, shows and leaves behind."""

import importlib.util
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.command import check_page
from bench.errors import BenchError
from tests.torture.__main__ import app
from tests.torture.faults import command, disk
from tests.torture.faults.found import Found
from tests.torture.faults.history import Call
from tests.torture.faults.report import REASONS, summary
from tests.torture.faults.run import Order
from tests.unit.torture.tortured import GOOD, found, judged

CALLS = [
    Call("get", "k", "n1", 2, 3, "answered", "x", 1),
    Call("put", "k", "n1", 1, 2, "answered", "y", 1),
    Call("put", "other", "n1", 0, 1, "unknown", "z"),
]


def lines(path: Path) -> list[tuple[str, int]]:
    return [(entry["key"], entry["called_ns"]) for entry in map(json.loads, path.read_text().splitlines())]


def test_an_illegal_key_is_written_alone_in_the_order_of_its_calls(tmp_path: Path) -> None:
    command.write_history(tmp_path / "history", CALLS, judged(illegal=["k"]))
    assert lines(tmp_path / "history") == [("k", 1), ("k", 2)]


def test_everything_is_written_when_no_single_key_is_to_blame(tmp_path: Path) -> None:
    command.write_history(tmp_path / "history", CALLS, judged(lost=["put k"]))
    assert lines(tmp_path / "history") == [("other", 0), ("k", 1), ("k", 2)]


def test_without_jinja_a_page_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_page(None)
    with pytest.raises(BenchError, match="pip install --group bench"):
        check_page(tmp_path / "page.html")


def test_a_fault_that_cannot_be_made_here_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_strace() -> str:
        return "strace is not installed"

    monkeypatch.setattr(disk, "why_not", no_strace)
    result = CliRunner().invoke(app, ["faults", "--fault", "eio"])
    assert isinstance(result.exception, BenchError)
    assert str(result.exception) == "eio cannot be made here: strace is not installed"


def test_the_command_repeats_what_was_asked_for() -> None:
    order = Order(faults=[], seconds=60, kills=0, nodes=3, clients=8, seed=7)
    assert order.command == "python -m tests.torture faults --seconds 60 --nodes 3 --clients 8 --seed 7"


def said(run: Found) -> str:
    output = io.StringIO()
    Console(file=output, width=200).print(summary(run))
    return output.getvalue()


def test_the_summary_tells_faults_counts_verdict_and_how_to_repeat_it() -> None:
    text = said(GOOD)
    assert "eio was not made: no strace" in text
    assert "90 writes acknowledged, 0 lost after 1 kills with SIGKILL" in text
    assert "2000 keys: 0 illegal, 0 silent (0 %)" in text
    assert "ok: Nothing acknowledged was lost" in text
    assert f"again: {GOOD.command}" in text


def test_the_summary_tells_why_and_ends() -> None:
    text = said(judged(lost=[f"put [{number}]" for number in range(REASONS + 5)]))
    assert "lost: put [0]" in text
    assert "and 5 more" in text
    assert "n1 [ended]" in said(found(troubles=["n1 [ended]"]))
