"""Operating-system services for local clusters: free ports, a secret file, a signal at the end of the parent."""

import ctypes
import os
import secrets
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

FREE_PORTS = range(12_000, 32_000)
"""Ports to choose from. Systems take the ports of outgoing connections from above this range; such a connection could
otherwise occupy the port of a stopped replica."""
_SHARES = 32
"""Number of parts of FREE_PORTS. Each process uses the ports of one part, so that two processes rarely choose the same
port before either listens on it."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def free_ports(host: str, count: int, taken: Iterable[int] = ()) -> list[int]:
    """Return `count` ports of `host` that are not in use and not in `taken`."""
    ports: list[int] = []
    own = FREE_PORTS[os.getpid() % _SHARES :: _SHARES]
    while len(ports) < count:
        port = secrets.choice(own)
        if port not in {*ports, *taken} and is_free(host, port):
            ports.append(port)
    return ports


def is_free(host: str, port: int) -> bool:
    """Return whether no socket listens on the port."""
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True


def make_secret(path: Path) -> None:
    """Write a random secret to a new file that only its owner can read. An existing file stays."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32) + "\n")


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Make Linux send this signal to the calling process when its parent ends, for any reason; do nothing on other
    systems."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_PDEATHSIG, number)
