"""Protection against cross-site requests: a browser must not write here for a page of another site.

A client that reaches a replica may write to it, so a web page that a person on that network visits must not write
through the person's browser. Browsers send a POST for another site without asking, and name the site of the page in
headers (https://www.w3.org/TR/fetch-metadata/). Before a PUT or DELETE they ask, which this server does not answer.
"""

from urllib.parse import urlsplit

from kvstore.server.http.problems import FOREIGN_PAGE, SAFE_METHODS, Problem
from kvstore.server.http.request import HttpRequest

_OWN = frozenset({b"same-origin", b"none"})


def refuse_cross_site(request: HttpRequest) -> None:
    """Raise Problem for a write that a browser sends for a page of another site."""
    headers = request.headers
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if (site is None and origin is None) or request.method in SAFE_METHODS:
        return
    foreign = site is not None and site not in _OWN
    if not foreign and origin is not None:
        foreign = _host_of(origin) != headers.get(b"host", b"")
    if foreign:
        detail = "A browser sent this write for a page of another site. Use the page /ui, or another HTTP client."
        raise Problem(FOREIGN_PAGE, detail)


def _host_of(origin: bytes) -> bytes | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # an invalid IPv6 address
        return None
