"""A command that ends with this process, run by `kvstore.cli.command_supervisor`, and its use of the terminal."""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

_SCRIPT = Path(__file__).with_name("command_supervisor.py")


class CommandEnd(NamedTuple):
    """The end of a command."""

    exit_status: int
    """Exit status; the negative number of the signal that ended the command."""
    expired: bool
    """True if the supervisor has ended the command, because the lease was not renewed."""
    interrupted: bool
    """True if Ctrl-C has ended the command while it had the terminal."""


class SupervisedCommand:
    """A running command, in a process group of its own."""

    def __init__(
        self,
        supervisor: asyncio.subprocess.Process,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        on_left: Callable[[], None],
    ) -> None:
        self._supervisor = supervisor
        self._reader, self._writer = streams
        self._on_left = on_left
        self._group = 0
        self._terminal = ForegroundTerminal()

    @classmethod
    async def start(
        cls, command: Sequence[str], environment: Mapping[str, str], until_s: float, on_left: Callable[[], None]
    ) -> Self:
        """Start `command`, as if `live_until` was called with `until_s`. `on_left` is called if the command ends and
        leaves processes running, which are ended then. Raises OSError if the command cannot be run."""
        own, other = socket.socketpair()
        with other:
            python = (sys.executable, "-I", "-S", os.fspath(_SCRIPT), str(other.fileno()), str(until_s))
            supervisor = await asyncio.create_subprocess_exec(
                *python, *command, env=environment, pass_fds=(other.fileno(),), process_group=0
            )
        started = cls(supervisor, await asyncio.open_connection(sock=own), on_left)
        kind, number = await started._report()
        if kind != "started":
            await started._close()
            raise OSError(number, os.strerror(number))
        started._group = number
        return started

    def send_signal(self, number: int) -> None:
        """Send a signal to the process group of the command."""
        self._request(f"signal {number}")

    def live_until(self, time_s: float, notice_s: float) -> None:
        """Have the supervisor end the command by this time of `boot_time_s`, unless this is called again: with SIGTERM
        `notice_s` seconds earlier, and with SIGKILL at this time."""
        self._request(f"until {time_s} {notice_s}")

    def end(self) -> None:
        """End all processes of the command, with SIGTERM and then with SIGKILL."""
        self._request("end")

    async def wait(self) -> CommandEnd:
        """Wait until all processes of the command have ended. Meanwhile, the command may use the terminal, and Ctrl-Z
        stops it together with this process."""
        with self._passed_on_stops():
            try:
                while True:
                    kind, number = await self._report()
                    match kind:
                        case "stopped":
                            self._stopped(number)
                        case "left":
                            self._on_left()
                        case _:
                            status = os.waitstatus_to_exitcode(number)
                            interrupted = self._terminal.was_given and status == -signal.SIGINT
                            return CommandEnd(status, kind == "expired", interrupted)
            finally:
                self._terminal.close()
                await self._close()

    def _request(self, line: str) -> None:
        self._writer.write(line.encode() + b"\n")

    async def _close(self) -> None:
        self._writer.close()
        await self._supervisor.wait()

    async def _report(self) -> tuple[str, int]:
        line = await self._reader.readline()
        if not line:  # somebody has killed the supervisor
            if not self._group:
                return "failed", errno.ECHILD
            with suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)
            return "ended", signal.SIGKILL
        kind, number = line.split()
        return kind.decode(), int(number)

    def _stopped(self, number: int) -> None:
        """Give the terminal to a command that was stopped because it uses the terminal, or stop with the command."""
        uses_terminal = number in {signal.SIGTTIN, signal.SIGTTOU}
        if uses_terminal and self._terminal.give_to(self._group):
            self.send_signal(signal.SIGCONT)
        elif uses_terminal or number == signal.SIGTSTP:
            had_terminal = self._terminal.is_given
            self._terminal.take_back()
            self._stop(number)
            if had_terminal or uses_terminal:
                self._terminal.give_to(self._group)
            self.send_signal(signal.SIGCONT)

    def _stop(self, number: int) -> None:
        """Stop this process with its process group, until the shell continues it (`fg`, `bg`)."""
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGTSTP)
        os.killpg(os.getpgrp(), number)
        self._pass_on_stops(loop)

    @contextmanager
    def _passed_on_stops(self) -> Iterator[None]:
        """Pass Ctrl-Z on to the command while this process has the terminal: it must not go on alone."""
        loop = asyncio.get_running_loop()
        self._pass_on_stops(loop)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTSTP)

    def _pass_on_stops(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGTSTP, self.send_signal, signal.SIGTSTP)


class ForegroundTerminal:
    """The controlling terminal, if there is one. Only its foreground process group may read it."""

    def __init__(self) -> None:
        self.is_given = False
        """True while another process group has the terminal from this process."""
        self.was_given = False
        """True once another process group has had the terminal."""
        try:
            self._descriptor: int | None = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            self._descriptor = None

    def give_to(self, group: int) -> bool:
        """Make `group` the foreground process group. Return False if this process is not in the foreground itself."""
        with suppress(OSError):
            if self._descriptor is not None and os.tcgetpgrp(self._descriptor) == os.getpgrp():
                os.tcsetpgrp(self._descriptor, group)
                self.is_given = self.was_given = True
                return True
        return False

    def take_back(self) -> None:
        """Make the process group of this process the foreground process group again, if the terminal was given."""
        if self._descriptor is None or not self.is_given:
            return
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})  # for this process is in the background
        try:
            with suppress(OSError):
                os.tcsetpgrp(self._descriptor, os.getpgrp())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self.is_given = False

    def close(self) -> None:
        """Take the terminal back, and close it."""
        self.take_back()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
