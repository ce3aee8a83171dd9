"""The authority of a URL: a host and an optional port (RFC 3986, 3.2)."""

import re
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

_AUTHORITY = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+(?:%[\w.~%-]+)?\]|[\w.~!$&'()*+,;=%-]*)(?::(?P<port>[0-9]{0,5}))?", re.ASCII
)
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
    """Parse `host`, `host:port`, `[::1]` or `[::1]:port`. Raises ValueError."""
    found = _AUTHORITY.fullmatch(text)
    if found is None or int(found["port"] or 0) > _MAX_PORT:
        raise ValueError(f"{text[:80]!r} is not a host with an optional port")
    host = found["host"].lower()
    if host.startswith("["):
        host = str(IPv6Address(host[1:-1].partition("%")[0]))
    return Authority(host.removesuffix("."), int(found["port"]) if found["port"] else None)
