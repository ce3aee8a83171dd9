"""The process of one replica: its composition, its shutdown, and its recovery from damaged data."""

import asyncio
import gc
import logging
import secrets
import signal
import sys
from collections.abc import Callable, Collection
from functools import partial
from random import Random
from typing import Any

import uvloop

from kvstore.peers.compatibility import compatibility_of
from kvstore.peers.handshake_messages import ProcessIdentity, Start
from kvstore.peers.transport import Transport
from kvstore.replica.applier import restored_mark
from kvstore.replica.founding import FoundingPlan
from kvstore.replica.node import Node
from kvstore.server.config import Settings
from kvstore.server.event_loop import NodeDriver, boot_clock
from kvstore.server.http.server import Frontend
from kvstore.server.metrics import Metrics
from kvstore.server.output import install
from kvstore.server.service import Service
from kvstore.server.startup import (
    host_names_of,
    leftover_warning,
    limits_of,
    options_of,
    refuse_other_founders,
    retention_of,
)
from paxos.messages import AnyMessage
from paxos.types import NodeId
from storage.base import DamagedError, StorageError
from storage.set_aside import set_aside
from storage.sqlite import SqliteStorage, open_storage

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""Longest time that the storage thread, after an fsync, waits for the event loop to release the interpreter."""


class ReplicaServer:
    """One running replica: node, storage thread, peer links, metrics and HTTP front end.

    `ended` is done when the replica has failed, see NodeDriver. Raises StorageError if the stored state is unusable.
    """

    def __init__(self, settings: Settings, storage: SqliteStorage) -> None:
        self._settings = settings
        metrics = Metrics()
        node = _make_node(settings, storage, metrics.observe_batch)
        leftover = leftover_warning(storage.recovered(), settings)
        if leftover is not None:
            log.warning("%s: %s", settings.node, leftover)
        if node.founding.pending:
            refuse_other_founders(storage.recovered().identity, settings)
        self.driver = NodeDriver(
            node,
            storage,
            partial(_make_transport, settings, storage),
            addresses=settings.members,
            data=str(settings.data),
            on_sync=metrics.observe_fsync,
        )
        self.ended = self.driver.ended
        self.service = Service(self.driver, settings)
        metrics.watch(self.service.snapshot)
        self._frontend = Frontend(self.service, metrics, limits_of(settings), host_names_of(settings))

    async def start(self) -> None:
        """Listen for peers and clients. Raises OSError if it cannot listen on an address."""
        settings = self._settings
        await self.driver.start()
        await self._frontend.start(settings.listen.host, settings.listen.port)
        log.info(
            "%s serves clients on http://%s and peers on %s, with %d applied slots from %s",
            settings.node,
            settings.listen,
            settings.peer_bind,
            self.driver.node.applied,
            settings.data,
        )

    async def stop(self) -> None:
        """Hand over leadership, answer the requests in flight through the next leader, and stop."""
        log.info("%s is stopping: it hands over leadership and answers the requests in flight", self._settings.node)
        self.service.stopping = True
        self.driver.node.hand_over()
        self.driver.wake()
        await self._frontend.stop(self._settings.request_timeout_ms)
        await self.driver.close()
        log.info("%s has stopped", self._settings.node)

    async def abandon(self) -> None:
        """Stop after a failure, without another vote or answer."""
        await self._frontend.stop(0)
        await self.driver.abandon()


def _make_node(settings: Settings, storage: SqliteStorage, on_batch: Callable[[int], None]) -> Node:
    plan = FoundingPlan(storage.recovered().identity.members, settings.bootstrap_without)
    return Node(
        storage,
        options_of(settings),
        clock=boot_clock,
        rng=Random(secrets.randbits(64)),
        request_timeout_ms=settings.request_timeout_ms,
        max_waiting=settings.max_in_flight,
        quota_bytes=settings.quota_bytes,
        limits=retention_of(settings),
        plan=plan,
        on_batch=on_batch,
    )


def _make_transport(
    settings: Settings,
    storage: SqliteStorage,
    on_message: Callable[[NodeId, AnyMessage], None],
    remember: Callable[[ProcessIdentity, Callable[[], None]], None],
) -> Transport:
    recovered = storage.recovered()
    own = recovered.identity
    return Transport(
        node=settings.node,
        cluster=settings.cluster,
        identity=ProcessIdentity(own.incarnation, own.boot, recovered.lineage.life),
        secret=settings.shared_secret(),
        compatibility=compatibility_of(
            settings.lease_ms, settings.clock_drift_ppm, own.members, restored_mark(recovered.progress)
        ),
        replaces=recovered.replaces,
        seen={start.incarnation: Start(start.boot, start.life) for start in recovered.seen},
        includes=recovered.lineage.includes,
        remember=remember,
        listen=settings.peer_bind,
        peers={},
        on_message=on_message,
        on_change=lambda peer, connected: log.info(
            "%s: the link to %s is %s", settings.node, peer, "up" if connected else "down"
        ),
    )


async def _run(settings: Settings) -> None:
    """Run until SIGINT or SIGTERM.

    Damaged data is set aside, and the replica starts again without data and asks its peers for a snapshot (rule 5). A
    single member has no peers: it fails.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    stop_requested = loop.create_task(stop.wait())
    founders: Collection[NodeId] = () if settings.join else settings.members
    while True:
        try:
            await _serve_until(stop_requested, settings, founders)
        except DamagedError as error:
            if len(settings.members) == 1:
                raise
            damaged = set_aside(settings.data)
            text = "%s: %s. Moved the damaged data to %s; the replica starts empty and asks its peers for a snapshot"
            log.critical(text, settings.node, error, damaged)
            founders = ()
        else:
            return


async def _serve_until(stop_requested: asyncio.Future[Any], settings: Settings, founders: Collection[NodeId]) -> None:
    """Serve from the data directory until `stop_requested`. Raises the error that ended the replica before that."""
    storage = open_storage(
        settings.data, settings.cluster, settings.node, founders, reserve_bytes=settings.reserve_bytes
    )
    try:
        server = _load(settings, storage)
    except StorageError:
        storage.close()
        raise
    await server.start()
    await asyncio.wait([stop_requested, server.ended], return_when=asyncio.FIRST_COMPLETED)
    if server.ended.done():
        await server.abandon()
        server.ended.result()
    await server.stop()


def _load(settings: Settings, storage: SqliteStorage) -> ReplicaServer:
    """Load the stored state, and exclude it from garbage collection.

    With a million keys each collection would take tens of milliseconds and free nothing.
    """
    gc.disable()
    try:
        server = ReplicaServer(settings, storage)
    finally:
        gc.enable()
    gc.freeze()
    return server


def serve(settings: Settings) -> None:
    """Run one replica until SIGTERM or SIGINT. Raises the error that ended it, such as StorageError or OSError.

    From the first call on, `sys.stderr` of this process is a NonblockingOutput.
    """
    install("stderr")
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    for warning in settings.warnings():
        log.warning("%s", warning)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    uvloop.run(_run(settings))
