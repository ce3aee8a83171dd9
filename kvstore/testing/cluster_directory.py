"""The directory of a local cluster: a shared secret, a lock, and the settings, output and data of each replica.

The files are `secret`, `cluster.lock`, and for each replica `n1.toml` (settings), `n1.log` (output) and `n1/` (data).
The settings of a replica that was added later contain `join = true`. The settings of a removed replica are renamed to
`n1.toml.removed`. So the next run knows which replicas to start.
"""

import fcntl
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec.structs import replace

from kvstore.api.address import Address, InvalidAddressError, parse_address
from kvstore.api.text_files import text_of
from kvstore.testing.machine import free_ports, is_free, make_secret

HOST = "127.0.0.1"

Routes = Mapping[tuple[str, str], Address]
"""Addresses of proxies by (dialing replica, target). Without an entry a replica dials the target's peer address."""


class ClusterError(Exception):
    """A local cluster cannot start or is not ready. The message says why and what to do."""


class LocalReplica(msgspec.Struct, frozen=True):
    """Addresses and files of one replica of a local cluster."""

    name: str
    listen: Address
    """Address for clients."""
    peers: Address
    """Address for the other replicas."""
    directory: Path
    """Directory of the cluster."""
    joins: bool = False
    """Whether the replica was added to a running cluster, so that it learns the membership from the other replicas."""

    @property
    def url(self) -> str:
        """Base address for clients."""
        return f"http://{self.listen}"

    @property
    def config(self) -> Path:
        """Settings file for `kvstore serve --config`."""
        return self.directory / f"{self.name}.toml"

    @property
    def removed(self) -> Path:
        """Name of the settings file after the replica was removed from the cluster."""
        return self.directory / f"{self.name}.toml.removed"

    @property
    def log(self) -> Path:
        """Output of the replica."""
        return self.directory / f"{self.name}.log"

    @property
    def data(self) -> Path:
        """Data directory of the replica."""
        return self.directory / self.name


