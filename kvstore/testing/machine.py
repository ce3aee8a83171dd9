"""What a local cluster takes from the machine: ports that are free, a secret, and an end with its parent."""

import ctypes
import os
import secrets
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

FREE_PORTS = range(12_000, 32_000)
"""Below the ports that systems give to outgoing connections: those could take a dead replica's port from it."""
_SHARES = 32
"""Each process picks from its own part of them: two could find the same one free, before either listens on it."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def free_ports(host: str, count: int, taken: Iterable[int] = ()) -> list[int]:
    """So many ports of `host` that nobody listens on, other ones than those `taken`."""
    ports: list[int] = []
    own = FREE_PORTS[os.getpid() % _SHARES :: _SHARES]
    while len(ports) < count:
        port = secrets.choice(own)
        if port not in {*ports, *taken} and is_free(host, port):
            ports.append(port)
    return ports


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens on it."""
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True


def make_secret(path: Path) -> None:
    """A file that only its owner reads; one that exists stays."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32) + "\n")


def end_with_parent(how: signal.Signals = signal.SIGTERM) -> None:
    """Runs in the child: have the system end it, in order, when its parent dies, however that happens. Linux only."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_PDEATHSIG, how)
