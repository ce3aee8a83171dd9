"""`kvstore top`: what is made of what the replicas tell, and that it fits."""

import json
from importlib import import_module
from typing import Any

import pytest
from msgspec.structs import replace
from multidict import CIMultiDict, CIMultiDictProxy
from rich.console import Console
from typer.testing import CliRunner

from kvstore import cli
from kvstore.api.status import MemberStatus, Status
from kvstore.cli.cluster_view import EVENTS, ClusterView, Onlooker, Seen
from kvstore.cli.load import Counters, Histogram, counters_of, load_between
from kvstore.cli.top_picture import picture_of
from kvstore.client import Client, Unavailable
from kvstore.client.caller import Request
from kvstore.client.errors import Response
from kvstore.server.metrics import Metrics

MEMBERS = [MemberStatus(f"n{k}", f"h:{k}", connected=True, heard_ms_ago=0.0, lag=lag) for k, lag in ((1, 0), (2, 7))]
N1 = Status("n1", "blue", "leader", True, "3.n1", "3.n1", "n1", 400.0, 50, 50, 31, 20, MEMBERS, "0", 1)
N2 = replace(N1, id="n2", role="follower", lease_left_ms=None, chosen=43, applied=43)
A, B = "http://h:8001", "http://h:8002"


def counted(at: float, *requests: tuple[str, str, float]) -> Counters:
    """By a replica that has answered these: method, route, seconds."""
    metrics = Metrics()
    for method, route, seconds in requests:
        metrics.observe_request(method, route, 200, seconds)
    return counters_of(metrics.render().decode(), at)


def seen(status: Status, at: float = 0.0) -> Seen:
    each = Seen()
    each.answered(status, counted(at))
    return each


def test_reads_and_writes_of_clients_are_counted_and_nothing_else() -> None:
    work = [("GET", "/kv/", 0.0001), ("HEAD", "/kv/", 0.0001), ("PUT", "/kv/", 0.003), ("POST", "/txn", 0.003)]
    upkeep = [
        ("GET", "/status", 4.0),
        ("GET", "/metrics", 4.0),
        ("GET", "/watch", 4.0),
        ("POST", "/locks/", 4.0),
        ("POST", "/members", 4.0),
    ]
    load = load_between(counted(10.0), counted(12.0, *work, *upkeep))
    assert load is not None
    assert (load.reads_per_s, load.writes_per_s) == (1.0, 1.0)
    assert load.read_p99_ms is not None
    assert load.read_p99_ms < 1
    assert load.write_p50_ms == pytest.approx(3.5)  # halfway in the bucket from 2 to 5 ms


def test_what_was_counted_before_does_not_count() -> None:
    slow = ("GET", "/kv/", 2.5)
    load = load_between(counted(1.0, slow), counted(2.0, slow, ("GET", "/kv/", 0.0001)))
    assert load is not None
    assert load.reads_per_s == 1
    assert load.read_p99_ms == pytest.approx(0.495)


def test_a_replica_that_was_started_anew_has_no_rates_yet() -> None:
    assert load_between(counted(1.0, ("GET", "/kv/", 0.1)), counted(2.0)) is None


def test_quantiles_of_nothing_and_beyond_the_last_bound() -> None:
    assert Histogram({1.0: 0.0, float("inf"): 0.0}).quantile_ms(0.99) is None
    assert Histogram({1.0: 1.0, float("inf"): 100.0}).quantile_ms(0.99) == 1000.0


def test_the_leader_says_how_far_the_others_are_behind() -> None:
    view = Onlooker().look({A: seen(N1), B: seen(N2)}, 0.0, 0.0)
    assert (view.cluster, view.leader, view.not_asked, view.events) == ("blue", "n1", [], [])
    assert [(each.name, each.lag) for each in view.replicas] == [("n1", 0), ("n2", 7)]


def test_members_that_nobody_asks_are_named() -> None:
    assert Onlooker().look({A: seen(N1)}, 0.0, 0.0).not_asked == ["n2"]


