"""`kvstore top`."""

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

from kvstore.cli.cluster_view import ClusterObserver, ClusterView, ReplicaAnswers
from kvstore.cli.connect import DEFAULT, NO_REPLICA_ANSWERS, Endpoints, with_client
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.output import Json, write_json
from kvstore.cli.replica_load import parse_metrics
from kvstore.cli.terminal import show, width
from kvstore.cli.top_tables import tables_of
from kvstore.client import Client, ClientError
from kvstore.client.caller import Request

POLL_S = 1.0
ANSWER_TIMEOUT_S = 2.0
"""Time after which a replica that has not answered is shown as unreachable, and asked again."""


def top(
    endpoints: Endpoints = DEFAULT,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Print one view and end; the default if standard output is no terminal.")
    ] = False,
    json: Json = False,
) -> None:
    """Show roles, progress and load of the replicas, live.

    Press q or Ctrl-C to end. Rates and latencies are of client requests in the last second. Exit status 3 with --once
    or --json: no replica answers.
    """
    live = sys.stdout.isatty() and not once and not json
    view = with_client(endpoints, _watch if live else _view_once)
    if json:
        write_json(view)
    else:
        show(tables_of(view, width()))
    if not live and all(each.unreachable_s is not None for each in view.replicas):
        fail(NO_REPLICA_ANSWERS, ExitStatus.UNAVAILABLE)


async def _view_once(client: Client) -> ClusterView:
    """Return one view. Each replica is asked twice, because a rate needs two samples."""
    answers = await _first_answers(client)
    if any(each.status for each in answers.values()):
        await asyncio.sleep(POLL_S)
        await asyncio.gather(*(_ask(client, each) for each in answers.values()))
    return ClusterObserver().view(answers, time.monotonic(), time.time())


async def _watch(client: Client) -> ClusterView:
    """Show the cluster until q or Ctrl-C, and return the last view."""
    answers = await _first_answers(client)
    observer = ClusterObserver()
    view = observer.view(answers, time.monotonic(), time.time())
    asking = [asyncio.create_task(_ask_forever(client, each)) for each in answers.values()]
    console = Console()
    with _quit_keys() as quitting, Live(console=console, screen=True, auto_refresh=False) as screen:
        try:
            while not quitting.is_set():
                screen.update(tables_of(view, console.width), refresh=True)
                try:
                    async with asyncio.timeout(POLL_S):
                        await quitting.wait()
                except TimeoutError:
                    view = observer.view(answers, time.monotonic(), time.time())
        finally:
            for task in asking:
                task.cancel()
    return view


async def _first_answers(client: Client) -> dict[str, ReplicaAnswers]:
    answers = {endpoint: ReplicaAnswers(endpoint) for endpoint in client.endpoints}
    await asyncio.gather(*(_ask(client, each) for each in answers.values()))
    return answers


async def _ask_forever(client: Client, answers: ReplicaAnswers) -> None:
    while True:
        await asyncio.sleep(POLL_S)
        await _ask(client, answers)


async def _ask(client: Client, answers: ReplicaAnswers) -> None:
    endpoint, asked_at = answers.endpoint, time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            status = await client.status(endpoint)
            metrics = await client.ask(Request("GET", "/metrics"), endpoint)
            sample = parse_metrics(metrics.body.decode(), time.monotonic())
    except (ClientError, ValueError, OverflowError) as error:  # the last two: the answer is not from a replica
        answers.failed(str(error), asked_at)
    except TimeoutError:
        answers.failed(f"{endpoint} does not answer: its process is paused or stuck, or the network is cut", asked_at)
    else:
        answers.answered(status, sample)


@contextmanager
def _quit_keys() -> Iterator[asyncio.Event]:
    """Provide an event that q and Ctrl-C set. Meanwhile the terminal neither buffers nor echoes keys."""
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
