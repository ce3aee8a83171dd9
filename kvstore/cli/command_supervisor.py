"""The supervisor of a command: a small process between `kvstore lock` and the command that it runs.

    kvstore lock  <-- socket -->  supervisor  -->  COMMAND, the leader of a process group of its own

The supervisor ends all processes of the command when it is told to, when the lease is about to end without news from
the lock process, and when the socket closes. SIGTERM comes before the end of the lease, and SIGKILL at its end at the
latest: another client may hold the lock from then on. So nothing goes on without the lock, even if the lock process is
killed or stopped.
The processes of the command are those of its group and, on Linux, all its descendants in the same session. A process
that has left both, as daemons do with setsid, is left alone.

Requests and reports are lines:

    until END NOTICE  the lease lives until END, as `kvstore.client.clock` counts; SIGTERM comes NOTICE seconds earlier
    signal NUMBER     send this signal to the group
    end               end the command
    started PID       the command runs
    failed ERRNO      the command cannot be run
    stopped NUMBER    this signal has stopped the command
    ended STATUS      the command has ended, with this wait status, and so have all its processes
    expired STATUS    the same, because the lease was not renewed
    left              the command has ended and has left processes running, which are ended now

`kvstore.cli.supervised_command` starts this file as a script, without kvstore and without site-packages: it imports
only the standard library, and starts in some hundredths of a second.
"""

import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