def test_who_falls_silent_and_who_leads_instead_is_told_once() -> None:
    onlooker, first, second = Onlooker(), seen(N1), seen(N2)
    onlooker.look({A: first, B: second}, 0.0, 100.0)
    first.failed("refused", 5.0)
    view = onlooker.look({A: first, B: second}, 8.0, 108.0)
    assert (view.leader, view.replicas[0].silent_s, view.replicas[0].error) == (None, 3.0, "refused")
    second.answered(replace(N2, role="leader", ballot="4.n2", leader="n2"), counted(9.0))
    onlooker.look({A: first, B: second}, 9.0, 109.0)
    first.answered(replace(N2, id="n1", ballot="4.n2"), counted(10.0))
    view = onlooker.look({A: first, B: second}, 10.0, 110.0)
    assert [(event.at, event.what) for event in view.events] == [
        (108.0, "n1 does not answer"),
        (108.0, "nobody leads; it was n1"),
        (109.0, "n2 leads, by ballot 4.n2"),
        (110.0, "n1 is back"),
    ]
    assert view.replicas[0].load is None  # what it counts may begin anew
    assert onlooker.look({A: first, B: second}, 11.0, 111.0).events == view.events


def test_only_the_last_events_are_kept() -> None:
    onlooker, only = Onlooker(), seen(N1)
    for round_ in range(2 * EVENTS):
        only.failed("gone", round_)
        onlooker.look({A: only}, round_, round_)
        only.answered(N1, counted(round_))
        onlooker.look({A: only}, round_, round_)
    assert len(onlooker.look({A: only}, 99.0, 99.0).events) == EVENTS


def drawn(view: ClusterView, columns: int = 80) -> list[str]:
    console = Console(width=columns, force_terminal=False)
    with console.capture() as captured:
        console.print(picture_of(view))
    return captured.get().splitlines()


def test_everything_fits_into_80_columns_after_years() -> None:
    old = replace(N1, chosen=987_654_321, applied=987_654_321, revision=9_876_543_210, keys=1_000_000, ballot="123.n1")
    busy = seen(old)
    busy.answered(old, counted(1.0, *[("GET", "/kv/", 0.3), ("PUT", "/kv/", 0.3)] * 40_000))
    busy.counters = large(busy.counters)
    silent = seen(N2)
    silent.failed("http://h:8002 is not reached: Connection refused", 0.0)
    lines = drawn(Onlooker().look({A: busy, B: silent}, 5000.0, 0.0))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    assert "…" not in text
    for part in ("987654321", "9876543210", "1000000", "40,000", "1.0 GB", "silent 83 m", "Connection refused"):
        assert part in text, part


def large(counters: Counters | None) -> Counters:
    assert counters is not None
    return Counters(counters.at, counters.reads, counters.writes, counters.fsyncs, 1_000_000_000, 1_000_000_000)


def top(monkeypatch: pytest.MonkeyPatch, *flags: str) -> tuple[int, str, str]:
    monkeypatch.setattr(import_module("kvstore.cli.top"), "LOOK_S", 0.0)
    result = CliRunner(env={"COLUMNS": "80", "TERM": "dumb"}).invoke(
        cli.app, ["top", "--endpoints", f"{A},{B}", *flags]
    )
    return result.exit_code, result.stdout, result.stderr


def answering(monkeypatch: pytest.MonkeyPatch, up: set[str]) -> None:
    """Only these replicas."""

    async def status(_: Client, endpoint: str) -> Status:
        if endpoint not in up:
            raise Unavailable(f"{endpoint} is not reached: Connection refused")
        return N1

    async def ask(_: Client, request: Request, endpoint: str) -> Response:
        assert request == Request("GET", "/metrics")
        return Response(200, CIMultiDictProxy(CIMultiDict()), Metrics().render())

    monkeypatch.setattr(Client, "status", status)
    monkeypatch.setattr(Client, "ask", ask)


def test_where_the_output_is_no_terminal_it_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {A})
    code, out, _ = top(monkeypatch)
    assert code == 0
    assert all(part in out for part in ("cluster blue", "1 of 2 answer", "n1 leads", "h:8002"))


def test_as_json_for_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {A})
    code, out, _ = top(monkeypatch, "--json")
    document: dict[str, Any] = json.loads(out)
    assert (code, document["leader"]) == (0, "n1")
    first, second = document["replicas"]
    assert (first["silent_s"], first["status"]["ballot"], first["lag"]) == (None, "3.n1", 0)
    assert (second["status"], second["error"]) == (None, f"{B} is not reached: Connection refused")


def test_a_cluster_that_is_down_ends_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, set())
    code, _, err = top(monkeypatch, "--once")
    assert code == 3
    assert "start them" in err
