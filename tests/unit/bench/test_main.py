"""The commands, in short."""

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from bench.__main__ import app
from bench.command import scratch_directory
from bench.errors import BenchError
from bench.failover import FailoverResult
from bench.load.recording import LoadResult


def test_data_is_kept_after_an_error_only(capsys: pytest.CaptureFixture[str]) -> None:
    with scratch_directory() as removed:
        assert removed.is_dir()
    assert not removed.exists()
    with pytest.raises(BenchError), scratch_directory() as kept:
        raise BenchError("lost writes")
    assert str(kept) in capsys.readouterr().err
    kept.rmdir()


@pytest.mark.cluster
def test_a_load_on_a_real_cluster_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    load = ["load", "--seconds", "0.5", "--warm-up", "0.1", "--keys", "20", "--reads", "50", "--at", "all"]
    outcome = CliRunner().invoke(app, [*load, "--json", str(file)])
    assert outcome.exit_code == 0, outcome.output
    result = msgspec.json.decode(file.read_bytes(), type=LoadResult)
    assert result.errors == 0
    assert result.all.count > 0


@pytest.mark.cluster
@pytest.mark.slow
def test_two_leaders_are_killed_and_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["failover", "--kills", "2", "--json", str(tmp_path / "result.json")])
    result = msgspec.json.decode((tmp_path / "result.json").read_bytes(), type=FailoverResult)
    assert "2 kills of the leader" in outcome.output
    assert len(result.outages_ms) == 2
    assert min(result.outages_ms) > 100  # longer than any pause of a healthy cluster: the leader was dead
    assert result.acknowledged > 0
    assert result.lost == []
