"""A cluster of replicas as processes on this machine: `kvstore cluster` runs it, tests and benchmarks break it.

A replica that died stays dead until it is started again: by `ProcessCluster.start`, or by hand with
`kvstore serve --config n1.toml`.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from kvstore.api.membership import MemberRole
from kvstore.api.status import MembersStatus, Status
from kvstore.client import Client
from kvstore.server.config import ENV_PREFIX
from kvstore.testing.cluster_directory import ClusterDirectory, ClusterError, LocalReplica, Routes
from kvstore.testing.machine import end_with_parent
from kvstore.testing.replica_status import describe_exit, leader_of, status_of, what_is_missing

STOP_S = 10.0
"""Time after SIGTERM at which a replica that still runs is killed."""
READY_S = 120.0
"""Default timeout of a wait for replicas or a leader. It is usually over within a second, but not on a busy machine."""
POLL_S = 0.05
"""Polling interval of processes and their statuses."""
STATUS_MS = 500
"""Timeout of a status request; a paused replica never answers."""

_OWN_SETTINGS = {"node", "members", "join", "listen", "peer_listen", "data", "secret", "secret_file"}
"""Settings that the cluster writes, so that a replica must not take them from the environment."""


class NotReadyError(ClusterError):
    """The replicas run, but are not ready yet. They may become ready later."""


class ReplicaProcess(Protocol):
    """The process of one replica: the part of `subprocess.Popen` that is used here."""

    @property
    def pid(self) -> int:
        """Process id."""

    def poll(self) -> int | None:
        """Return the exit status, or the negative number of the signal that ended it; None while it runs."""

    def wait(self) -> int:
        """Wait for the end, then return the exit status."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal; do nothing when the process has ended."""

    def kill(self) -> None:
        """Send SIGKILL."""

    def terminate(self) -> None:
        """Send SIGTERM."""


