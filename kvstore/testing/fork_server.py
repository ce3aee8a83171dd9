"""Replicas that the fork server of `multiprocessing` forks, so that their code is loaded once.

A replica that loads its own code needs a second to start, nearly all of it for imports; a forked replica needs some
hundredths of a second. A forked replica runs the server as `kvstore serve --config` does, and is a process like any
other: it can be killed and paused, and prints to its log.

Three behaviours of `multiprocessing` are changed here:

- Each child runs the main module of the program again. A script that starts a cluster would start one in each replica,
  and under the command `pytest` each replica would load pytest. So the main module is hidden while a child starts.
- Each child has a copy of the pipe that keeps the fork server alive. A replica closes its copy. So the fork server ends
  with the program, even if the program is killed, and the system then kills the replicas. Only Linux does that; on
  other systems, the replicas of a killed program continue to run.
- At exit, `multiprocessing` waits for all children, but a paused replica never ends. So all children are killed first.
"""

import atexit
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from pathlib import Path
from types import ModuleType

from kvstore.server.config import ConfigError
from kvstore.server.config_sources import load
from kvstore.server.output import drain, install
from kvstore.testing.machine import end_with_parent
from kvstore.testing.process_cluster import ProcessCluster, ReplicaProcess
from storage.base import StorageError

_CONTEXT = multiprocessing.get_context("forkserver")
_NAME = "kvstore.testing"
_REMOVE_S = 10.0
"""Maximum time for removing a directory."""

_lock = threading.RLock()
"""Lock held during calls to `multiprocessing`, whose processes only one thread at a time may use."""


_directories: set[str] = set()
"""Directories to remove at the end of the program. Those that are removed by then do no harm."""
_users: list[int] = []
"""Process that uses the fork server."""


def ensure_running() -> None:
    """Start the fork server unless it runs. It loads its modules in the background. Raises RuntimeError in a fork of a
    program that has started it: only that program can use it."""
    if _users and os.getpid() not in _users:
        raise RuntimeError(
            f"clusters were started in process {_users[0]}, of which this process is a fork, and cannot be started "
            "here: start them there, or start this process in another way, as with the start method `spawn` of "
            "multiprocessing"
        )
    with _lock:
        _users[:] = [os.getpid()]
        _CONTEXT.set_forkserver_preload(["kvstore.testing.preload"])
        forkserver.ensure_running()


class ForkedProcess:
    """A process of the fork server that calls `function`. It has the methods of ReplicaProcess."""

    def __init__(self, function: Callable[..., None], *arguments: object) -> None:
        ensure_running()
        self._process = _CONTEXT.Process(target=function, args=arguments, name=_NAME)
        with _lock, _hidden_main_module():
            self._process.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid or 0

    def poll(self) -> int | None:
        """Return the exit status, or the negative number of the signal that ended it; None while it runs."""
        with _lock:
            return self._process.exitcode

    def wait(self) -> int:
        """Wait for the end, then return the exit status."""
        with _lock:
            self._process.join()
            return self._process.exitcode or 0

    def send_signal(self, number: int) -> None:
        """Send a signal; do nothing when the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # the fork server reaps a process at once
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


class ForkedCluster(ProcessCluster):
    """A cluster of forked replicas."""

    def spawn(self, name: str, environment: Mapping[str, str]) -> ReplicaProcess:
        """Fork the process of one replica."""
        replica = self.replicas[name]
        return ForkedProcess(_run_replica, os.fspath(replica.config), os.fspath(replica.log), dict(environment))


def remove_after_program(directory: str) -> ForkedProcess:
    """Have `directory` removed when this program ends. A process is started that does so even if the program is killed.
    The caller kills this process after removing the directory itself."""
    _directories.add(directory)
    return ForkedProcess(_remove_after_program, directory)


def _run_replica(config: str, log: str, environment: dict[str, str]) -> None:
    end_with_parent(signal.SIGKILL)  # a paused process handles no other signal
    _detach_from_program()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the program may have been started with SIGINT ignored
    os.environ.clear()
    os.environ.update(environment)

    from kvstore.server.process import serve  # noqa: PLC0415 - the program itself need not load the server

    install("stderr")
    try:
        serve(load({}, Path(config)))
    except (ConfigError, StorageError, OSError) as error:
        sys.stderr.write(f"kvstore: {error}\n")
        sys.exit(1)
    finally:
        drain()  # `multiprocessing` ends a process without the functions of atexit


def _remove_after_program(directory: str) -> None:
    program = multiprocessing.parent_process()
    assert program is not None  # noqa: S101 - this is a child
    _detach_from_program(keep=program.sentinel)
    program.join()
    _remove(directory)


def _remove(directory: str) -> None:
    deadline = time.monotonic() + _REMOVE_S
    while Path(directory).exists() and time.monotonic() < deadline:  # the last replicas may still write
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.05)


def _detach_from_program(keep: int | None = None) -> None:
    """Leave the terminal, whose Ctrl-C is for the program, and close all inherited files except `keep`, among them the
    pipe that keeps the fork server alive. Exit if the program has ended already."""
    os.setsid()
    program = multiprocessing.parent_process()
    if program is None or not program.is_alive():
        sys.exit(1)
    for descriptor in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        if descriptor > 2 and descriptor != keep:
            with suppress(OSError):  # the descriptor that listed the others
                os.close(descriptor)


@contextmanager
def _hidden_main_module() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _kill_all(program_id: int) -> None:
    if os.getpid() == program_id:  # a fork of the program runs this, too
        for process in multiprocessing.active_children():
            if process.name == _NAME:
                process.kill()
        for directory in _directories:
            _remove(directory)


atexit.register(_kill_all, os.getpid())
