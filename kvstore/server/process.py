"""The process of one replica: its lives, one after the other, and its end."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Collection
from typing import Any

import uvloop

from kvstore.server.config import Settings
from kvstore.server.event_loop import Runtime
from paxos.types import NodeId
from storage.base import DamagedError, StorageError
from storage.directory import set_aside
from storage.sqlite import SqliteStorage, open_storage

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""How long the event loop may keep the storage thread, back from fsync, waiting for the interpreter."""


async def _run(settings: Settings) -> None:
    """Run until it is asked to stop. Damaged data is set aside, and the replica goes on as one that its peers give the
    state to (rule 5); a lone one has nobody to ask."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    asked = loop.create_task(stop.wait())
    founders: Collection[NodeId] = () if settings.join else settings.members
    while True:
        try:
            await _live(settings, founders, asked)
        except DamagedError as error:
            if len(settings.members) == 1:
                raise
            place = set_aside(settings.data)
            log.critical("%s: %s. It is in %s now; this replica begins anew", settings.node, error, place)
            founders = ()
        else:
            return


async def _live(settings: Settings, founders: Collection[NodeId], asked: asyncio.Future[Any]) -> None:
    """One life on one disk, until `asked` is done. Raises what ended it before."""
    storage = open_storage(settings.data, settings.cluster, settings.node, founders)
    try:
        runtime = _load(settings, storage)
    except StorageError:
        storage.close()
        raise
    await runtime.start()
    await asyncio.wait([asked, runtime.ended], return_when=asyncio.FIRST_COMPLETED)
    if runtime.ended.done():
        await runtime.abandon()
        runtime.ended.result()
    await runtime.stop()


def _load(settings: Settings, storage: SqliteStorage) -> Runtime:
    """A replica with all that is stored. The collector of garbage need not look through that, now or ever again: with a
    million keys it takes tens of milliseconds each time, and finds nothing."""
    gc.disable()
    try:
        runtime = Runtime(settings, storage)
    finally:
        gc.enable()
    gc.freeze()
    return runtime


def serve(settings: Settings) -> None:
    """Run one replica until SIGTERM or SIGINT. Raises StorageError, OSError or whatever else ended it, once it has."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    for warning in settings.warnings():
        log.warning("%s", warning)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    uvloop.run(_run(settings))
