"""The supervisor of a command: when it sends which signal. The tests of `kvstore lock` run it as a process."""

import signal
import socket
from collections.abc import Iterator

import pytest

from kvstore.cli import command_supervisor
from kvstore.cli.command_supervisor import GRACE_S, Supervisor


class Supervised:
    """A supervisor whose command never ends, and the signals that its process group gets."""

    def __init__(self, supervisor: Supervisor, lock_process: socket.socket, signals: list[int]) -> None:
        self._supervisor = supervisor
        self._lock_process = lock_process
        self._signals = signals

    def request(self, line: str) -> None:
        self._lock_process.send(f"{line}\n".encode())
        self._supervisor._receive()

    def signals_at(self, now: float) -> list[int]:
        """Return the signals of this moment, without SIGCONT, which follows each SIGTERM."""
        self._signals.clear()
        self._supervisor._step(now)
        return [number for number in self._signals if number != signal.SIGCONT]


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervised]:
    signals = list[int]()
    control, lock_process = socket.socketpair()
    with control, lock_process:
        supervisor = Supervisor(control.fileno(), until_s=0.0)
        monkeypatch.setattr(command_supervisor, "_descendants", list)
        monkeypatch.setattr(supervisor, "_reap", lambda: None)
        monkeypatch.setattr(supervisor, "_send", signals.append)
        yield Supervised(supervisor, lock_process, signals)


def test_a_command_that_ignores_sigterm_is_killed_when_the_lease_ends(supervised: Supervised) -> None:
    supervised.request("until 104 0.5")
    assert supervised.signals_at(103.4) == []
    assert supervised.signals_at(103.6) == [signal.SIGTERM]
    assert supervised.signals_at(103.9) == []
    assert supervised.signals_at(104.0) == [signal.SIGKILL]


def test_a_renewal_moves_the_end(supervised: Supervised) -> None:
    supervised.request("until 104 0.5")
    supervised.request("until 106 0.5")
    assert supervised.signals_at(105.4) == []
    assert supervised.signals_at(105.5) == [signal.SIGTERM]


def test_a_supervisor_that_was_stopped_for_longer_than_the_lease_kills_at_once(supervised: Supervised) -> None:
    supervised.request("until 104 0.5")
    assert supervised.signals_at(110.0) == [signal.SIGTERM, signal.SIGKILL]


def test_a_command_that_is_ended_has_its_grace_while_the_lease_is_renewed(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    supervised.request("until 104 0.5")
    supervised.request("end")
    supervised.request("until 108 0.5")
    assert supervised.signals_at(104.0) == []
    supervised.request("until 112 0.5")
    assert supervised.signals_at(100.0 + GRACE_S) == [signal.SIGKILL]
