"""The supervisor of a command: when it sends which signal. The tests of `kvstore lock` run it as a process."""

import signal
import socket
import time
from collections.abc import Iterator

import pytest

from kvstore.cli import command_supervisor
from kvstore.cli.command_supervisor import CHECK_S, GRACE_S, Supervisor
from kvstore.client.clock import boot_time_s


class Supervised:
    """A supervisor whose command never ends, and the signals that its process group gets."""

    def __init__(self, supervisor: Supervisor, lock_process: socket.socket, signals: list[int]) -> None:
        self._supervisor = supervisor
        self._lock_process = lock_process
        self._signals = signals

    def request(self, line: str) -> None:
        self._lock_process.send(f"{line}\n".encode())
        self._supervisor._receive()

    @property
    def longest_wait_s(self) -> float:
        return self._supervisor._timeout_s()

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
    monkeypatch.setattr(command_supervisor, "_now", lambda: 100.0)
    supervised.request("until 104 0.5")
    supervised.request("end")
    supervised.request("until 108 0.5")
    assert supervised.signals_at(104.0) == []
    supervised.request("until 112 0.5")
    assert supervised.signals_at(100.0 + GRACE_S) == [signal.SIGKILL]


def test_the_supervisor_and_the_client_count_on_one_clock_and_with_the_time_of_suspension(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test stands in for a clock that ran on while the machine was suspended."""
    asked: list[int] = []

    def read(clock: int) -> float:
        asked.append(clock)
        return 110.0

    monkeypatch.setattr("time.clock_gettime", read)
    supervised.request("until 104 0.5")
    assert supervised.signals_at(command_supervisor._now()) == [signal.SIGTERM, signal.SIGKILL]
    assert boot_time_s() == 110.0
    assert asked == [getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)] * len(asked)


def test_a_supervisor_looks_at_the_clock_in_time_although_no_wait_counts_the_time_of_suspension(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_supervisor, "_now", lambda: 100.0)
    supervised.request("until 900 0.5")
    assert supervised.longest_wait_s == CHECK_S
    supervised.request("until 101 0.5")
    assert supervised.longest_wait_s == 0.5
