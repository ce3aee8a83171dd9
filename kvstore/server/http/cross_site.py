"""Protection against web pages of other sites (cross-site request forgery and DNS rebinding).

A replica does not authenticate clients: every program that can connect to it may use it. A browser can connect to it,
too, so web pages of other sites must not reach it through a visitor's browser. Two rules hold for every request:

Host. A page can resolve its own host name to the address of a replica (DNS rebinding). For the browser, the replica
then belongs to the site of the page. So `Host` must be an IP address, localhost or a configured name; otherwise 421.

Origin. A browser sends some writes for pages of other sites, and describes the page in headers
(https://www.w3.org/TR/fetch-metadata/). `Sec-Fetch-Site` decides; where it is missing, `Origin` must be the host of the
request or a public name; otherwise 403. A cross-site PUT or DELETE needs a CORS preflight, which this server never
grants.
"""

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from kvstore.api.authority import Authority, parse_authority
from kvstore.server.http.problems import FOREIGN_PAGE, MALFORMED, SAFE_METHODS, UNKNOWN_HOST, Problem, ProblemKind
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.request_target import authority_of

_DEFAULT_PORTS = {"http": 80, "https": 443}
_OWN_SITES = frozenset({b"same-origin", b"none"})
_CACHED = 1024
_SAME_SITE = (
    "No setting permits this: a page that is to write must be loaded from the scheme, host and port to which it writes."
)
_PUBLIC_NAMES = "If the page is loaded from this store under another name, add that name to the setting public_names."


class HostNames:
    """The names by which clients may address a replica.

    `members` are hosts of members: they are accepted in Host. `public` are names, or `name:port`, that are accepted in
    Host and in Origin. The port does not matter in Host; in Origin it is the one that is named, or a default port.
    """

    def __init__(self, members: Iterable[str] = (), public: Iterable[Authority] = ()) -> None:
        self._public = frozenset(map(_without_dot, public))
        self._names = {host.lower().removesuffix(".") for host in members} | {name.host for name in self._public}
        self._judged = lru_cache(_CACHED)(self._judge)
        """Function `_judge` with the latest results: nearly all requests have one of a few Host headers."""

    def refuse(self, request: HttpRequest) -> None:
        """Raise Problem for a request that breaks one of the two rules."""
        headers = request.headers
        host = headers.get(b"host") if request.target[:1] == "/" else authority_of(request)
        if host is not None:
            problem = self._judged(host)
            if problem is not None:
                raise Problem(*problem)
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
        if (site is None and origin is None) or request.method in SAFE_METHODS:
            return
        if site is not None:
            if site not in _OWN_SITES:
                raise _foreign(f"Sec-Fetch-Site is {_shown(site)}", _SAME_SITE)
        elif origin is not None and not self._is_own(origin, host or b""):
            raise _foreign(f"Origin is {_shown(origin)}, Host is {_shown(host or b'')}", _PUBLIC_NAMES)

    def _judge(self, host: bytes) -> tuple[ProblemKind, str] | None:
        """Return the problem of a request to `host`, None if it names this replica. An empty host names nobody: no
        browser sends it."""
        if not host:
            return None
        try:
            found = _without_dot(parse_authority(host.decode("latin-1")))
        except ValueError as error:
            return MALFORMED, f"The host {_shown(host)} of the request is invalid: {error}."
        name = found.host
        if name in self._names or name == "localhost" or name.endswith(".localhost") or found.is_address:
            return None
        detail = (
            f"{name} is not a name of this replica. Add it to the setting public_names, or use an IP address, "
            "localhost, or the host of a member."
        )
        return UNKNOWN_HOST, detail

    def _is_own(self, origin: bytes, host: bytes) -> bool:
        """Return whether a page of `origin` is of this replica, which the request addresses as `host`.

        The scheme does not matter: a proxy may terminate TLS. A Host without a port has the default port of either.
        """
        try:
            parts = urlsplit(origin.decode("latin-1"))
            page, asked = (_without_dot(parse_authority(text)) for text in (parts.netloc, host.decode("latin-1")))
        except ValueError:
            return False
        default = _DEFAULT_PORTS.get(parts.scheme)
        if default is None:
            return False
        port = page.port or default
        if (page.host, port) == (asked.host, asked.port or default):
            return True
        return Authority(page.host, port) in self._public or (
            port == default and Authority(page.host, None) in self._public
        )


def _foreign(why: str, advice: str) -> Problem:
    detail = (
        f"A browser sent this write for a page of another site ({why}). Use the page /ui of this replica, or an HTTP "
        f"client that is no browser. {advice}"
    )
    return Problem(FOREIGN_PAGE, detail)


def _without_dot(name: Authority) -> Authority:
    """Return `name` without a dot at the end of its host, which matters to a resolver only."""
    return name._replace(host=name.host.removesuffix("."))


def _shown(value: bytes) -> str:
    return repr(value[:80].decode("latin-1"))
