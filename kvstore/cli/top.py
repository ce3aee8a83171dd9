"""`kvstore top`: the cluster, live, in a terminal."""

import asyncio
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from kvstore.cli.cluster_view import ClusterView, Onlooker, Seen
from kvstore.cli.load import counters_of
from kvstore.cli.output import Json, show, write_json
from kvstore.cli.talking import DEFAULT, UNAVAILABLE, Endpoints, end, talk
from kvstore.cli.top_picture import picture_of
from kvstore.client import Client, ClientError, Unavailable
from kvstore.client.caller import Request

LOOK_S = 1.0
PATIENCE_S = 2.0
"""A replica that has not answered for so long is shown as silent, and asked again."""


def top(
    endpoints: Endpoints = DEFAULT,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once; as where the output is no terminal.")] = False,
    json: Json = False,
) -> None:
    """Watch the replicas: who leads, how far each has come, and under which load. q or Ctrl-C ends it.

    Rates and latencies are of the last second, of requests of clients. Exit status 3 with --once or --json: no replica
    answers.
    """
    live = sys.stdout.isatty() and not once and not json
    view = talk(endpoints, _watch if live else _look_twice)
    if json:
        write_json(view)
    else:
        show(picture_of(view))
    if not live and all(each.silent_s is not None for each in view.replicas):
        end(Unavailable("no replica answers: start them, or name others with --endpoints"), UNAVAILABLE)


async def _look_twice(client: Client) -> ClusterView:
    """Rates take two looks."""
    seen = {endpoint: Seen() for endpoint in client.endpoints}
    await asyncio.gather(*(_ask(client, endpoint, seen[endpoint]) for endpoint in seen))
    if any(each.status for each in seen.values()):
        await asyncio.sleep(LOOK_S)
        await asyncio.gather(*(_ask(client, endpoint, seen[endpoint]) for endpoint in seen))
    return Onlooker().look(seen, time.monotonic(), time.time())


async def _watch(client: Client) -> ClusterView:
    """Until q or Ctrl-C; gives the last look."""
    seen = {endpoint: Seen() for endpoint in client.endpoints}
    await asyncio.gather(*(_ask(client, endpoint, seen[endpoint]) for endpoint in seen))
    onlooker = Onlooker()
    view = onlooker.look(seen, time.monotonic(), time.time())
    asking = [asyncio.create_task(_keep_asking(client, endpoint, seen[endpoint])) for endpoint in seen]
    with _keys() as quitting, Live(picture_of(view), console=Console(), screen=True, auto_refresh=False) as screen:
        try:
            while not quitting.is_set():
                screen.update(picture_of(view), refresh=True)
                try:
                    async with asyncio.timeout(LOOK_S):
                        await quitting.wait()
                except TimeoutError:
                    view = onlooker.look(seen, time.monotonic(), time.time())
        finally:
            for task in asking:
                task.cancel()
    return view


async def _keep_asking(client: Client, endpoint: str, seen: Seen) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        await _ask(client, endpoint, seen)


async def _ask(client: Client, endpoint: str, seen: Seen) -> None:
    asked_at = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            status = await client.status(endpoint)
            metrics = await client.ask(Request("GET", "/metrics"), endpoint)
            counters = counters_of(metrics.body.decode(), time.monotonic())
    except (ClientError, ValueError) as error:  # it may be none of ours
        seen.failed(str(error), asked_at)
    except TimeoutError:
        seen.failed(f"{endpoint} does not answer: its process is stopped or stuck, or the network is cut", asked_at)
    else:
        seen.answered(status, counters)


@contextmanager
def _keys() -> Iterator[asyncio.Event]:
    """Set once q or Ctrl-C was typed. Keys are read one by one, and are not shown."""
    pressed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, pressed.set)
    if not sys.stdin.isatty():
        yield pressed
        return
    keyboard = sys.stdin.fileno()

    def read() -> None:
        if os.read(keyboard, 64).lower() in {b"q", b""}:
            pressed.set()

    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, read)
    try:
        yield pressed
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
