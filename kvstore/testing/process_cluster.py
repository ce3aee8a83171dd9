"""A cluster of real processes on this machine: `ProcessCluster`, which `kvstore cluster` runs and tests break.

Everything lives in one directory: `secret`, `cluster.lock`, and for each replica its settings `n1.toml`, its output
`n1.log` and its data `n1/`. A replica that died stays dead until somebody starts it: here, or by hand,
`kvstore serve --config n1.toml`. The settings of one that was added say so, with `join = true`, and those of one that
was removed are `n1.toml.removed`: by that the next run knows whom to start.
"""

import asyncio
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import msgspec
from msgspec.structs import replace

from kvstore.api.membership import MemberRole
from kvstore.api.status import MembersStatus, Status
from kvstore.client import Client, ClientError
from kvstore.server.config import ENV_PREFIX, Address, parse_address
from kvstore.testing.machine import end_with_parent, free_ports, is_free, make_secret

HOST = "127.0.0.1"
STOP_S = 10.0
"""A replica that was asked to stop and has not done so after this time is killed."""
POLL_S = 0.05
STATUS_MS = 500

_OWN_SETTINGS = {"node", "members", "join", "listen", "peer_listen", "data", "secret", "secret_file"}


class ClusterError(Exception):
    """A local cluster cannot start or does not come up. The message says why and what to do."""


class NotReadyError(ClusterError):
    """The replicas run, and have not become ready in time; they may yet."""


class LocalReplica(msgspec.Struct, frozen=True):
    """Where one replica of a local cluster listens and keeps its files."""

    name: str
    listen: Address
    peers: Address
    directory: Path
    joins: bool = False
    """It was added to the cluster while that ran."""

    @property
    def url(self) -> str:
        """Base address for clients."""
        return f"http://{self.listen}"

    @property
    def config(self) -> Path:
        """The file that `kvstore serve --config` takes."""
        return self.directory / f"{self.name}.toml"

    @property
    def removed(self) -> Path:
        """What its settings are called once it was removed from the cluster."""
        return self.directory / f"{self.name}.toml.removed"

    @property
    def log(self) -> Path:
        """What the replica printed."""
        return self.directory / f"{self.name}.log"

    @property
    def data(self) -> Path:
        """Directory of the replica's own data."""
        return self.directory / self.name


class Process(Protocol):
    """A replica that was started; the part of `subprocess.Popen` that is used of it."""

    pid: int

    def poll(self) -> int | None:
        """Exit status, the negative signal if one ended it; None while it runs."""

    def wait(self) -> int:
        """The same, once it has ended."""

    def send_signal(self, number: int, /) -> None:
        """Nothing, where it has ended."""

    def kill(self) -> None:
        """SIGKILL."""

    def terminate(self) -> None:
        """SIGTERM."""


