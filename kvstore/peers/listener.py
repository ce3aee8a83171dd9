"""Sockets that listen on an address of the settings."""

import socket

BACKLOG = 1024
"""Connections that the kernel queues while the replica is busy; more are refused."""


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a non-blocking socket that listens on a host name or an IP address. `::` takes IPv4 connections, too.

    Raises OSError if that fails.
    """
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    both = host == "::" and socket.has_dualstack_ipv6()
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    listener.setblocking(False)
    return listener
