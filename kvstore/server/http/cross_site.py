"""What a browser may do here for a page of another site: nothing that changes anything.

Whoever reaches a replica may write to it, so a page that a person on that network happens to visit must not write
through the person's browser. Browsers ask before they send PUT or DELETE for another site, and are not answered; a POST
they send at once, and say where it comes from (https://www.w3.org/TR/fetch-metadata/).
"""

from urllib.parse import urlsplit

from kvstore.server.http.problems import FOREIGN_PAGE, SAFE_METHODS, Problem
from kvstore.server.http.request import HttpRequest

_OWN = frozenset({b"same-origin", b"none"})


def refuse_cross_site(request: HttpRequest) -> None:
    """Raise Problem for a write that a browser sends for another site."""
    headers = request.headers
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if (site is None and origin is None) or request.method in SAFE_METHODS:
        return
    foreign = site is not None and site not in _OWN
    if not foreign and origin is not None:
        foreign = _host_of(origin) != headers.get(b"host", b"")
    if foreign:
        detail = "A browser sent this for a page of another site. Use this replica's own page at /ui, or a program."
        raise Problem(FOREIGN_PAGE, detail)


def _host_of(origin: bytes) -> bytes | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # an address of IPv6 that is none
        return None
