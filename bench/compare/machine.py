"""What the disk and the loopback interface do by themselves."""

import os
import socket
import threading
import time
from pathlib import Path

from bench.compare.found import Machine

SECONDS = 0.5
ROUNDS = 3
WRITE_BYTES = 4096
ECHO_BYTES = 100


def measure(directory: Path) -> Machine:
    """A few seconds of both."""
    return Machine(
        cores=os.cpu_count() or 1,
        fdatasyncs_per_second=[fdatasyncs_per_second(directory / "fdatasync", SECONDS) for _ in range(ROUNDS)],
        round_trips_per_second=[round_trips_per_second(SECONDS) for _ in range(ROUNDS)],
    )


def fdatasyncs_per_second(file: Path, seconds: float) -> float:
    """One writer that overwrites a block of a file, as a log does that is used again, and syncs it each time."""
    block = b"\0" * WRITE_BYTES
    count = 0
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        os.write(descriptor, block)
        os.fsync(descriptor)
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            os.pwrite(descriptor, block, 0)
            os.fdatasync(descriptor)
            count += 1
        return count / (time.perf_counter() - began)
    finally:
        os.close(descriptor)
        file.unlink()


def round_trips_per_second(seconds: float) -> float:
    """A message there and back over TCP, one at a time, between two threads."""
    message = b"\0" * ECHO_BYTES
    count = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_echo, args=(server,))
        thread.start()
        with socket.create_connection(server.getsockname()) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began = time.perf_counter()
            while time.perf_counter() < began + seconds:
                client.sendall(message)
                received = 0
                while received < ECHO_BYTES:
                    received += len(client.recv(ECHO_BYTES))
                count += 1
            elapsed_s = time.perf_counter() - began
        thread.join()
    return count / elapsed_s


def _echo(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(ECHO_BYTES):
            connection.sendall(data)
