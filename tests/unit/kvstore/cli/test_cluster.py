"""`kvstore cluster` without processes: its messages while a cluster starts."""

import asyncio
import io
from collections.abc import Iterable
from pathlib import Path

import pytest
from rich.console import Console

from kvstore.cli.cluster import FIRST_REPORT_S, NEXT_REPORT_S, start_command, until_ready
from kvstore.testing.process_cluster import NotReadyError, ProcessCluster


def test_the_command_to_start_a_replica_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert start_command(ProcessCluster(1, Path("data")).replicas["n1"]).endswith(" serve --config data/n1.toml")


def test_a_long_start_is_reported_now_and_then(tmp_path: Path) -> None:
    waits = []

    class SlowCluster(ProcessCluster):
        async def wait_ready(self, names: Iterable[str] | None = None, *, timeout_s: float = 30.0) -> str:
            waits.append(timeout_s)
            if len(waits) < 4:
                raise NotReadyError("not ready yet: n1 is still starting")
            return "n1"

    said = io.StringIO()
    assert asyncio.run(until_ready(SlowCluster(1, tmp_path), Console(file=said, width=200))) == "n1"
    assert waits == [FIRST_REPORT_S, NEXT_REPORT_S, NEXT_REPORT_S, NEXT_REPORT_S]
    assert said.getvalue().count("n1 is still starting. Still waiting; Ctrl-C stops the cluster.") == 3
