"""Sockets that listen."""

import socket

import pytest

from kvstore.peers.listener import listening_socket


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return socket.has_dualstack_ipv6()


@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
def test_a_listener_on_the_unspecified_ipv6_address_takes_both_kinds_of_clients(client: str) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    with listening_socket("::", 0) as listener:
        socket.create_connection((client, listener.getsockname()[1])).close()


def test_a_listener_on_an_address_takes_clients_of_that_address() -> None:
    with listening_socket("localhost", 0) as listener:
        socket.create_connection(listener.getsockname()[:2]).close()
    with listening_socket("0.0.0.0", 0) as listener:
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])).close()


def test_a_name_without_an_address_is_an_error() -> None:
    with pytest.raises(OSError, match=r"known|resol|address"):
        listening_socket("no-such-host.invalid", 0)