GRACE_S = 10.0
"""Longest time between SIGTERM and SIGKILL."""
LEFT_S = 0.5
"""Time for which processes that outlive the command may end by themselves, for example when Ctrl-C ends all of them."""
KILLED_S = 2.0
"""Time after SIGKILL for which the supervisor waits for a process that does not end."""
POLL_S = 0.05
"""Polling interval while processes end: nothing reports the end of a grandchild."""
CHECK_S = 1.0
"""Longest wait for an event: a wait does not count the time for which the machine is suspended, and a lease does."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_SUPERVISOR_KEEPS = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGCONT),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS),
}
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Supervisor:
    """The supervisor of one command. `control` is the descriptor of the socket, and the lease ends at the time
    `until_s`, unless the lock process reports a later one."""

    def __init__(self, control: int, until_s: float) -> None:
        self._control = control
        self._connected = True
        """False once the lock process has ended."""
        self._unread = b""
        self._group = 0
        self._status: int | None = None
        """Wait status of the command; None while it runs."""
        self._left_at = float("inf")
        """Time from which the processes that outlive the command count as left running."""
        self._until = until_s
        """Time at which the lease ends."""
        self._notice_s = 0.0
        """Time between SIGTERM and the end of a lease that is not renewed."""
        self._ending_since: float | None = None
        """Time of SIGTERM; None while the command is not being ended."""
        self._expired = False

    def run(self, command: list[str]) -> None:
        """Run `command` until it has ended, with all its processes."""
        os.set_inheritable(self._control, False)
        _adopt_orphans()
        try:
            self._group = _start(command, _ignore_signals())
        except OSError as error:
            self._report("failed", error.errno or 0)
            return
        self._report("started", self._group)
        woken = _child_events()
        while not self._has_ended():
            watched = [woken, self._control] if self._connected else [woken]
            readable, _, _ = select.select(watched, [], [], self._timeout_s())
            if woken in readable:
                os.read(woken, 4096)
            if self._control in readable:
                self._receive()
            self._step(_now())
        self._report("expired" if self._expired else "ended", self._status or 0)

    def _receive(self) -> None:
        try:
            data = os.read(self._control, 4096)
        except OSError:  # the lock process has ended before it has read all reports
            data = b""
        if not data:
            self._connected = False
            self._end(_now())
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            match line.split():
                case [b"until", end, notice]:
                    self._until, self._notice_s = float(end), float(notice)
                case [b"signal", number]:
                    self._send(int(number))
                case _:
                    self._end(_now())

    def _step(self, now: float) -> None:
        self._reap()
        if now >= self._until - self._notice_s and self._ending_since is None:
            self._expired = True
            self._end(now)
        if now >= self._left_at and self._ending_since is None and self._runs():
            self._report("left", 0)
            self._end(now)
        if now >= self._kill_at():
            self._send(signal.SIGKILL)
            for process in _descendants():
                _kill(process, signal.SIGKILL)

    def _end(self, now: float) -> None:
        """Send SIGTERM to all processes. SIGKILL follows after the grace, or when the lease ends if that is earlier."""
        if self._ending_since is not None:
            return
        self._ending_since = now
        for process in _descendants():
            _kill(process, signal.SIGTERM)
            _kill(process, signal.SIGCONT)
        self._send(signal.SIGTERM)
        self._send(signal.SIGCONT)  # a stopped process handles no other signal

    def _kill_at(self) -> float:
        """Return the time of SIGKILL; infinity while the command is not being ended."""
        if self._ending_since is None:
            return float("inf")
        return min(self._ending_since + GRACE_S, self._until)

    def _send(self, number: int) -> None:
        """Send a signal to the group, whose number nobody else gets before all its processes have ended."""
        if self._group_runs():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, number)

    def _reap(self) -> None:
        """Take note of the children that have ended or stopped: the command, and orphans of it."""
        with suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
                if not process:
                    return
                if process != self._group:
                    continue
                if os.WIFSTOPPED(status):
                    self._report("stopped", os.WSTOPSIG(status))
                else:
                    self._status = status
                    self._left_at = _now() + LEFT_S

    def _group_runs(self) -> bool:
        try:
            os.killpg(self._group, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # of another user, by set-user-ID
            return True
        return True

    def _runs(self) -> bool:
        return self._group_runs() or bool(_descendants())

    def _has_ended(self) -> bool:
        if self._status is None:
            return False
        given_up = _now() > self._kill_at() + KILLED_S
        return given_up or not self._runs()

    def _timeout_s(self) -> float:
        if self._ending_since is not None or self._status is not None:
            return POLL_S
        return min(CHECK_S, max(0.0, self._until - self._notice_s - _now()))

    def _report(self, kind: str, number: int) -> None:
        with suppress(OSError):  # the lock process is gone
            os.write(self._control, f"{kind} {number}\n".encode())


def _now() -> float:
    """Return the seconds of the clock of `kvstore.client.clock`, which this script cannot import."""
    return time.clock_gettime(_CLOCK)


def _start(command: list[str], defaults: set[int]) -> int:
    """Start `command` in a process group of its own, without ignoring the signals in `defaults`, and return its process
    id. Raises OSError."""
    supervisor = os.getpid()
    result, failure = os.pipe()  # closed when the command is executed
    process = os.fork()
    if not process:
        try:
            os.setpgid(0, 0)
            for signal_number in defaults:
                signal.signal(signal_number, signal.SIG_DFL)
            _end_with_parent(supervisor)
            os.execvp(command[0], command)  # noqa: S606 - the command of the caller, without a shell
        except OSError as error:
            os.write(failure, b"%d" % (error.errno or 0))
        finally:
            os._exit(127)
    os.close(failure)
    number = os.read(result, 16)
    os.close(result)
    if number:
        os.waitpid(process, 0)
        raise OSError(int(number), os.strerror(int(number)))
    return process


def _ignore_signals() -> set[int]:
    """Ignore all signals that might end this process. Return those that a child shall not ignore: the signals that this
    process did not ignore when it was started."""
    defaults: set[int] = {signal.SIGPIPE, signal.SIGXFSZ}  # Python itself ignores them
    for number in signal.valid_signals() - _SUPERVISOR_KEEPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            defaults.add(number)
        signal.signal(number, signal.SIG_IGN)
    return defaults


def _child_events() -> int:
    """Return a descriptor that is readable when a child has ended or stopped."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.write(writable, b"\0")  # a child may have ended already
    return readable


def _descendants() -> list[int]:
    """Return the descendants of this process in its session; none on systems without /proc."""
    own = os.getpid()
    session, children = os.getsid(0), dict[int, list[int]]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            state, parent, _, process_session = path.read_text(errors="replace").rpartition(")")[2].split()[:4]
            if int(process_session) == session and state not in "ZX":
                children.setdefault(int(parent), []).append(int(path.parent.name))
    found: list[int] = []
    following = [own]
    while following:
        below = children.get(following.pop(), [])
        found += below
        following += below
    return found


def _kill(process: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


def _adopt_orphans() -> None:
    """Make Linux give the orphans among the descendants of this process to it, so that it finds and reaps them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _end_with_parent(parent: int) -> None:
    """Make Linux kill this process when its parent ends. Exit if the parent has ended already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(127)


def _prctl(option: int, argument: int) -> None:
    with suppress(ImportError):  # a Python without ctypes
        import ctypes  # noqa: PLC0415 - optional

        libc = ctypes.CDLL(None)
        if hasattr(libc, "prctl"):
            libc.prctl(option, argument, 0, 0, 0)


if __name__ == "__main__":
    Supervisor(int(sys.argv[1]), float(sys.argv[2])).run(sys.argv[3:])