class ClusterDirectory:
    """The directory of a cluster that began with `nodes` replicas n1, n2, ...

    Clients are served on `port` and the following ports, peers on `peer_port` and the following ones; None chooses free
    ports. `settings` applies to all replicas. `replicas` has the current replicas, with added and without removed ones.
    """

    def __init__(
        self, path: Path, nodes: int, port: int | None, peer_port: int | None, settings: Mapping[str, int | str]
    ) -> None:
        self.path = path.absolute()
        names = [f"n{number}" for number in range(1, nodes + 1)]
        added = _added_replicas(self.path)
        taken = [address.port for replica in added.values() for address in (replica.listen, replica.peers)]
        ports = list(range(port, port + nodes)) if port else free_ports(HOST, nodes, taken)
        taken += ports
        peer_ports = list(range(peer_port, peer_port + nodes)) if peer_port else free_ports(HOST, nodes, taken)
        self._initial = {
            name: LocalReplica(name, Address(HOST, listen), Address(HOST, peers), self.path)
            for name, listen, peers in zip(names, ports, peer_ports, strict=True)
        }
        self.replicas = {name: replica for name, replica in self._initial.items() if not replica.removed.exists()}
        self.replicas |= added
        self._settings = dict(settings)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the directory. The system releases it when the process is killed.

        Raises ClusterError when another process has the lock. Enter before `prepare`, which would overwrite the
        settings of a running cluster.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "cluster.lock").open("a+", errors="replace") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise ClusterError(
                    f"{self.path} is in use by a running cluster ({lock.read() or 'process unknown'}): stop that "
                    "cluster, or use another directory with --data and other ports with --port and --peer-port"
                ) from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()}")
            lock.flush()
            yield

    def prepare(self, routes: Routes = MappingProxyType({})) -> None:
        """Check the ports and the present content of the directory, then write the settings. Raises ClusterError."""
        self._refuse_other_size()
        self._refuse_used_ports()
        self.write_settings(routes)

    def write_settings(self, routes: Routes = MappingProxyType({})) -> None:
        """Write the secret and the settings of all replicas. An existing cluster name is kept, because the data
        contains it."""
        self._settings = {**self._present_cluster_name(), **self._settings}
        self.path.mkdir(parents=True, exist_ok=True)
        make_secret(self.path / "secret")
        for replica in self.replicas.values():
            replica.config.write_text(self._settings_of(replica, routes))

    def new_replica(self, name: str) -> LocalReplica:
        """Return a replica to add, with free ports."""
        taken = [address.port for replica in self.replicas.values() for address in (replica.listen, replica.peers)]
        listen, peers = free_ports(HOST, 2, taken)
        return LocalReplica(name, Address(HOST, listen), Address(HOST, peers), self.path, joins=True)

    def add(self, replica: LocalReplica) -> None:
        """Write the settings of an added replica."""
        self.replicas[replica.name] = replica
        replica.removed.unlink(missing_ok=True)
        replica.config.write_text(self._settings_of(replica, {}))

    def mark_joining(self, name: str) -> None:
        """Write the settings of a replaced replica, which joins the running cluster with an empty disk."""
        self.add(replace(self.replicas[name], joins=True))

    def remove(self, name: str) -> None:
        """Record that a replica was removed. Its data and its log stay."""
        replica = self.replicas.pop(name)
        replica.config.rename(replica.removed)

    def _present_cluster_name(self) -> dict[str, str]:
        """Return the setting `cluster` from an existing settings file, if it is there: `kvstore restore` writes it."""
        for replica in self.replicas.values():
            try:
                name = tomllib.loads(replica.config.read_text()).get("cluster")
            except (OSError, ValueError):
                continue
            if name is not None:
                return {"cluster": str(name)}
        return {}

    def _settings_of(self, replica: LocalReplica, routes: Routes) -> str:
        values: dict[str, int | str | bool] = {
            "node": replica.name,
            "listen": str(replica.listen),
            "data": str(replica.data),
            "secret_file": str(self.path / "secret"),
            **({"join": True} if replica.joins else {}),
            **self._settings,
        }
        members = self._initial | (self.replicas if replica.joins else {})
        addresses = {name: str(routes.get((replica.name, name), other.peers)) for name, other in members.items()}
        # Strings, integers and booleans are written in TOML as in JSON.
        return "\n".join(
            [
                "# `kvstore cluster` overwrites this file each time it starts.",
                *(f"{name} = {json.dumps(value)}" for name, value in values.items()),
                "",
                "[members]",
                *(f"{name} = {json.dumps(address)}" for name, address in addresses.items()),
                "",
            ]
        )

    def _refuse_other_size(self) -> None:
        if not self.path.is_dir():
            return
        found = {path.name for path in self.path.iterdir() if path.is_dir() and re.fullmatch(r"n\d+", path.name)}
        added = {name for name in found if _joins(self.path / f"{name}.toml")}
        initial = found - added - {name for name in found if _joins(self.path / f"{name}.toml.removed")}
        if found and initial != self._initial.keys() - added:
            raise ClusterError(
                f"{self.path} holds the data of a cluster that began with {len(initial)} replicas, not "
                f"{len(self._initial)}: start it with --nodes {len(initial)} and change its members with "
                "`kvstore member`, or use another directory with --data"
            )

    def _refuse_used_ports(self) -> None:
        ports = [address.port for replica in self.replicas.values() for address in (replica.listen, replica.peers)]
        if len(set(ports)) < len(ports):
            raise ClusterError(
                f"{len(self.replicas)} replicas need {len(ports)} different ports, but the ports for clients and for "
                "peers overlap: change --port or --peer-port"
            )
        used = [
            f"{address} (port of {replica.name} for {use})"
            for replica in self.replicas.values()
            for use, address in (("clients", replica.listen), ("peers", replica.peers))
            if not is_free(HOST, address.port)
        ]
        if used:
            raise ClusterError(
                f"already in use: {', '.join(used)}. If another cluster is running, stop it; otherwise choose other "
                "ports with --port and --peer-port"
            )


def _joins(config: Path) -> bool:
    """Return whether `config` has the settings of an added replica. Raises ClusterError if it is no settings file."""
    return config.exists() and _read(config).get("join", False) is True


def _read(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text_of(config.read_bytes()))
    except ValueError as error:
        raise ClusterError(
            f"{config} is no settings file of a replica ({error}): restore it, or move it out of the directory"
        ) from None


def _added_replicas(directory: Path) -> dict[str, LocalReplica]:
    """Return the replicas that were added to the cluster in `directory`, with their last addresses."""
    replicas = {}
    for config in sorted(directory.glob("*.toml")):
        if _joins(config):
            settings = _read(config)
            try:
                name = settings["node"]
                listen, peers = parse_address(settings["listen"]), parse_address(settings["members"][name])
            except (KeyError, TypeError, AttributeError, InvalidAddressError) as error:
                raise ClusterError(
                    f"{config} lacks settings ({error}): restore it, or move it out of the directory"
                ) from None
            replicas[name] = LocalReplica(name, listen, peers, directory, joins=True)
    return replicas
