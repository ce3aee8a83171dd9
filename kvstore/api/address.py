"""The addresses that a person types: `host:port` of listeners and members, and base URLs of replicas for clients.

An address is checked where it is entered, and kept in canonical form: lower case, canonical IP addresses, no spaces.
"""

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from kvstore.api.authority import parse_authority
from kvstore.api.numbers import shown

_URL = re.compile("(?:([^:/?#]*)://)?([^/?#]*)(.*)", re.DOTALL)
_LOCALHOST = "localhost"
"""The name that /etc/hosts has. With a dot at its end it means the same (RFC 6761, 6.3), but a resolver asks DNS."""
_PORTS = {"http": 80, "https": 443}

_FORM = "write host:port with a port of 1 to 65535, like 127.0.0.1:9001"
_URL_FORM = "write http://host:port, like http://127.0.0.1:8001"


class InvalidAddressError(ValueError):
    """Error for a text that is no address. The message begins with the text, and ends with the right form."""


class Address(NamedTuple):
    """Host and port. An IPv6 host is written in brackets: `[::1]:9001`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_unspecified(self) -> bool:
        """True if the host is `0.0.0.0` or `::`, which is an address to listen on and not to connect to."""
        ip = _ip_of(self.host)
        return ip is not None and ip.is_unspecified

    @property
    def is_loopback(self) -> bool:
        """True if the host is a loopback address."""
        ip = _ip_of(self.host)
        return ip is not None and ip.is_loopback

    def is_same(self, other: "Address") -> bool:
        """Return whether the addresses are certainly those of one listener; `localhost` is 127.0.0.1."""
        mine, theirs = _ip_of(self.host) or self.host, _ip_of(other.host) or other.host
        return self.port == other.port and mine == theirs

    def overlaps(self, other: "Address") -> bool:
        """Return whether a machine could not listen on both addresses at once."""
        wildcard = self.is_unspecified or other.is_unspecified
        return self.is_same(other) or (wildcard and self.port == other.port)


def parse_address(text: str) -> Address:
    """Return the address that `text` spells, to listen on. Raises InvalidAddressError."""
    try:
        return _host_and_port(text.strip())
    except ValueError as error:
        raise InvalidAddressError(f"{_shown(text)} is not an address: {error}; {_FORM}") from None


def parse_peer_address(text: str) -> Address:
    """Return the address that `text` spells, to connect to. Raises InvalidAddressError."""
    address = parse_address(text)
    if _is_no_target(address):
        raise InvalidAddressError(
            f"{_shown(text)} is no address to connect to, only one to listen on: write the name or the IP address of "
            "the host, and set peer_listen to listen on all its addresses"
        )
    return address


def parse_base_url(text: str) -> str:
    """Return the base URL of a replica in canonical form, `http://host:port`. Raises InvalidAddressError."""
    try:
        return _base_url(text.strip())
    except ValueError as error:
        raise InvalidAddressError(f"{_shown(text)} is not a base URL: {error}; {_URL_FORM}") from None


def parse_base_urls(texts: Iterable[str]) -> tuple[str, ...]:
    """Return base URLs in their order, each once. Raises InvalidAddressError, for an empty list too."""
    if isinstance(texts, str):
        raise InvalidAddressError(
            f"{shown(texts)} is one text: give a list of base URLs, like ['http://10.0.0.1:8001']"
        )
    urls = tuple(dict.fromkeys(map(parse_base_url, texts)))
    if not urls:
        raise InvalidAddressError("a client needs at least one endpoint, like http://127.0.0.1:8001")
    return urls


def loopback_warnings(members: Mapping[str, Address]) -> list[str]:
    """Return a warning if some members, but not all, have a loopback address."""
    loopback = [f"{name}={address}" for name, address in members.items() if address.is_loopback]
    if not loopback or len(loopback) == len(members):
        return []
    return [
        (
            f"members has the loopback address {', '.join(loopback)} beside addresses of other machines, which cannot "
            "connect to it: use the name or the IP address of its host"
        )
    ]


def _shown(text: str) -> str:
    """Return `text` for a message, without a password."""
    return shown(f"...{text[text.rindex('@') :]}" if "@" in text else text)


def _base_url(given: str) -> str:
    """Return the base URL in `given`. Raises ValueError with the reason why there is none."""
    match = _URL.fullmatch(given)
    scheme, authority, path = match.groups() if match is not None else ("", "", "")
    if scheme is None or scheme.lower() not in _PORTS:
        raise ValueError("http:// or https:// must precede the host")
    if "@" in authority:
        raise ValueError("a replica asks for no user name and no password")
    if path not in {"", "/"}:
        raise ValueError(f"leave {shown(path)} away, because each request adds its own path")
    default = "" if re.search(":[^]:]*$", authority) else f":{_PORTS[scheme.lower()]}"
    address = _host_and_port(authority + default)
    if _is_no_target(address):
        raise ValueError("it is an address to listen on, to which nothing connects")
    return f"{scheme.lower()}://{str(address).removesuffix(default)}"


def _host_and_port(given: str) -> Address:
    """Return the address in `given`. Raises ValueError with the reason why there is none."""
    host, port = parse_authority(given)
    if port is None:
        raise ValueError("the port is missing")
    return Address(_LOCALHOST if host == f"{_LOCALHOST}." else host, port)


def _is_no_target(address: Address) -> bool:
    ip = _ip_of(address.host)
    return ip is not None and (ip.is_unspecified or ip.is_multicast)


def _ip_of(host: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that a host means on every machine, None for other names."""
    if host == _LOCALHOST:
        return IPv4Address("127.0.0.1")
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip
