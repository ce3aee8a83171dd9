"""Watchers that are measured: their limits, their report, and the ids that they read."""

import socket
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from bench.__main__ import app
from bench.load.recording import summary
from bench.watch.command import WatcherLoadResult, WatchPhase, watch_report
from bench.watch.readers import ReaderOptions, ReaderPool
from tests.unit.bench.reports import shown


def result(*, p99_ms: int = 8, resident_mb: float = 110.0, elections: int = 0, errors: int = 0) -> WatcherLoadResult:
    def phase(each_ms: int, megabytes: float) -> WatchPhase:
        latencies = summary({1000 * each_ms: 100})
        assert latencies is not None
        return WatchPhase(10.0, latencies, megabytes)

    return WatcherLoadResult(
        watchers=60,
        behind=1000,
        bytes_per_s=None,
        alone=phase(4, 100.0),
        meanwhile=phase(p99_ms, resident_mb),
        caught_up_s=10.0,
        disconnected=0,
        after_mb=100.0,
        elections=elections,
        errors=errors,
    )


def test_writes_memory_and_the_leader_have_limits() -> None:
    assert all(result().limits.values())
    assert not all(result(p99_ms=9).limits.values())
    assert not all(result(resident_mb=201.0).limits.values())
    assert not all(result(elections=1).limits.values())
    assert not all(result(errors=1).limits.values())
    report = shown(watch_report(result(p99_ms=9)))
    assert "all had caught up after 10.0 s" in report
    assert "not met: p99 with watchers <= 2.0 x p99 alone (2.25)" in report


def test_a_watcher_has_caught_up_with_the_last_id_however_the_bytes_arrive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = ReaderOptions(
            address=server.getsockname(), watchers=1, from_revision=1, until_revision=12, bytes_per_s=None
        )
        readers = ReaderPool(options)
        replica, _ = server.accept()
        with replica:
            readers.begin()
            assert b"/watch?prefix=&from_revision=1 " in replica.recv(1000)
            for part in (b"head\n\nid: 11\nevent: put\ndata: {}\n\nid", b": 1", b"2"):
                replica.sendall(part)
                readers.read()
                assert readers.behind == 1
            replica.sendall(b"\nevent: put")
            readers.read()
            assert readers.behind == 0
        readers.read()
        assert readers.lost == 1


@pytest.mark.cluster
def test_watchers_of_a_real_cluster_catch_up(tmp_path: Path) -> None:
    file = tmp_path / "watch.json"
    CliRunner().invoke(app, ["watch", "--watchers", "3", "--behind", "300", "--seconds", "1", "--json", str(file)])
    measured = msgspec.json.decode(file.read_bytes(), type=WatcherLoadResult)
    assert measured.caught_up_s is not None
    assert measured.disconnected == 0
