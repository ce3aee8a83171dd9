"""What a front end takes from its clients."""

import msgspec


class HttpLimits(msgspec.Struct, frozen=True):
    """Bounds on requests, connections and waits, with their defaults."""

    max_value_bytes: int = 1024 * 1024
    """Longest value that a PUT may set."""

    max_in_flight: int = 1024
    """Most requests for keys in progress at once; more are refused with 429. Four times the connections at which a
    replica has its best throughput; together with the longest value it bounds the memory for bodies to 1 GiB."""

    body_timeout_ms: int = 10_000
    """The whole body of a request must have arrived this long after its headers."""

    keepalive_timeout_ms: int = 75_000
    """A connection on which no request's headers became complete for so long is closed, idle or not. Above the
    60 s for which load balancers commonly keep a connection: the side that sends should be the one that closes."""