class ProcessCluster:
    """`nodes` replicas n1, n2, ... in `directory`: clients on `port` and the next ones, peers on `peer_port` and the
    next ones, on free ports when they are None. `settings` holds for all replicas. With those that were added to the
    cluster in this directory, without those that were removed from it.

    A replica ends when the thread that started it does: call `start` from the main thread. The order of use is
    `prepare`, `start`, `wait_ready`, anything, `stop`.
    """

    def __init__(
        self,
        nodes: int,
        directory: Path,
        *,
        port: int | None = None,
        peer_port: int | None = None,
        settings: Mapping[str, int | str] | None = None,
    ) -> None:
        self.directory = directory.absolute()
        ports = list(range(port, port + nodes)) if port else free_ports(HOST, nodes)
        peer_ports = list(range(peer_port, peer_port + nodes)) if peer_port else free_ports(HOST, nodes, taken=ports)
        self._founders = {
            name: LocalReplica(name, Address(HOST, listen), Address(HOST, peers), self.directory)
            for name, listen, peers in zip(_names(nodes), ports, peer_ports, strict=True)
        }
        self.replicas = {name: place for name, place in self._founders.items() if not place.removed.exists()}
        self.replicas |= _added(self.directory)
        self._settings = dict(settings or {})
        self._processes: dict[str, Process] = {}

    @property
    def endpoints(self) -> list[str]:
        """Base addresses of all replicas, for a client."""
        return [place.url for place in self.replicas.values()]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the directory from other supervisors meanwhile, also when this process is killed: enter it before
        `prepare`, which would rewrite the settings of a cluster that runs. Raises ClusterError when another has it.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "cluster.lock").open("a+", errors="replace") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise ClusterError(
                    f"{self.directory} is in use by a cluster that runs ({lock.read() or 'its process is not known'}): "
                    "stop that one, or give this one another directory with --data and other ports"
                ) from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()}")
            lock.flush()
            yield

    def prepare(self, via: Mapping[tuple[str, str], Address] = MappingProxyType({})) -> None:
        """Check ports and what is in the directory, then write the secret and the settings. Raises ClusterError.

        `via`: where the first of two replicas dials the second, if not at its peer listener: a proxy between them.
        """
        self._refuse_other_size()
        self._refuse_used_ports()
        self.write_settings(via)

    def write_settings(self, via: Mapping[tuple[str, str], Address] = MappingProxyType({})) -> None:
        """The part of `prepare` that writes. A cluster that has a name already keeps it: its data has it too."""
        self._settings = {**self._given_name(), **self._settings}
        self.directory.mkdir(parents=True, exist_ok=True)
        make_secret(self.directory / "secret")
        for place in self.replicas.values():
            place.config.write_text(self._config_of(place, via))

    async def add(self, name: str, role: MemberRole = MemberRole.VOTER) -> LocalReplica:
        """Have a new replica join the cluster, which runs, and start it. It has not caught up on return, see
        `wait_joined`. Raises ClientError when the cluster refuses it."""
        taken = [address.port for place in self.replicas.values() for address in (place.listen, place.peers)]
        listen, peers = free_ports(HOST, 2, taken)
        place = LocalReplica(name, Address(HOST, listen), Address(HOST, peers), self.directory, joins=True)
        async with Client(self.endpoints) as client:
            await client.add_member(name, str(place.peers), role)
        self.replicas[name] = place
        place.removed.unlink(missing_ok=True)
        place.config.write_text(self._config_of(place, {}))
        self.start([name])
        return place

    def have_join(self, name: str) -> None:
        """Write the settings of a replica that was replaced: with its new disk it joins, by way of the members of
        now."""
        place = self.replicas[name] = replace(self.replicas[name], joins=True)
        place.config.write_text(self._config_of(place, {}))

    async def remove(self, name: str) -> None:
        """Make a replica a member no more, and stop it. Its data stays. Raises ClientError when the cluster refuses."""
        async with Client(self.endpoints) as client:
            await client.remove_member(name)
        await self.stop([name])
        place = self.replicas.pop(name)
        place.config.rename(place.removed)

    async def wait_joined(self, *names: str, timeout_s: float = 60.0) -> MembersStatus:
        """Wait until these members have caught up, and vote if they shall. Raises NotReadyError when the time is
        over."""
        deadline = time.monotonic() + timeout_s
        async with Client(self.endpoints) as client:
            while True:
                status = await client.members()
                ready = {each.name for each in status.members if not each.joining and each.incarnation != "0"}
                if status.in_force and ready >= set(names):
                    return status
                if time.monotonic() > deadline:
                    missing = ", ".join(sorted(set(names) - ready))
                    raise NotReadyError(f"{missing} did not catch up in time; see {self.directory}/*.log")
                await asyncio.sleep(POLL_S)

    def start(self, names: Iterable[str] | None = None) -> None:
        """Start these replicas, all by default; those that run are left alone."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if name.removeprefix(ENV_PREFIX).lower() not in _OWN_SETTINGS or not name.startswith(ENV_PREFIX)
        }
        for name in self._chosen(names):
            if self.runs(name):
                continue
            self._processes[name] = self.spawn(name, environment)

    def spawn(self, name: str, environment: Mapping[str, str]) -> Process:
        """A process that is this replica."""
        with self.replicas[name].log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own program
                self.command(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # the terminal's Ctrl-C is for the supervisor, which stops all in order
                preexec_fn=end_with_parent,  # noqa: PLW1509 - called before any thread is started
            )

    def command(self, name: str) -> list[str]:
        """What `spawn` runs as this replica."""
        return [sys.executable, "-m", "kvstore", "serve", "--config", str(self.replicas[name].config)]

    def runs(self, name: str) -> bool:
        """True while the process that `start` made for this replica is there, paused or not."""
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def exit_of(self, name: str) -> int | None:
        """Exit status of a replica that ended, the negative signal if one ended it; None while it runs."""
        process = self._processes.get(name)
        return None if process is None else process.poll()

    def process_id(self, name: str) -> int:
        """The process id of a replica that was started here."""
        return self._processes[name].pid

    def kill(self, *names: str) -> None:
        """End these replicas with SIGKILL, all at once; they are gone on return."""
        for name in names:
            self._processes[name].kill()
        for name in names:
            self._processes[name].wait()

    def pause(self, name: str) -> None:
        """Stop a replica with SIGSTOP: it keeps its connections and does nothing."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a paused replica continue."""
        self._processes[name].send_signal(signal.SIGCONT)

    async def stop(self, names: Iterable[str] | None = None) -> list[str]:
        """End these replicas with SIGTERM, all by default, and wait. Gives the names of those that had to be killed."""
        running = [name for name in self._chosen(names) if self.runs(name)]
        for name in running:
            self._processes[name].terminate()
            self.resume(name)  # a paused one could not end
        deadline = time.monotonic() + STOP_S
        while any(map(self.runs, running)) and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody tells of an exit
            await asyncio.sleep(POLL_S)
        stubborn = [name for name in running if self.runs(name)]
        self.kill(*stubborn)
        return stubborn

    async def restart(self, name: str) -> None:
        """Stop a replica in order and start it again."""
        await self.stop([name])
        self.start([name])

    async def statuses(self, client: Client) -> dict[str, Status | None]:
        """What each replica says about itself, None for those that do not answer in time."""

        found = await asyncio.gather(*(status_of(client, place) for place in self.replicas.values()))
        return dict(zip(self.replicas, found, strict=True))

    def status_client(self) -> Client:
        """A client for `statuses`: it does not wait long for a replica that is stopped."""
        return Client(self.endpoints, timeout_ms=STATUS_MS, attempt_ms=STATUS_MS)

    async def wait_ready(self, names: Iterable[str] | None = None, *, timeout_s: float = 30.0) -> str:
        """Wait until these replicas are ready, all by default, and follow one leader; gives its name.

        Raises ClusterError when one of them ends, NotReadyError when the time is over.
        """
        wanted = self._chosen(names)
        deadline = time.monotonic() + timeout_s
        async with self.status_client() as client:
            while True:
                statuses = await self.statuses(client)
                leader = leader_of(statuses)
                if leader and all((status := statuses[name]) and status.ready for name in wanted):
                    return leader
                for name in wanted:
                    if self.exit_of(name) is not None:
                        raise ClusterError(self._obituary(name))
                if time.monotonic() > deadline:
                    missing = what_is_missing({name: statuses[name] for name in wanted})
                    raise NotReadyError(f"not ready yet: {missing}; see {self.directory}/*.log")
                await asyncio.sleep(POLL_S)

    def _obituary(self, name: str) -> str:
        place = self.replicas[name]
        lines = place.log.read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        return (
            f"{name} ended at start ({describe_exit(self.exit_of(name))}): {last}\nAll of its output is in {place.log}"
        )

    def _chosen(self, names: Iterable[str] | None) -> list[str]:
        return list(self.replicas if names is None else names)

    def _given_name(self) -> dict[str, str]:
        """The name that the settings in the directory give the cluster, if they do: those of a restored one."""
        for place in self.replicas.values():
            try:
                found = tomllib.loads(place.config.read_text()).get("cluster")
            except (OSError, ValueError):
                continue
            if found is not None:
                return {"cluster": str(found)}
        return {}

    def _config_of(self, place: LocalReplica, via: Mapping[tuple[str, str], Address]) -> str:
        values: dict[str, int | str | bool] = {
            "node": place.name,
            "listen": str(place.listen),
            "data": str(place.data),
            "secret_file": str(self.directory / "secret"),
            **({"join": True} if place.joins else {}),
            **self._settings,
        }
        told = self._founders | (self.replicas if place.joins else {})
        members = {name: str(via.get((place.name, name), other.peers)) for name, other in told.items()}
        # JSON's strings, whole numbers and truth values are TOML's too.
        return "\n".join(
            [
                "# Written anew by `kvstore cluster` each time that it starts.",
                *(f"{name} = {json.dumps(value)}" for name, value in values.items()),
                "",
                "[members]",
                *(f"{name} = {json.dumps(address)}" for name, address in members.items()),
                "",
            ]
        )

    def _refuse_other_size(self) -> None:
        if not self.directory.is_dir():
            return
        found = {path.name for path in self.directory.iterdir() if path.is_dir() and re.fullmatch(r"n\d+", path.name)}
        added = {name for name in found if _joins(self.directory / f"{name}.toml")}
        began = found - added - {name for name in found if _joins(self.directory / f"{name}.toml.removed")}
        if found and began != self._founders.keys() - added:
            raise ClusterError(
                f"{self.directory} holds the data of a cluster that began with {len(began)} replicas: run it with "
                f"--nodes {len(began)} and change its members with `kvstore member`, or give these "
                f"{len(self._founders)} another directory"
            )

    def _refuse_used_ports(self) -> None:
        ports = [address.port for place in self.replicas.values() for address in (place.listen, place.peers)]
        if len(set(ports)) < len(ports):
            raise ClusterError(
                f"clients and peers of {len(self.replicas)} replicas need {len(ports)} ports, and these ranges overlap: "
                "move --port or --peer-port"
            )
        used = [
            f"{address} ({place.name}'s {use})"
            for place in self.replicas.values()
            for use, address in (("clients", place.listen), ("peers", place.peers))
            if not is_free(HOST, address.port)
        ]
        if used:
            raise ClusterError(
                f"in use already: {', '.join(used)}. Is another cluster running? Stop it, or choose other ports with "
                "--port and --peer-port"
            )


