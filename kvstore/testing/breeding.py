"""The program's side of `kvstore.testing.nursery`."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from kvstore.testing.process_cluster import ClusterError, Process, ProcessCluster


class Nursery:
    """One for the whole program; it begins to load when it is made."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kvstore.testing.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # sqlite-utils loads numpy; threads do not survive a fork
            start_new_session=True,
        )

    @property
    def ended(self) -> bool:
        """Whether another one is needed."""
        return self._process.poll() is not None

    def ask(self, name: str, *arguments: object) -> Any:
        """The answer. Raises ClusterError when there is none."""
        with self._asking:
            if self._process.stdin is None or self._process.stdout is None:
                raise TypeError("the nursery was started without pipes")
            try:
                self._process.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
                self._process.stdin.flush()
                answer = self._process.stdout.readline()
            except (OSError, ValueError) as error:
                raise ClusterError(f"the process that starts replicas is gone: {error}") from error
            if not answer:
                raise ClusterError("the process that starts replicas has ended; what it printed stands above")
            return json.loads(answer)

    def close(self) -> None:
        """It ends, and all replicas with it."""
        with self._asking:
            self._process.communicate()


class Bred:
    """A replica out of the nursery; the part of `subprocess.Popen` that `kvstore.testing.process_cluster` uses."""

    def __init__(self, nursery: Nursery, process_id: int) -> None:
        self._nursery = nursery
        self.pid = process_id

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        code: int | None = self._nursery.ask("poll", self.pid)
        return code

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        code: int = self._nursery.ask("wait", self.pid)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing, where it has ended."""
        self._nursery.ask("signal", self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


_starting = threading.Lock()
_shared: Nursery | None = None


def shared() -> Nursery:
    """The program's one; it ends with the program."""
    global _shared  # noqa: PLW0603 - what is loaded once is there once
    with _starting:
        if _shared is None or _shared.ended:
            _shared = Nursery()
            atexit.register(_shared.close)
        return _shared


class ForkedCluster(ProcessCluster):
    """With replicas out of the nursery."""

    def spawn(self, name: str, environment: Mapping[str, str]) -> Process:
        """See ProcessCluster."""
        place, nursery = self.replicas[name], shared()
        process_id = nursery.ask("start", os.fspath(place.config), os.fspath(place.log), dict(environment))
        return Bred(nursery, process_id)
