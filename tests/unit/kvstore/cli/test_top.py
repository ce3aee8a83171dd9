"""`kvstore top`: its view of the replicas, and its tables."""

import json
from importlib import import_module
from typing import Any

import pytest
from msgspec.structs import replace
from multidict import CIMultiDict, CIMultiDictProxy
from rich.console import Console

from kvstore.api.status import MemberStatus, Status
from kvstore.cli.cluster_view import MOST_EVENTS, ClusterObserver, ClusterView, ReplicaAnswers
from kvstore.cli.replica_load import Histogram, MetricsSample, load_between, parse_metrics
from kvstore.cli.top_tables import tables_of
from kvstore.client import Client, Unavailable
from kvstore.client.caller import Request
from kvstore.client.errors import Response
from kvstore.server.metrics import Metrics
from tests.unit.kvstore.cli.command_line import run

MEMBERS = [MemberStatus(f"n{k}", f"h:{k}", connected=True, heard_ms_ago=0.0, lag=lag) for k, lag in ((1, 0), (2, 7))]
N1 = Status("n1", "blue", "leader", True, "3.n1", "3.n1", "n1", 400.0, 50, 50, 31, 20, MEMBERS, "0", 1)
N2 = replace(N1, id="n2", role="follower", lease_left_ms=None, chosen=43, applied=43)
NAMES = ("n1", "n2", "n3")
A, B = "http://h:8001", "http://h:8002"


def sample(at: float, *requests: tuple[str, str, float]) -> MetricsSample:
    """Sample of a replica that has answered these requests: method, route, seconds."""
    metrics = Metrics()
    for method, route, seconds in requests:
        metrics.observe_request(method, route, 200, seconds)
    return parse_metrics(metrics.render().decode(), at)


def answering(status: Status, at: float = 0.0) -> ReplicaAnswers:
    each = ReplicaAnswers(f"http://h:800{status.id[1:]}")
    each.answered(status, sample(at))
    return each


def test_load_is_reads_and_writes_of_clients() -> None:
    work = [("GET", "/kv/", 0.0001), ("HEAD", "/kv/", 0.0001), ("PUT", "/kv/", 0.003), ("POST", "/txn", 0.003)]
    upkeep = [
        ("GET", "/status", 4.0),
        ("GET", "/metrics", 4.0),
        ("GET", "/watch", 4.0),
        ("POST", "/locks/", 4.0),
        ("POST", "/members", 4.0),
    ]
    load = load_between(sample(10.0), sample(12.0, *work, *upkeep))
    assert load is not None
    assert (load.reads_per_s, load.writes_per_s) == (1.0, 1.0)
    assert load.read_p99_ms is not None
    assert load.read_p99_ms < 1
    assert load.write_p50_ms == pytest.approx(3.5)  # halfway in the bucket from 2 to 5 ms


def test_load_excludes_earlier_requests() -> None:
    slow = ("GET", "/kv/", 2.5)
    load = load_between(sample(1.0, slow), sample(2.0, slow, ("GET", "/kv/", 0.0001)))
    assert load is not None
    assert load.reads_per_s == 1
    assert load.read_p99_ms == pytest.approx(0.495)


def test_a_restarted_replica_has_no_load_yet() -> None:
    assert load_between(sample(1.0, ("GET", "/kv/", 0.1)), sample(2.0)) is None


def test_quantiles_without_durations_and_beyond_the_last_bound() -> None:
    assert Histogram({1.0: 0.0, float("inf"): 0.0}).quantile_ms(0.99) is None
    assert Histogram({1.0: 1.0, float("inf"): 100.0}).quantile_ms(0.99) == 1000.0


def test_the_lag_is_that_which_the_leader_reports() -> None:
    view = ClusterObserver().view({A: answering(N1), B: answering(N2)}, 0.0, 0.0)
    assert (view.cluster, view.leader, view.not_asked, view.events) == ("blue", "n1", [], [])
    assert [(each.name, each.lag) for each in view.replicas] == [("n1", 0), ("n2", 7)]


def test_members_without_an_endpoint_are_named() -> None:
    assert ClusterObserver().view({A: answering(N1)}, 0.0, 0.0).not_asked == ["n2"]


