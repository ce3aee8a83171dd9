"""The grammar of a host with an optional port, as in a URL (RFC 3986, 3.2), an address and the header Host.

A host is in canonical form: lower case, and canonical IP addresses. It is an IPv6 address in brackets, an IPv4 address
of four numbers, or a name in the letters of DNS, which may end in a dot.
"""

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from kvstore.api.numbers import InvalidNumberError, parse_integer, shown

_MAX_NAME_CHARS = 253
_LABEL = re.compile("[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
"""A host that many programs read as an IPv4 address. Unless it has four numbers, they disagree on which one."""
_MAX_PORT = 65535


class Authority(NamedTuple):
    """A host name or IP address, and a port; None if no port is named."""

    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def is_address(self) -> bool:
        """True if the host is an IP address."""
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True


def parse_authority(text: str) -> Authority:
    """Parse `host`, `host:port`, `[::1]` or `[::1]:port`; a port may be empty. Raises ValueError with the reason."""
    scheme, separator, _ = text.partition("://")
    if separator:
        raise ValueError(f"leave {scheme[:20]}:// away")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise ValueError("the bracket ] is missing")
        host, separator, port = _ipv6(host), rest[:1], rest[1:]
        if rest and separator != ":":
            raise ValueError("a colon must follow the bracket ]")
    else:
        host, _, port = text.partition(":")
        if ":" in port:
            raise ValueError("it has more than one colon, and an IPv6 address is written in brackets, like [::1]:9001")
        host = _ipv4_or_name(host)
    try:
        return Authority(host, parse_integer(port, 1, _MAX_PORT) if port else None)
    except InvalidNumberError as error:
        raise ValueError(f"the port {error}") from None


def _ipv6(host: str) -> str:
    try:
        return str(IPv6Address(host))
    except ValueError:
        raise ValueError(f"{shown(host)} is no IPv6 address") from None


def _ipv4_or_name(host: str) -> str:
    name = host.lower()
    if _ENDS_IN_NUMBER.fullmatch(name):
        try:
            return str(IPv4Address(name))
        except ValueError:
            raise ValueError(f"{shown(host)} is no IPv4 address of four numbers from 0 to 255") from None
    labels = name.removesuffix(".").split(".")
    if len(name) <= _MAX_NAME_CHARS and all(map(_LABEL.fullmatch, labels)):
        return name
    raise ValueError(_why_no_name(host))


def _why_no_name(host: str) -> str:
    if not host:
        return "the host is missing"
    if len(host) > _MAX_NAME_CHARS:
        return f"{shown(host)} is too long, a host has at most {_MAX_NAME_CHARS} characters"
    if not host.isascii() and all(char.isalnum() or char in "-." for char in host):
        with suppress(UnicodeError):
            return f"write the host in ASCII, {host.encode('idna').decode()}"
    return f"{shown(host)} is no name of a host, which has letters, digits and - between dots"
