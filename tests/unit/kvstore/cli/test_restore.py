"""`kvstore restore` on the command line."""

from pathlib import Path

import pytest

from kvstore.api.commands import LeasedPut
from kvstore.backup.check import check
from tests.unit.kvstore.backup.states import COMMANDS, make_backup
from tests.unit.kvstore.cli.command_line import run

TWO = "n1=127.0.0.1:9001,n2=127.0.0.1:9002"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    make_backup(tmp_path / "b.db", *COMMANDS)
    return tmp_path / "b.db"


def restore(file: Path, *flags: str) -> tuple[int, str, str]:
    return run("restore", str(file), *flags)


def test_one_node_is_created_from_the_settings_of_serve_without_a_secret(file: Path, tmp_path: Path) -> None:
    data = tmp_path / "n2"
    code, out, err = restore(file, f"--data={data}", "--cluster=new", "--node=n2", f"--members={TWO}", "--above=1000")
    assert (code, err) == (0, "")
    assert out == (
        f"{data} is node n2 of cluster new: 3 keys of cluster old at revision 6, taken 2026-01-02T03:04:05+00:00\n"
        "revisions continue after 1,004; entity tags, leases, fencing tokens and watch positions from before are "
        "refused\n"
        "next: do the same for n1 with --above 1000, then run `kvstore serve` with these settings\n"
    )
    assert (data / "kvstore.db").exists()


def test_keys_of_leases_that_are_left_out_are_counted(tmp_path: Path) -> None:
    make_backup(tmp_path / "b.db", *COMMANDS, LeasedPut(b"session", b"1", 0, 5000))
    code, out, _ = restore(tmp_path / "b.db", f"--data={tmp_path}/n1", "--cluster=new")
    assert code == 0
    assert "3 keys of cluster old at revision 7, taken 2026-01-02T03:04:05+00:00, without 1 key that had a" in out


def test_a_restore_is_above_an_earlier_one_of_the_same_backup(file: Path, tmp_path: Path) -> None:
    revisions = []
    for name in ("first", "second"):
        code, out, _ = restore(file, f"--data={tmp_path}/{name}", f"--cluster={name}", "--nodes=2")
        assert code == 0
        revisions.append(int(out.split("revisions continue after ")[1].split(";")[0].replace(",", "")))
        states = [check(tmp_path / name / node).state for node in ("n1", "n2")]
        assert [found and found.revision for found in states] == [revisions[-1]] * 2
    assert 6 < revisions[0] < revisions[1]


def test_settings_come_from_the_file_of_serve(file: Path, tmp_path: Path) -> None:
    config = tmp_path / "n1.toml"
    config.write_text(f'data = "{tmp_path}/n1"\ncluster = "new"\nsecret_file = "absent"\n[members]\nn1 = "h:9001"\n')
    code, out, _ = restore(file, f"--config={config}")
    assert code == 0
    assert f"{tmp_path}/n1 is node n1 of cluster new" in out


def test_nodes_creates_all_members_of_a_cluster_on_this_machine(file: Path, tmp_path: Path) -> None:
    data = tmp_path / "all"
    code, out, _ = restore(file, f"--data={data}", "--cluster=new", "--nodes=2")
    assert code == 0
    assert out.endswith(f"next: run `kvstore cluster --nodes 2 --data {data}`\n")
    assert sorted(path.name for path in data.iterdir()) == ["n1", "n1.toml", "n2", "n2.toml", "secret"]
    assert 'cluster = "new"' in (data / "n1.toml").read_text()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--cluster=old", "--data={}/new"], "of cluster old: give the new cluster another name with --cluster"),
        (["--cluster=old", "--data={}/new", "--nodes=3"], "of cluster old"),
        (["--cluster=new", "--data={}"], "exists and may hold data: give another --data"),
        (["--cluster=new", "--data={}", "--nodes=3"], "exists and may hold data: give another --data"),
        (["--cluster=new", "--nodes=3"], "--nodes needs --data and --cluster"),
        (["--data={}/new", "--nodes=3"], "--nodes needs --data and --cluster"),
        (["--cluster=new", "--data={}/new", "--nodes=3", "--node=n1"], "excludes --config, --node and --members"),
        (["--cluster=new", "--data={}/new", "--node=n9"], "node 'n9' is not in members"),
        (["--cluster=new", "--data={}/new", "--above=5"], "--above 5 is less than the revision of the backup, 6"),
        (["--cluster=new", "--data={}/new", "--nodes=3", "--above=8500000000000"], "beyond the limit"),
        (["--cluster=NEW", "--data={}/new"], "'NEW' is not a name"),
        (["--cluster=NEW", "--data={}/new", "--nodes=3"], "'NEW' is not a name"),
    ],
)
def test_wrong_usage_ends_with_2_and_creates_nothing(file: Path, tmp_path: Path, flags: list[str], says: str) -> None:
    code, out, err = restore(file, *(flag.format(tmp_path) for flag in flags))
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["b.db"]


@pytest.mark.parametrize("flags", [["--node=n1"], ["--nodes=3"]])
def test_a_damaged_backup_ends_with_1_and_creates_nothing(file: Path, tmp_path: Path, flags: list[str]) -> None:
    file.write_bytes(file.read_bytes()[:5000])
    code, _, err = restore(file, "--cluster=new", f"--data={tmp_path}/new", *flags)
    assert code == 1
    assert "is damaged or was altered" in err
    assert "restore from another backup" in err
    assert [path.name for path in tmp_path.iterdir()] == ["b.db"]
