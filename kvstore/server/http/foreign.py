"""What a browser may do here for a page of another site: nothing that changes anything.

Whoever reaches a replica may write to it, so a page that a person on that network happens to visit must not write
through the person's browser. Browsers ask before they send PUT or DELETE for another site, and are not answered; a POST
they send at once, and say where it comes from (https://www.w3.org/TR/fetch-metadata/).
"""

from urllib.parse import urlsplit

from aiohttp import web

from kvstore.server.http.problems import FOREIGN_PAGE, SAFE_METHODS, Problem

_OWN = frozenset({"same-origin", "none"})


def refuse_foreign_pages(request: web.BaseRequest) -> None:
    """Raises Problem for a write that a browser sends for another site."""
    if request.method in SAFE_METHODS:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    foreign = site is not None and site not in _OWN
    if not foreign and origin is not None:
        foreign = urlsplit(origin).netloc != request.headers.get("Host")
    if foreign:
        detail = "A browser sent this for a page of another site. Use this replica's own page at /ui, or a program."
        raise Problem(FOREIGN_PAGE, detail)
