"""`kvstore lock`."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated
from urllib.parse import quote

import typer
from rich.text import Text

from kvstore.api.json.documents import LockDocument
from kvstore.cli.connect import DEFAULT, Endpoints, with_client
from kvstore.cli.ending_signals import EndingSignals, end_by
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.keys import VALUE_CHARS
from kvstore.cli.outage import Outage
from kvstore.cli.output import printable, write_json
from kvstore.cli.parameters import ttl_seconds, wait_seconds
from kvstore.cli.supervised_command import CommandEnd, SupervisedCommand
from kvstore.cli.terminal import show, table
from kvstore.client import Client, HeldLock, Locked, LockLost, Unavailable, UnknownOutcome
from kvstore.client.caller import Request
from kvstore.server.output import install

CANNOT_RUN = 126
NOT_FOUND = 127
"""Exit statuses that shells use for a command that cannot be executed, and for one that is not found."""
NOTICE = 0.2
"""Part of the lease TTL between SIGTERM and SIGKILL for a command whose lease is not renewed. A renewal is due after a
third of the TTL, so an outage of up to 0.46 TTL does not end the command."""


def lock(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the lock, 1 to 1,024 bytes.")],
    command: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND...", help="Command to run.")] = None,
    endpoints: Endpoints = DEFAULT,
    ttl: Annotated[
        float,
        typer.Option(
            parser=ttl_seconds,
            metavar="S",
            help="Lease TTL in seconds: the lock is released this long after its holder is lost.",
        ),
    ] = 10.0,
    wait: Annotated[
        float | None,
        typer.Option(parser=wait_seconds, metavar="S", help="Give up after this many seconds; by default never."),
    ] = None,
    *,
    value: Annotated[
        str | None, typer.Option(help="Text that --show prints; by default the host name and the process ID.")
    ] = None,
    show_holder: Annotated[
        bool, typer.Option("--show", help="Show the holder and the waiters of the lock, and run nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --show: print JSON.")] = False,
) -> None:
    """Run a command while holding a lock.

    The exit status is that of COMMAND, or 128 + N if signal N ended it. 5: another client holds the lock, or the lock
    was lost. 126 and 127: COMMAND cannot be started. With --show, 1: nobody holds the lock.

    The environment of COMMAND has the lock, its fencing token and its lease: KVSTORE_LOCK, KVSTORE_FENCE and
    KVSTORE_LEASE. With them `kvstore put` and `kvstore delete` take effect only while the lock is held.

    COMMAND runs in a process group of its own, which gets the signals that `kvstore lock` gets. All its processes are
    ended before the lock is released, and if the lock is lost or `kvstore lock` is killed: by SIGTERM, and by SIGKILL
    10 s later, or when the lease ends if that is earlier.
    """
    if not name:
        fail("the name of the lock is empty: give 1 to 1,024 bytes", ExitStatus.USAGE)
    if show_holder:
        if command:
            fail("--show runs no command: omit --show, or the command", ExitStatus.USAGE)
        _show(name, endpoints, json=json)
        return
    if not command:
        fail("no command: give one as in `kvstore lock NAME -- COMMAND`, or --show", ExitStatus.USAGE)
    install("stderr")  # a message that nobody reads must not keep the lease from being renewed
    text = os.fsencode(value) if value is not None else f"{socket.gethostname()} process {os.getpid()}".encode()

    signals = EndingSignals()

    async def hold(client: Client) -> CommandEnd:
        try:
            with signals:
                async with _acquired(client, os.fsencode(name), ttl, wait, text) as held:
                    return await _run(command, held, endpoints, signals)
        except Locked as error:
            raise Locked(
                f"another client holds lock '{_shown(name)}': wait longer with --wait, or see the holder with --show"
            ) from error

    try:
        end = with_client(endpoints, hold)
    except asyncio.CancelledError:
        if signals.received is None:
            raise
        end_by(signals.received)
    if end.interrupted:
        end_by(signal.SIGINT)  # Ctrl-C went to the command alone: this tells a shell script of it
    raise typer.Exit(end.exit_status if end.exit_status >= 0 else 128 - end.exit_status)


@asynccontextmanager
async def _acquired(
    client: Client, name: bytes, ttl_s: float, wait_s: float | None, value: bytes
) -> AsyncIterator[HeldLock]:
    """Hold the lock during the block. Go on waiting for it while no replica answers."""
    until = time.monotonic() + wait_s if wait_s is not None else None
    outage, left_s = Outage(), wait_s
    while True:
        async with AsyncExitStack() as stack:
            try:
                held = await stack.enter_async_context(client.lock(name, ttl_s=ttl_s, wait_s=left_s, value=value))
            except (Unavailable, UnknownOutcome) as error:
                if until is not None and time.monotonic() >= until:
                    raise
                outage.report(error)
            else:
                outage.report(None)
                yield held
                return
        await outage.pause()
        left_s = max(0.0, until - time.monotonic()) if until is not None else None


async def _run(command: list[str], held: HeldLock, endpoints: str, signals: EndingSignals) -> CommandEnd:
    """Run `command` until it has ended with all its processes. Raises LockLost."""
    variables = {
        "KVSTORE_LOCK": os.fsdecode(held.fence.lock),
        "KVSTORE_FENCE": str(held.fence.token),
        "KVSTORE_LEASE": str(held.lease.id),
        "KVSTORE_ENDPOINTS": endpoints,
    }
    early: list[int] = []
    signals.handle = early.append  # the command may run before this process knows it
    try:
        running = await SupervisedCommand.start(command, os.environ | variables, held.lease.lives_until, _tell_left)
    except FileNotFoundError:
        fail(f"command '{command[0]}' not found: give its path, or add its directory to PATH", NOT_FOUND)
    except OSError as error:
        fail(f"command '{command[0]}' cannot be run: {error.strerror}", CANNOT_RUN)
    signals.handle = running.send_signal
    for number in early:
        running.send_signal(number)

    def renewed() -> None:
        running.live_until(held.lease.lives_until, held.lease.ttl_s * NOTICE)

    renewed()
    held.lease.on_renewed(renewed)
    held.lease.on_lost(running.end)
    if held.lost.is_set():
        running.end()
    end = await running.wait()
    if held.lost.is_set() or end.expired:
        raise LockLost("the lock was lost and the command was ended: the lease was not renewed within --ttl", 0)
    return end


def _tell_left() -> None:
    sys.stderr.write(
        "kvstore: the command has ended and left processes running, which are ended before the lock is released; "
        "start them with setsid to keep them\n"
    )


def _show(name: str, endpoints: str, *, json: bool) -> None:
    async def ask(client: Client) -> LockDocument:
        answer = await client.ask(Request("GET", f"/locks/{quote(os.fsencode(name), safe='')}"))
        return answer.decode(LockDocument)

    state = with_client(endpoints, ask)
    if json:
        write_json(state)
    elif state.holder is not None:
        rows = table("", "lease", "fencing token", "value")
        for role, entry in [("holder", state.holder), *(("waiting", entry) for entry in state.waiting)]:
            rows.add_row(role, str(entry.lease), str(entry.fence), Text(printable(entry.value_bytes, VALUE_CHARS)))
        show(rows)
    if state.holder is None:
        fail(f"nobody holds lock '{_shown(name)}'", ExitStatus.FAILED)


def _shown(name: str) -> str:
    return printable(os.fsencode(name))
