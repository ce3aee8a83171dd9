"""The run under faults that `make torture` starts, in short."""

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from tests.torture.__main__ import app
from tests.torture.faults.plan import Fault
from tests.torture.faults.result import FaultsReport, RunVerdict

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

FAULTS = [Fault.KILL, Fault.PARTITION, Fault.PAUSE]


def test_a_cluster_with_kills_partitions_and_pauses_keeps_its_guarantees(tmp_path: Path) -> None:
    named = [word for fault in FAULTS for word in ("--fault", fault)]
    files = ["--json", str(tmp_path / "result.json"), "--html", str(tmp_path / "page.html")]
    outcome = CliRunner().invoke(app, ["faults", *named, "--seconds", "20", "--seed", "3", *files])
    assert outcome.exit_code == 0, outcome.output
    report = msgspec.json.decode((tmp_path / "result.json").read_bytes(), type=FaultsReport)
    assert report.verdict is RunVerdict.OK
    assert {made.fault for made in report.result.faults if made.effect} == set(FAULTS)
    assert report.result.kills > 0
    assert report.result.acknowledged > 100
    assert "ok: No acknowledged write was lost" in outcome.output
    assert '<h1 class="ok">ok</h1>' in (tmp_path / "page.html").read_text()
