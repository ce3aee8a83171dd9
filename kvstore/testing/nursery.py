"""A process that has loaded the server, and forks replicas.

To load what a replica needs takes most of the time until it serves, and each process would do it again. The nursery
does it once for all replicas that a program ever starts, so a cluster comes up, and a replica comes back, in a fraction
of a second. What it forks is the server as `kvstore serve --config` runs it, in a process group of its own.

The program talks to it in lines of JSON, an answer to each request. When their pipe ends, because the program has ended
in whatever way, the nursery kills all replicas and ends; when the nursery is killed, the system ends the replicas.
"""

import json
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from kvstore.server import process
from kvstore.server.config import ConfigError
from kvstore.server.config_sources import load
from kvstore.testing.machine import end_with_parent
from storage.base import StorageError

FAILED = 1


class Nursery:
    """The replicas, by process id."""

    def __init__(self) -> None:
        self._codes: dict[int, int | None] = {}
        """How each ended, None while it runs."""
        self._directories: list[str] = []

    def start(self, config: str, log: str, environment: dict[str, str]) -> int:
        """Fork a replica with the settings in `config`, which appends what it prints to `log`. Gives its id."""
        child = os.fork()
        if not child:
            _be_replica(Path(config), log, environment)
        self._codes[child] = None
        return child

    def signal(self, process_id: int, number: int) -> None:
        """Send a signal, if the replica is there still."""
        if self.poll(process_id) is None:
            os.kill(process_id, number)

    def poll(self, process_id: int, options: int = os.WNOHANG) -> int | None:
        """Exit status of a replica, the negative signal if one ended it; None while it runs."""
        if self._codes[process_id] is None:
            found, status = os.waitpid(process_id, options)
            if found:
                self._codes[process_id] = os.waitstatus_to_exitcode(status)
        return self._codes[process_id]

    def wait(self, process_id: int) -> int | None:
        """The same, once it has ended."""
        return self.poll(process_id, 0)

    def tidy(self, directory: str) -> None:
        """At the end remove this, if it is still there."""
        self._directories.append(directory)

    def end(self) -> None:
        """No replica is left, nor what they wrote."""
        for process_id in self._codes:
            self.signal(process_id, signal.SIGKILL)
        for process_id in self._codes:
            self.wait(process_id)
        for directory in self._directories:
            shutil.rmtree(directory, ignore_errors=True)


def _be_replica(config: Path, log: str, environment: dict[str, str]) -> NoReturn:
    code = FAILED
    try:
        os.setsid()
        end_with_parent(signal.SIGKILL)  # a paused one would not hear of another signal
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(environment)
        process.serve(load({}, config))
        code = 0
    except (ConfigError, StorageError, OSError) as error:
        sys.stderr.write(f"kvstore: {error}\n")
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc()
    finally:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serve requests from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which ends this by the end of the pipe
    nursery = Nursery()
    calls: dict[str, Callable[..., Any]] = {
        "start": nursery.start,
        "signal": nursery.signal,
        "poll": nursery.poll,
        "wait": nursery.wait,
        "tidy": nursery.tidy,
    }
    try:
        for line in sys.stdin.buffer:
            name, *arguments = json.loads(line)
            answer = calls[name](*arguments)
            sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
            sys.stdout.buffer.flush()
    finally:
        nursery.end()


if __name__ == "__main__":
    main()
