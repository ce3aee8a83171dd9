"""Bounds of the HTTP front end."""

import asyncio
import socket

import msgspec

UNSENT_BYTES = 64 * 1024
"""Bytes of a stream that the kernel takes before they can be sent. Without a bound it takes up to 4 MB for each client
that does not read, and a few hundred of them exhaust the memory of the kernel for all connections, also of peers."""


class HttpLimits(msgspec.Struct, frozen=True):
    """Bounds of requests, connections and timeouts, with their defaults."""

    max_value_bytes: int = 1024 * 1024
    """Longest body of a request, and so longest value."""

    max_in_flight: int = 1024
    """Most complete requests of keys, transactions, leases and locks in progress; more are refused with 429. The
    default is four times the number of connections with the best throughput."""

    max_received_bytes: int = 256 * 1024 * 1024
    """Most bytes of requests in memory: incomplete ones, and the bodies of complete ones without a response. See
    `received_bytes`."""

    body_timeout_ms: int = 10_000
    """Time after the headers of a request within which its body must arrive."""

    keepalive_timeout_ms: int = 75_000
    """Time without a complete request head or a response after which a connection is closed. The default is above the
    60 s of common load balancers: the side that sends requests should be the one that closes."""


def bound_unsent(transport: asyncio.Transport) -> None:
    """Limit the bytes that the kernel holds for the client of a stream."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # some systems lack it
    connection = transport.get_extra_info("socket")
    if option is not None and connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)
