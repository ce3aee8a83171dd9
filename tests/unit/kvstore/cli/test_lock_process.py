"""`kvstore lock` as a process: no process of its command goes on without the lock, whatever ends first.

The processes of a command share its standard output. So the end of the output shows that all of them have ended.
"""

import asyncio
import io
import os
import pty
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from kvstore.api.commands import AcquireLock, GrantLease, RevokeLease
from kvstore.cli import command_supervisor
from kvstore.client.clock import boot_time_s
from tests.unit.kvstore.cli.command_line import kvstore_process
from tests.unit.kvstore.server.http.fake import Store, run

GRANDCHILD = "sh -c 'echo ready; sleep 1000; true' & wait; sleep 1000"
STUBBORN = "trap '' TERM; sh -c 'echo ready; sleep 1000; true' & wait; sleep 1000"


EARLY_SIGNAL = """
import asyncio, signal, sys
from kvstore.__main__ import main
from kvstore.cli.supervised_command import SupervisedCommand

opened = sys.argv.pop(1)

async def start(*arguments, known=SupervisedCommand.start):
    running = await known(*arguments)
    with open(opened):  # until the command has opened it, too
        signal.raise_signal(signal.SIGUSR1)
    for _ in range(10):  # turns of the event loop, which handles the signal
        await asyncio.sleep(0)
    return running

SupervisedCommand.start = start
main()
"""
"""`kvstore lock` that gets a signal when its command runs, before it knows that. The first argument is a FIFO."""