class ProcessCluster:
    """The processes of `nodes` replicas n1, n2, ... with their files in `directory`; see ClusterDirectory.

    The order of use is `prepare`, `start`, `wait_ready`, any other calls, `stop`. A replica ends with the thread that
    started it, so call `start` in the main thread.
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
        self._files = ClusterDirectory(directory, nodes, port, peer_port, settings or {})
        self._processes: dict[str, ReplicaProcess] = {}

    @property
    def directory(self) -> Path:
        """Directory of the cluster."""
        return self._files.path

    @property
    def replicas(self) -> dict[str, LocalReplica]:
        """Present replicas by name."""
        return self._files.replicas

    @property
    def endpoints(self) -> list[str]:
        """Base addresses of all replicas, for a client."""
        return [replica.url for replica in self.replicas.values()]

    def locked(self) -> AbstractContextManager[None]:
        """Hold the lock of the directory, see ClusterDirectory. Raises ClusterError."""
        return self._files.locked()

    def prepare(self, routes: Routes = MappingProxyType({})) -> None:
        """Check the ports and the directory, then write the settings. Raises ClusterError."""
        self._files.prepare(routes)

    async def add(self, name: str, role: MemberRole = MemberRole.VOTER) -> LocalReplica:
        """Add a replica to the running cluster and start it, without waiting until it has caught up, see `wait_joined`.

        Raises ClientError when the cluster refuses the change.
        """
        replica = self._files.new_replica(name)
        async with Client(self.endpoints) as client:
            await client.add_member(name, str(replica.peers), role)
        self._files.add(replica)
        self.start([name])
        return replica

    def mark_joining(self, name: str) -> None:
        """Make a replaced replica join the cluster with an empty disk at its next start."""
        self._files.mark_joining(name)

    async def remove(self, name: str) -> None:
        """Remove a replica from the cluster, then stop it. Its data stays. Raises ClientError when the cluster refuses
        the change."""
        async with Client(self.endpoints) as client:
            await client.remove_member(name)
        await self.stop([name])
        self._files.remove(name)

    async def wait_joined(self, *names: str, timeout_s: float = READY_S) -> MembersStatus:
        """Wait until these members have caught up, and vote if they are voters. Raises NotReadyError after
        `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        async with Client(self.endpoints) as client:
            while True:
                status = await client.members()
                ready = {each.name for each in status.members if not each.joining and each.incarnation != "0"}
                if status.in_force and ready >= set(names):
                    return status
                if time.monotonic() > deadline:
                    missing = ", ".join(sorted(set(names) - ready)) or "the membership change"
                    raise NotReadyError(f"not ready after {timeout_s:g} s: {missing}; see {self.directory}/*.log")
                await asyncio.sleep(POLL_S)

    def start(self, names: Iterable[str] | None = None) -> None:
        """Start these replicas, all by default, unless they run already."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if name.removeprefix(ENV_PREFIX).lower() not in _OWN_SETTINGS or not name.startswith(ENV_PREFIX)
        }
        for name in self._chosen(names):
            if not self.runs(name):
                self._processes[name] = self.spawn(name, environment)

    def spawn(self, name: str, environment: Mapping[str, str]) -> ReplicaProcess:
        """Start the process of one replica."""
        with self.replicas[name].log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own program
                self.command(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches only the parent, which stops the replicas
                preexec_fn=end_with_parent,  # noqa: PLW1509 - called before any thread is started
            )

    def command(self, name: str) -> list[str]:
        """Return the command line of one replica."""
        return [sys.executable, "-m", "kvstore", "serve", "--config", str(self.replicas[name].config)]

    def runs(self, name: str) -> bool:
        """Return whether the process of this replica exists, paused or not."""
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def exit_of(self, name: str) -> int | None:
        """Return the exit status of a replica, or the negative number of the signal that ended it; None while it
        runs."""
        process = self._processes.get(name)
        return None if process is None else process.poll()

    def process_id(self, name: str) -> int:
        """Return the process id of a started replica."""
        return self._processes[name].pid

    def kill(self, *names: str) -> None:
        """End these replicas with SIGKILL, all at once, and wait until they are gone."""
        for name in names:
            self._processes[name].kill()
        for name in names:
            self._processes[name].wait()

    def pause(self, name: str) -> None:
        """Suspend a replica with SIGSTOP: it keeps its connections and does nothing."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Resume a paused replica with SIGCONT."""
        self._processes[name].send_signal(signal.SIGCONT)

    async def stop(self, names: Iterable[str] | None = None) -> list[str]:
        """Stop these replicas, all by default, with SIGTERM and wait. Return the names of replicas that had to be
        killed."""
        running = [name for name in self._chosen(names) if self.runs(name)]
        for name in running:
            self._processes[name].terminate()
            self.resume(name)  # a paused process handles no SIGTERM
        deadline = time.monotonic() + STOP_S
        while any(map(self.runs, running)) and time.monotonic() < deadline:  # noqa: ASYNC110 - an exit sets no event
            await asyncio.sleep(POLL_S)
        unstopped = [name for name in running if self.runs(name)]
        self.kill(*unstopped)
        return unstopped

    async def restart(self, name: str) -> None:
        """Stop a replica with SIGTERM and start it again."""
        await self.stop([name])
        self.start([name])

    async def statuses(self, client: Client) -> dict[str, Status | None]:
        """Return the status of each replica; None for a replica that does not answer in time."""
        found = await asyncio.gather(*(status_of(client, replica) for replica in self.replicas.values()))
        return dict(zip(self.replicas, found, strict=True))

    def status_client(self) -> Client:
        """Return a client for `statuses`, which does not wait long for a paused replica."""
        return Client(self.endpoints, timeout_ms=STATUS_MS, attempt_ms=STATUS_MS)

    async def wait_ready(self, names: Iterable[str] | None = None, *, timeout_s: float = READY_S) -> str:
        """Wait until these replicas, all by default, are ready and follow one leader; return its name.

        Raises ClusterError when one of them ends, NotReadyError after `timeout_s`.
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
                        raise ClusterError(self._describe_early_exit(name))
                if time.monotonic() > deadline:
                    missing = what_is_missing({name: statuses[name] for name in wanted})
                    raise NotReadyError(f"not ready yet: {missing}; see {self.directory}/*.log")
                await asyncio.sleep(POLL_S)

    def _describe_early_exit(self, name: str) -> str:
        log = self.replicas[name].log
        lines = log.read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        return f"{name} ended during its start ({describe_exit(self.exit_of(name))}): {last}\nAll of its output: {log}"

    def _chosen(self, names: Iterable[str] | None) -> list[str]:
        return list(self.replicas if names is None else names)
