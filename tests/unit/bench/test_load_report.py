"""A load for people, for a spreadsheet and as charts; a sweep; a long one."""

import csv
import io
import re
from pathlib import Path

import pytest

from bench import chart
from bench.endurance import Endurance, curve, endurance_report
from bench.errors import BenchError
from bench.load import report
from bench.load.run import Ask, address_of, share
from bench.load.sweep import Sweep, charts, sweep_report
from bench.load.target import Target
from tests.unit.bench.loads import MIX, load, result
from tests.unit.bench.test_report import shown


def test_the_report_has_a_row_for_each_kind_and_what_the_generator_cost() -> None:
    text = shown(report.load_report(load()))
    assert "closed loop, 4 connections, 50 % GET, 10,000 keys (uniform), 100 bytes: 200 answers a second" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["PUT", "100", "2.00", "2.00", "2.00", "2.00", "2.00", "2.00"] in rows
    assert [row[0] for row in rows if row and row[0] in {"PUT", "GET", "all"}] == ["PUT", "GET", "all"]
    assert "2500.0 µs of CPU for a request" in text
    assert not re.search("errors|saturated|limit", text)


def test_what_spoils_the_figures_is_said() -> None:
    bad = load(result(statuses={200: 9, 503: 3}, lost=2, unsent=7, cpu_s=0.9), rate=1000.0)
    text = shown(report.load_report(bad))
    assert "5 errors: 2 requests without an answer, answers by status {503: 3}" in text
    assert "saturated: 200 of 1,000 requests a second were answered, 7 not even sent" in text
    assert "the generator may be the limit: take more --processes" in text


def test_a_spreadsheet_has_a_line_for_each_kind() -> None:
    lines = list(csv.DictReader(io.StringIO(report.write_csv([load(), load(rate=500.0)]))))
    assert [(line["kind"], line["rate"]) for line in lines] == [
        (kind, rate) for rate in ("", "500.0") for kind in ("PUT", "GET", "all")
    ]
    assert lines[0]["p99_ms"] == "2.0"
    assert lines[0]["per_second"] == "200.0"


def test_the_distribution_ends_where_there_are_no_requests() -> None:
    found = load()
    assert found.get is not None
    points = report.distribution(found.get)
    assert points[0] == pytest.approx((1, 1), rel=0.01)
    assert points[-1] == pytest.approx((100, 9), rel=0.01)


def test_a_sweep_says_what_was_kept_up_with() -> None:
    found = Sweep(peak=load(), steps=[load(rate=100.0), load(rate=200.0), load(rate=400.0)])
    text = shown(sweep_report(found))
    rows = [line.split() for line in text.splitlines()]
    assert ["200", "200", "2.00", "2.00", "9.01", "9.01", "9.01", "0"] in rows
    assert ["400", "200", "2.00", "2.00", "9.01", "9.01", "9.01", "0", "saturated"] in rows
    assert "kept up with 200 requests a second; a closed loop of 4 connections reaches 200" in text
    assert [series.name for series in charts(found.steps)[0].series] == ["p50", "p99", "p99.9"]


@pytest.mark.parametrize(
    ("bins", "ratio", "within"),
    [([10] * 300, 1.0, True), ([10] * 200 + [8] * 100, 0.8, False), ([10] * 100 + [0] * 11 + [10] * 189, 1.0, False)],
)
def test_endurance_compares_the_end_with_the_beginning(bins: list[int], ratio: float, *, within: bool) -> None:
    found = Endurance(load=load(result(bins=[0] * 100 + bins)), span_s=1.0)
    assert found.ratio == pytest.approx(ratio)
    assert found.within_limits is within
    text = shown(endurance_report(found))
    assert f"the last 1 s had {ratio:.2f} x the PUTs of the first" in text
    assert ("beyond the limit" in text) is not within
    assert len(curve(found).series[0].points) == 3


def test_shares_add_up_and_processes_begin_at_different_replicas() -> None:
    urls = [f"http://h:{port}" for port in (1, 2, 3)]
    ask = Ask(mix=MIX, urls=urls, connections=8, processes=3)
    orders = [ask.order(number) for number in range(3)]
    assert [order.connections for order in orders] == [3, 3, 2]
    asked = [order.addresses[number % 3][1] for order in orders for number in range(order.connections)]
    assert sorted(asked) == [1, 1, 1, 2, 2, 2, 3, 3]
    assert [share(7, 2, number) for number in (0, 1)] == [4, 3]


def test_processes_without_a_connection_are_refused_before_the_run() -> None:
    with pytest.raises(BenchError, match="take more --connections"):
        Ask(mix=MIX, urls=[], connections=1, processes=2)


def test_an_endpoint_without_a_port_is_refused() -> None:
    assert address_of("http://127.0.0.1:8001") == ("127.0.0.1", 8001)
    for url in ("127.0.0.1:8001", "https://h:1", "ftp://h"):
        with pytest.raises(BenchError, match="is no endpoint"):
            address_of(url)


def test_a_load_goes_to_the_leader_to_one_follower_or_to_all() -> None:
    target = Target(["a", "b", "c"], "b")
    assert (target.at("leader"), target.at("follower"), target.at("all")) == (["b"], ["a"], ["a", "b", "c"])
    with pytest.raises(BenchError, match="no follower"):
        Target(["a"], "a").at("follower")


def test_charts_are_written_as_svg_that_needs_nothing_else(tmp_path: Path) -> None:
    chart.write(tmp_path / "load.svg", report.charts(load()))
    text = (tmp_path / "load.svg").read_text()
    assert text.count("<polyline") == 3
    assert "Latency by percentile" in text
    assert "99 %" in text
    assert not re.search(r"href|src=|url\(|@import", text)