def test_each_change_is_an_event_once() -> None:
    members = [*MEMBERS, MemberStatus("n3", "h:3", connected=True, heard_ms_ago=0.0)]
    first, second, third = (answering(replace(N1 if id_ == "n1" else N2, id=id_, members=members)) for id_ in NAMES)
    answers = {each.endpoint: each for each in (first, second, third)}
    observer = ClusterObserver()
    observer.view(answers, 0.0, 100.0)
    first.failed("refused", 5.0)
    view = observer.view(answers, 8.0, 108.0)
    assert (view.leader, view.replicas[0].unreachable_s, view.replicas[0].error) == (None, 3.0, "refused")
    second.answered(replace(N2, role="leader", ballot="4.n2", leader="n2", members=members), sample(9.0))
    observer.view(answers, 9.0, 109.0)
    first.answered(replace(N2, id="n1", ballot="4.n2", members=members), sample(10.0))
    view = observer.view(answers, 10.0, 110.0)
    assert [(event.at, event.message) for event in view.events] == [
        (108.0, "n1 does not answer"),
        (108.0, "no leader; the last one was n1"),
        (109.0, "n2 leads, 9.0 s without a leader"),
        (110.0, "n1 is back"),
    ]
    assert view.replicas[0].load is None  # it may have been restarted meanwhile
    assert observer.view(answers, 11.0, 111.0).events == view.events


def test_only_the_last_events_are_kept() -> None:
    observer, only = ClusterObserver(), answering(N1)
    for round_ in range(2 * MOST_EVENTS):
        only.failed("gone", round_)
        observer.view({A: only}, round_, round_)
        only.answered(N1, sample(round_))
        observer.view({A: only}, round_, round_)
    assert len(observer.view({A: only}, 99.0, 99.0).events) == MOST_EVENTS


def drawn(view: ClusterView, columns: int = 80) -> list[str]:
    console = Console(width=columns, force_terminal=False)
    with console.capture() as captured:
        console.print(tables_of(view, columns))
    return captured.get().splitlines()


def test_large_numbers_fit_into_80_columns() -> None:
    old = replace(N1, chosen=987_654_321, applied=987_654_321, revision=9_876_543_210, keys=1_000_000, ballot="123.n1")
    busy = answering(old)
    busy.answered(old, sample(1.0, *[("GET", "/kv/", 0.3), ("PUT", "/kv/", 0.3)] * 40_000))
    busy.metrics = large(busy.metrics)
    unreachable = answering(N2)
    unreachable.failed("http://h:8002 is not reached: Connection refused", 0.0)
    lines = drawn(ClusterObserver().view({A: busy, B: unreachable}, 5000.0, 0.0))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    assert "…" not in text
    for part in (
        "987654321",
        "9876543210",
        "1000000",
        "40,000",
        "1.0 GB",
        "n2 unreachable for 83 m",
        "Connection refused",
    ):
        assert part in text, part


def large(metrics: MetricsSample | None) -> MetricsSample:
    assert metrics is not None
    return MetricsSample(metrics.at, metrics.reads, metrics.writes, metrics.fsyncs, 1_000_000_000, 1_000_000_000)


def top(monkeypatch: pytest.MonkeyPatch, *flags: str) -> tuple[int, str, str]:
    monkeypatch.setattr(import_module("kvstore.cli.top"), "POLL_S", 0.0)
    return run("top", "--endpoints", f"{A},{B}", *flags, columns=80)


def only_answer(monkeypatch: pytest.MonkeyPatch, up: set[str]) -> None:
    """Have only the replicas at `up` answer."""

    async def status(_: Client, endpoint: str) -> Status:
        if endpoint not in up:
            raise Unavailable(f"{endpoint} is not reached: Connection refused")
        return N1

    async def ask(_: Client, request: Request, endpoint: str) -> Response:
        assert request == Request("GET", "/metrics")
        return Response(200, CIMultiDictProxy(CIMultiDict()), Metrics().render())

    monkeypatch.setattr(Client, "status", status)
    monkeypatch.setattr(Client, "ask", ask)


def test_one_view_is_printed_if_standard_output_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    only_answer(monkeypatch, {A})
    code, out, _ = top(monkeypatch)
    assert code == 0
    assert all(part in out for part in ("cluster blue", "1 of 2 replicas answer", "n1 leads", "h:8002"))


def test_json_has_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    only_answer(monkeypatch, {A})
    code, out, _ = top(monkeypatch, "--json")
    document: dict[str, Any] = json.loads(out)
    assert (code, document["leader"]) == (0, "n1")
    first, second = document["replicas"]
    assert (first["unreachable_s"], first["status"]["ballot"], first["lag"]) == (None, "3.n1", 0)
    assert (second["status"], second["error"]) == (None, f"{B} is not reached: Connection refused")


def test_a_cluster_that_is_down_ends_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    only_answer(monkeypatch, set())
    code, _, err = top(monkeypatch, "--once")
    assert code == 3
    assert "start the replicas" in err
