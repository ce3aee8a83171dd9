"""`kvstore lock`: runs a command while it holds a lock, or tells who holds it."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from urllib.parse import quote

import msgspec
import typer
from rich.text import Text

from kvstore.cli.output import show, shown, table, write_json
from kvstore.cli.talking import ABSENT, DEFAULT, REJECTED, Endpoints, end, talk
from kvstore.client import Client, HeldLock, Locked, LockLost
from kvstore.client.caller import Request

CANNOT_RUN = 126
NOT_FOUND = 127
"""Exit statuses of shells for commands that do not start."""
GRACE_S = 10.0
"""A command that was asked to end because its lock is lost is killed after this time."""


class _Place(msgspec.Struct, omit_defaults=True):
    """Who holds the lock, or waits for it."""

    lease: int
    fence: int
    value: str | None = None
    value_base64: bytes = b""

    @property
    def content(self) -> bytes:
        """The value's bytes."""
        return self.value.encode() if self.value is not None else self.value_base64


class _Lock(msgspec.Struct):
    holder: _Place | None
    waiting: list[_Place]


def lock(
    name: Annotated[str, typer.Argument(help="The lock, 1 to 1024 bytes.")],
    command: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND...", help="What to run.")] = None,
    endpoints: Endpoints = DEFAULT,
    ttl: Annotated[
        float, typer.Option(metavar="S", help="The lock is free again so long after its holder was lost.")
    ] = 10.0,
    wait: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Wait for it so long; as long as it takes by default.")
    ] = None,
    *,
    value: Annotated[str | None, typer.Option(help="What --show tells others; host and process by default.")] = None,
    tell: Annotated[bool, typer.Option("--show", help="Tell who holds it and who waits, and run nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --show: as JSON, for programs.")] = False,
) -> None:
    """Hold the lock NAME while COMMAND runs, whose exit status it has.

    COMMAND has KVSTORE_LOCK, KVSTORE_FENCE and KVSTORE_LEASE in its environment: each `kvstore put` and `delete` in it
    is done only while the lock is held. If the lock is lost, COMMAND gets SIGTERM. Exit status 5: others have
    the lock, or it was lost. 126 and 127: COMMAND does not start. With --show 1: nobody holds it.
    """
    if not name:
        end(ValueError("the name is empty: give 1 to 1,024 bytes"), REJECTED)
    if tell:
        if command:
            end(ValueError("--show runs nothing: leave out the command"), REJECTED)
        _show(name, endpoints, json=json)
        return
    if not command:
        end(ValueError("say what to run: kvstore lock NAME -- COMMAND, or --show who holds it"), REJECTED)
    said = os.fsencode(value) if value is not None else f"{socket.gethostname()} process {os.getpid()}".encode()

    async def hold(client: Client) -> int:
        try:
            async with client.lock(os.fsencode(name), ttl_s=ttl, wait_s=wait, value=said) as held:
                return await _run(command, held, endpoints)
        except Locked as error:
            text = f"others hold {shown(os.fsencode(name))}: wait longer with --wait, or see who it is with --show"
            raise Locked(text) from error

    code = talk(endpoints, hold)
    raise typer.Exit(code)


async def _run(command: list[str], held: HeldLock, endpoints: str) -> int:
    """Its exit status, as a shell would tell it. Raises LockLost."""
    about = {
        "KVSTORE_LOCK": os.fsdecode(held.fence.lock),
        "KVSTORE_FENCE": str(held.fence.token),
        "KVSTORE_LEASE": str(held.lease.id),
        "KVSTORE_ENDPOINTS": endpoints,
    }
    try:
        process = await asyncio.create_subprocess_exec(*command, env=os.environ | about)
    except FileNotFoundError:
        end(FileNotFoundError(f"there is no command {command[0]}: give its path, or see PATH"), NOT_FOUND)
    except OSError as error:
        end(OSError(f"{command[0]} cannot be run: {error.strerror}"), CANNOT_RUN)
    with _signals_to(process):
        lost = asyncio.create_task(held.lost.wait())
        ended = asyncio.create_task(process.wait())
        await asyncio.wait({lost, ended}, return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        if not ended.done():
            await _stop(process, ended)
            raise LockLost("the lock was lost, for no replica renewed it in time: the command was ended", 0)
        code = ended.result()
        return code if code >= 0 else 128 - code


async def _stop(process: asyncio.subprocess.Process, ended: "asyncio.Task[int]") -> None:
    process.terminate()
    await asyncio.wait({ended}, timeout=GRACE_S)
    if not ended.done():
        process.kill()
        await ended


@contextmanager
def _signals_to(process: asyncio.subprocess.Process) -> Iterator[None]:
    """The command decides what a signal means. Ctrl-C reaches it by itself, with all processes of the terminal."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, lambda: process.terminate() if process.returncode is None else None)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)


def _show(name: str, endpoints: str, *, json: bool) -> None:
    async def ask(client: Client) -> _Lock:
        answer = await client.ask(Request("GET", f"/locks/{quote(os.fsencode(name), safe='')}"))
        return msgspec.json.decode(answer.body, type=_Lock)

    found = talk(endpoints, ask)
    if json:
        write_json(found)
    elif found.holder is not None:
        rows = table("", "lease", "fence", "value")
        for what, place in [("holds it", found.holder), *(("waits", place) for place in found.waiting)]:
            rows.add_row(what, str(place.lease), str(place.fence), Text(shown(place.content, 60)))
        show(rows)
    if found.holder is None:
        end(LookupError(f"nobody holds {shown(os.fsencode(name))}"), ABSENT)