@pytest.fixture(autouse=True)
def signals_are_heard() -> Iterator[None]:
    """Handle the signals that the tests ignore, as they do under nohup: their children would ignore these, too."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@asynccontextmanager
async def lock(
    store: Store, script: str, *options: str, program: Sequence[str] = ("-m", "kvstore")
) -> AsyncIterator[Process]:
    """Run `script` with `kvstore lock`."""
    arguments = (*program, "lock", "deploy", "--endpoints", f"http://127.0.0.1:{store.port}", *options)
    async with kvstore_process(*arguments, "--", "sh", "-c", script) as process:
        yield process


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def rest(process: Process) -> tuple[str, str]:
    """The rest of the output, once all processes that can write to it have ended."""
    out, err = await process.communicate()
    return out.decode().strip(), err.decode()


def at(story: Callable[[Store], Awaitable[None]]) -> None:
    run(story, loops=asyncio.new_event_loop)


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM"])
def test_a_signal_is_passed_on_to_the_command(name: str) -> None:
    async def story(store: Store) -> None:
        script = f"trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05 & wait $!; done"
        async with lock(store, script) as process:
            assert await line(process) == "ready"
            process.send_signal(signal.Signals[f"SIG{name}"])
            assert (await rest(process))[0] == f"got {name}"
            assert process.returncode == 7
        assert store.replica.lease_index.locks == {}

    at(story)


def test_a_signal_that_arrives_while_the_command_starts_is_passed_on(tmp_path: Path) -> None:
    """The command runs before `kvstore lock` is told so. A signal in between ended `kvstore lock`."""

    async def story(store: Store) -> None:
        opened = tmp_path / "opened"
        os.mkfifo(opened)
        script = f"trap 'echo got USR1; exit 7' USR1; : >{opened}; while :; do sleep 0.05 & wait $!; done"
        async with lock(store, script, program=("-c", EARLY_SIGNAL, str(opened))) as process:
            assert (await rest(process))[0] == "got USR1"  # the shell may tell of its child that the signal has ended
            assert process.returncode == 7
        assert store.replica.lease_index.locks == {}

    at(story)


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1"])
def test_a_signal_ends_the_command_with_its_children(name: str) -> None:
    async def story(store: Store) -> None:
        number = signal.Signals[f"SIG{name}"]
        async with lock(store, GRANDCHILD) as process:
            assert await line(process) == "ready"
            process.send_signal(number)
            await rest(process)
            assert process.returncode == 128 + number
        assert store.replica.lease_index.locks == {}

    at(story)


@pytest.mark.parametrize("script", [GRANDCHILD, STUBBORN])
def test_the_command_ends_with_its_children_when_the_lock_process_is_killed(script: str) -> None:
    """Processes that ignore SIGTERM are killed when the lease ends: nobody else has the lock before."""

    async def story(store: Store) -> None:
        async with lock(store, script, "--ttl", "1") as process:
            assert await line(process) == "ready"
            process.kill()
            assert (await rest(process))[0] == ""

    at(story)


def test_the_command_ends_with_its_children_when_the_lock_is_lost() -> None:
    async def story(store: Store) -> None:
        async with lock(store, GRANDCHILD, "--ttl", "1") as process:
            assert await line(process) == "ready"
            store.replica.write(RevokeLease(1), lambda _: None)
            assert "was lost" in (await rest(process))[1]
            assert process.returncode == 5

    at(story)


def test_the_command_ends_with_the_lease_when_the_lock_process_is_stopped(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        output = tmp_path / "output"  # a pipe that the lock process does not keep open
        os.mkfifo(output)
        async with lock(store, f"exec >{output}; {GRANDCHILD}", "--ttl", "1") as process:
            with await asyncio.to_thread(output.open) as lines:
                assert await asyncio.to_thread(lines.readline) == "ready\n"
                process.send_signal(signal.SIGSTOP)
                assert await asyncio.to_thread(lines.read) == ""
            process.send_signal(signal.SIGCONT)
            assert "was lost" in (await rest(process))[1]
            assert process.returncode == 5

    at(story)


def test_the_command_ends_with_the_lease_when_the_lock_process_never_hears_that_it_runs() -> None:
    """The lock process may be stopped, as by Ctrl-Z, before it has read that the command runs."""

    async def story() -> None:
        own, other = socket.socketpair()
        with own, other:
            until_s = str(boot_time_s() + 0.1)
            supervisor = await asyncio.create_subprocess_exec(
                *(sys.executable, command_supervisor.__file__, str(other.fileno()), until_s, "sleep", "1000"),
                pass_fds=(other.fileno(),),
            )
            assert await supervisor.wait() == 0
            started, expired = own.recv(4096).decode().splitlines()
        assert (started.split()[0], expired) == ("started", f"expired {signal.SIGTERM:d}")

    asyncio.run(story())


def test_the_command_ends_when_its_supervisor_is_killed() -> None:
    async def story(store: Store) -> None:
        async with lock(store, GRANDCHILD) as process:
            assert await line(process) == "ready"
            (supervisor,) = children(process.pid)
            os.kill(supervisor, signal.SIGKILL)
            await rest(process)
            assert process.returncode == 128 + signal.SIGKILL

    at(story)


def test_processes_that_the_command_leaves_running_are_ended_before_the_lock_is_released() -> None:
    async def story(store: Store) -> None:
        async with lock(store, "sleep 1000 & exit 4") as process:
            out, err = await rest(process)
            assert (out, process.returncode) == ("", 4)
            assert "start them with setsid" in err
        assert store.replica.lease_index.locks == {}

    at(story)


def test_a_daemon_of_the_command_goes_on() -> None:
    async def story(store: Store) -> None:
        async with lock(store, "setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' & exit 4") as process:
            daemon = int(await line(process))
            assert await rest(process) == ("", "")
            assert process.returncode == 4
            os.kill(daemon, signal.SIGKILL)

    at(story)


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1"])
def test_a_signal_takes_a_waiting_lock_process_out_of_the_queue(name: str) -> None:
    async def story(store: Store) -> None:
        for command in (GrantLease(60_000), AcquireLock(b"deploy", 1, 0, b"", queue=False)):
            store.replica.write(command, lambda _: None)
        number = signal.Signals[f"SIG{name}"]
        async with lock(store, "echo run", "--ttl", "3600") as process:
            while len(store.replica.lease_index.locks[b"deploy"]) < 2:
                await store.replica.done.get()
            process.send_signal(number)
            assert await rest(process) == ("", "")
            assert process.returncode == -number
        assert list(store.replica.lease_index.leases) == [1]

    at(story)


def test_a_signal_that_was_ignored_at_the_start_stays_ignored() -> None:
    async def story(store: Store) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            async with lock(store, "echo ready; kill -HUP $$; while :; do sleep 0.05 & wait $!; done") as process:
                assert await line(process) == "ready"
                process.send_signal(signal.SIGHUP)
                process.send_signal(signal.SIGTERM)
                await rest(process)
                assert process.returncode == 128 + signal.SIGTERM
        finally:
            signal.signal(signal.SIGHUP, before)

    at(story)


def children(process: int) -> list[int]:
    """Return the children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process:
            found.append(int(path.parent.name))
    return found


def test_a_command_that_reads_the_terminal_gets_it_and_gives_it_back() -> None:
    """A shell runs `kvstore lock` in its own process group, as a script does, and reads the terminal before and
    after."""

    async def story(store: Store) -> None:
        address = f"http://127.0.0.1:{store.port}"
        command = f"{sys.executable} -m kvstore lock deploy --endpoints {address} -- sh -c 'read line; echo got $line'"
        terminal, other = pty.openpty()
        name = os.ttyname(other)  # it becomes the terminal of the session when the shell opens it
        script = f"exec <{name} >{name} 2>&1; {command}; read line; echo after $line"
        shell = await asyncio.create_subprocess_exec("sh", "-c", script, start_new_session=True)
        with os.fdopen(terminal, "rb+", buffering=0) as screen:
            screen.write(b"one\n")
            assert await asyncio.to_thread(until, screen, b"got one")
            screen.write(b"two\n")
            assert await asyncio.to_thread(until, screen, b"after two")
            assert await shell.wait() == 0
        os.close(other)

    at(story)


def until(screen: io.FileIO, text: bytes) -> bool:
    """Read the terminal until it shows `text`. Return False at its end."""
    shown = b""
    with suppress(OSError):  # Linux reports the end of a terminal as an error
        while text not in shown:
            shown += screen.read(1024) or b""
    return text in shown