async def status_of(client: Client, place: LocalReplica) -> Status | None:
    """What the replica says about itself; None when it does not answer in time, or something else answers there."""
    try:
        return await client.status(place.url)
    except (ClientError, UnicodeDecodeError):  # the latter of a JSON text that is not UTF-8
        return None


def what_is_missing(statuses: Mapping[str, Status | None]) -> str:
    """Why a cluster whose replicas say this about themselves is not ready, for people."""
    reasons = [
        f"{name} is still starting: it replays its log" if status is None else f"{name} catches up with the others"
        for name, status in statuses.items()
        if status is None or not status.ready
    ]
    return ", ".join(reasons) or "no replica leads"


def leader_of(statuses: Mapping[str, Status | None]) -> str | None:
    """The replica that leads: of those that say so, the one with the highest ballot; another one has not heard yet."""
    leaders = [status for status in statuses.values() if status is not None and status.role == "leader"]
    return max(leaders, key=lambda status: int(status.ballot.partition(".")[0])).id if leaders else None


def describe_exit(code: int | None) -> str:
    """How a process ended, for people: `killed by SIGKILL`, `exit status 1`."""
    if code is None:
        return "running"
    if code >= 0:
        return f"exit status {code}"
    named = {number.value: number.name for number in signal.Signals}
    return f"killed by {named.get(-code, f'signal {-code}')}"


def _names(nodes: int) -> list[str]:
    return [f"n{number}" for number in range(1, nodes + 1)]


def _joins(config: Path) -> bool:
    """Whether these are the settings of a replica that was added."""
    return config.exists() and tomllib.loads(config.read_text()).get("join", False) is True


def _added(directory: Path) -> dict[str, LocalReplica]:
    """The replicas that were added to the cluster in `directory`, where they listened last."""
    places = {}
    for config in sorted(directory.glob("*.toml")):
        if _joins(config):
            told = tomllib.loads(config.read_text())
            name = told["node"]
            listen, peers = parse_address(told["listen"]), parse_address(told["members"][name])
            places[name] = LocalReplica(name, listen, peers, directory, joins=True)
    return places
