"""The torture that any user can run, in short."""

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from tests.torture.__main__ import app
from tests.torture.faults.found import Conclusion, Verdict
from tests.torture.faults.plan import Fault

pytestmark = pytest.mark.cluster

FAULTS = [Fault.KILL, Fault.PARTITION, Fault.PAUSE]


def test_a_cluster_that_is_killed_cut_and_paused_keeps_what_it_promised(tmp_path: Path) -> None:
    named = [word for fault in FAULTS for word in ("--fault", fault)]
    results = ["--json", str(tmp_path / "found.json"), "--html", str(tmp_path / "page.html")]
    result = CliRunner().invoke(app, ["faults", *named, "--seconds", "20", "--seed", "3", *results])
    assert result.exit_code == 0, result.output
    concluded = msgspec.json.decode((tmp_path / "found.json").read_bytes(), type=Conclusion)
    found = concluded.found
    assert concluded.verdict is Verdict.OK
    assert {strike.fault for strike in found.strikes if strike.effect} == set(FAULTS)
    assert found.kills > 0
    assert found.acknowledged > 100
    assert "ok: Nothing acknowledged was lost" in result.output
    assert '<h1 class="ok">ok</h1>' in (tmp_path / "page.html").read_text()
