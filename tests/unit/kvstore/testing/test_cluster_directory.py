"""The files of a local cluster: what is written, and what is refused before anything is written."""

import os
import socket
from pathlib import Path

import pytest

from kvstore.api.address import Address
from kvstore.server.config_sources import load
from kvstore.testing import machine
from kvstore.testing.cluster_directory import ClusterDirectory, ClusterError


def directory(path: Path, nodes: int, *, port: int | None = None, peer_port: int | None = None) -> ClusterDirectory:
    return ClusterDirectory(path, nodes, port, peer_port, {})


def test_prepare_writes_settings_that_serve_takes(tmp_path: Path) -> None:
    cluster = ClusterDirectory(tmp_path / "data", 3, None, None, {"lease_ms": 700, "log_level": "debug"})
    cluster.prepare()
    for name, replica in cluster.replicas.items():
        settings = load({}, replica.config)
        assert (settings.node, settings.listen, settings.peer_bind) == (name, replica.listen, replica.peers)
        assert (settings.lease_ms, settings.log_level, settings.data) == (700, "debug", replica.data)
        assert len(settings.members) == 3
        assert len(settings.shared_secret()) == 64


def test_a_link_may_lead_over_a_proxy(tmp_path: Path) -> None:
    cluster = directory(tmp_path, 3)
    cluster.prepare({("n1", "n2"): Address("127.0.0.1", 7)})
    members = {name: load({}, replica.config).members for name, replica in cluster.replicas.items()}
    assert members["n1"]["n2"].port == 7
    members["n1"]["n2"] = cluster.replicas["n2"].peers  # the other links lead to the peer listeners
    peers = {name: replica.peers for name, replica in cluster.replicas.items()}
    assert all(each == peers for each in members.values())


def test_the_secret_is_private_and_stays(tmp_path: Path) -> None:
    directory(tmp_path, 1).prepare()
    secret = tmp_path / "secret"
    first = secret.read_text()
    assert secret.stat().st_mode & 0o777 == 0o600
    directory(tmp_path, 1).prepare()
    assert secret.read_text() == first


def test_a_cluster_that_has_a_name_keeps_it(tmp_path: Path) -> None:
    restored = ClusterDirectory(tmp_path, 3, None, None, {"cluster": "orders"})
    restored.write_settings()
    again = directory(tmp_path, 3)
    again.prepare()
    assert {load({}, replica.config).cluster for replica in again.replicas.values()} == {"orders"}


def test_data_of_another_number_of_replicas_is_refused(tmp_path: Path) -> None:
    for name in ("n1", "n2", "n3"):
        (tmp_path / name).mkdir()
    directory(tmp_path, 3).prepare()
    with pytest.raises(ClusterError, match=r"began with 3 replicas, not 5: start it with --nodes 3"):
        directory(tmp_path, 5).prepare()


def test_added_and_removed_replicas_are_known_to_the_next_run(tmp_path: Path) -> None:
    cluster = directory(tmp_path, 3)
    cluster.prepare()
    for replica in cluster.replicas.values():
        replica.data.mkdir()
    added = cluster.new_replica("n4")
    cluster.add(added)
    added.data.mkdir()
    cluster.remove("n2")
    cluster.mark_joining("n3")
    again = directory(tmp_path, 3)
    joins = {name: replica.joins for name, replica in again.replicas.items()}
    assert joins == {"n1": False, "n3": True, "n4": True}
    assert (again.replicas["n4"].listen, again.replicas["n4"].peers) == (added.listen, added.peers)
    again.prepare()
    assert load({}, again.replicas["n4"].config).join
    again.add(again.new_replica("n2"))
    assert directory(tmp_path, 3).replicas["n2"].joins


def test_free_ports_are_not_those_of_added_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FREE_PORTS", machine.FREE_PORTS[: 16 * machine._SHARES])  # 16 for this process
    cluster = directory(tmp_path, 3)
    cluster.prepare()
    cluster.add(cluster.new_replica("n4"))
    ports = [
        address.port
        for replica in directory(tmp_path, 3).replicas.values()
        for address in (replica.listen, replica.peers)
    ]
    assert len(set(ports)) == 8


def test_ports_in_use_are_named_before_anything_is_written(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"already in use: 127.0.0.1:{port} \(port of n1 for clients\)"):
            directory(tmp_path / "data", 1, port=port).prepare()
    assert not (tmp_path / "data").exists()


def test_ranges_of_ports_that_overlap_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="overlap: change --port or --peer-port"):
        directory(tmp_path, 3, port=18001, peer_port=18003).prepare()


def test_ports_chosen_freely_are_all_different(tmp_path: Path) -> None:
    replicas = directory(tmp_path, 5).replicas.values()
    assert len({address.port for replica in replicas for address in (replica.listen, replica.peers)}) == 10


def test_a_locked_directory_is_refused_until_it_is_released(tmp_path: Path) -> None:
    refused = pytest.raises(ClusterError, match=rf"in use by a running cluster \(process {os.getpid()}\): stop that")
    with directory(tmp_path, 1).locked(), refused, directory(tmp_path, 1).locked():
        pass
    with directory(tmp_path, 1).locked():
        pass


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"join = \n", "is no settings file of a replica"),
        ("join = true\n".encode("utf-16"), "is UTF-16"),
        (b"join = true\n", "lacks settings .'node'."),
        (b'join = true\nnode = "n4"\nlisten = "::1:1"\n[members]\nn4 = "a:1"\n', "written in brackets"),
        (b'join = true\nnode = "n4"\nlisten = "a:1"\nmembers = 5\n', "lacks settings"),
    ],
)
def test_a_broken_settings_file_in_the_directory_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "n4.toml").write_bytes(content)
    with pytest.raises(ClusterError, match=f"n4.toml .*{why}"):
        directory(tmp_path, 3)
