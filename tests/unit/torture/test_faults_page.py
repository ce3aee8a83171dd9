"""The HTML page of a run, which refers to no other file."""

import re

import msgspec
import pytest

from tests.torture.faults import page
from tests.torture.faults.plan import Fault
from tests.torture.faults.result import FaultsResult, LatencyBin, OutcomeBin, RunVerdict
from tests.unit.torture.faults_results import GOOD, judged, made, result


def test_the_page_refers_to_nothing_elsewhere() -> None:
    text = page.render(GOOD)
    assert not re.search(r"https?:|//\w|\bsrc=|<link|<script|@import|url\(", text)


@pytest.mark.parametrize("run", [GOOD, judged(lost=["put a"]), result(troubles=["n1 <ended>"])])
def test_the_verdict_stands_above_all_with_its_reasons(run: FaultsResult) -> None:
    text = page.render(run)
    assert f'<h1 class="{run.verdict}">{run.verdict}</h1>' in text
    assert all(why.replace("<", "&lt;").replace(">", "&gt;") in text for _, why in run.reasons())


def test_faults_are_bands_with_name_victims_time_and_effect() -> None:
    text = page.render(GOOD)
    for title in (
        "kill n1, &lt;how&gt;: 1.0 to 2.0 s, 1 things done",
        "pause n1, &lt;how&gt;: 3.0 to 4.0 s, 1 things done",
        "pause n1, &lt;how&gt;: 5.0 to 6.0 s, without effect",
    ):
        assert text.count(f'title="{title}"') == 3  # in its row, and behind both plots
    assert 'class="block process" style="left:10.0%;width:10.0%"' in text


def test_each_replica_has_a_lane_and_is_hatched_while_cut_off() -> None:
    text = page.render(result(faults=[made(Fault.PARTITION, victims=("n2",))]))
    assert 'title="n1 leader: 0.0 to 1.0 s"' in text
    assert 'title="n2 leader: 2.0 to 10.0 s"' in text
    assert text.count('class="block cut"') == 1


def test_the_command_and_the_impossible_faults_are_shown() -> None:
    text = page.render(GOOD)
    assert f"<pre>{GOOD.command}</pre>" in text
    assert "eio is impossible here: no strace" in text


def test_victims_of_many_faults_are_not_written_side_by_side() -> None:
    many = result(faults=[made(Fault.KILL, began_s=at / 10) for at in range(page.MAX_LABELS + 1)])
    assert 'class="chart dense"' in page.render(many)
    assert 'class="chart dense"' not in page.render(GOOD)


def test_calls_of_each_outcome_are_stacked_up_to_a_round_number() -> None:
    plot = page.throughput(result(bins=[OutcomeBin(answered=30, unknown=10), OutcomeBin(refused=2)]), 0.2)
    assert plot.width == pytest.approx(2)
    assert [tick.label for tick in plot.ticks] == ["0", "250", "500"]
    assert plot.paths["answered"] == "M0,400 1,400 1,1000 2,1000 2,1000 1,1000 1,1000 0,1000Z"
    assert plot.paths["unknown"] == "M0,200 1,200 1,1000 2,1000 2,1000 1,1000 1,400 0,400Z"
    assert plot.paths["refused"] == "M0,200 1,200 1,960 2,960 2,1000 1,1000 1,200 0,200Z"


def test_a_long_run_is_drawn_with_fewer_bins_than_it_has() -> None:
    plot = page.throughput(result(bins=[OutcomeBin(answered=1)] * (2 * page.MAX_BINS)), 2 * page.MAX_BINS / 10)
    assert plot.width == pytest.approx(page.MAX_BINS)


def test_latency_has_a_scale_of_powers_of_ten_and_gaps_where_nothing_is_known() -> None:
    known, unknown = LatencyBin(2.0, 100.0), LatencyBin(None, None)
    plot = page.latency(result(latencies=[known, known, unknown, known]), 2.0)
    assert [tick.label for tick in plot.ticks] == ["1 ms", "10 ms", "100 ms"]
    assert plot.paths["p99"].startswith("M0.5,0")
    assert plot.paths["p99"].count("M") == 2
    assert "L1.5,0" in plot.paths["p99"]


def test_a_run_in_which_nothing_was_answered_has_a_page_too() -> None:
    empty = msgspec.structs.replace(GOOD, bins=[], latencies=[], faults=[], counts={}, spans={"n1": []}, asked=[])
    assert empty.verdict is RunVerdict.VOID
    assert "void" in page.render(empty)
