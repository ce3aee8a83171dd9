"""The signals that end a process, for commands that have something to give up before they end."""

import asyncio
import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, Self

from kvstore.server.output import drain

_OTHERS = {
    *(signal.SIGKILL, signal.SIGSTOP),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT),
    *(signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS),
}
"""Signals that cannot be handled, that stop or continue a process, that do not end it, or that report its own fault."""


class EndingSignals:
    """Handlers of all signals that would end this process, except those that were ignored at its start, as by nohup.

    Use it in `with`, in the main task of an event loop. `handle` is called with the number of each signal. By default,
    the first signal cancels the task and the second ends the process at once.
    """

    def __init__(self) -> None:
        self.handle: Callable[[int], object] = self._cancel
        self.received: int | None = None
        """Signal that has cancelled the task."""
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in signal.valid_signals() - _OTHERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._received, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ignore further signals: what is left to do in the event loop takes a moment. The end of the event loop
        restores the default handlers."""
        self.handle = lambda _: None

    def _received(self, number: int) -> None:
        self.handle(number)

    def _cancel(self, number: int) -> None:
        if self.received is not None:
            end_by(number)
        self.received = number
        if self._task is not None:
            self._task.cancel()


def end_by(number: int) -> NoReturn:
    """Write the messages that are queued, then end this process by the default action of a signal, so that its parent
    sees which signal it was."""
    drain()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # never reached, unless the signal is blocked
