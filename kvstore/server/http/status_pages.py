"""Pages for operators, load balancers and Prometheus (`/status`, `/livez`, `/readyz`, `/metrics`), descriptions of the
API (`/`, `/docs`, `/openapi.json`), and the files of `/ui`."""

from collections.abc import Callable
from functools import partial

import msgspec

from kvstore.api.status import Standing
from kvstore.server.http.calls import TaskCall
from kvstore.server.http.openapi.pages import docs_page, index, openapi_page
from kvstore.server.http.problems import NO_SUCH_RESOURCE, NOT_READY, RETRY_AFTER, STOPPING, Problem, not_allowed
from kvstore.server.http.query_parameters import refuse_parameters
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.response import HttpResponse
from kvstore.server.http.ui import pages
from kvstore.server.metrics import CONTENT_TYPE, Metrics
from kvstore.server.service import ReplicaService

ALLOWED = "GET, HEAD"

_TEXT = "text/plain; charset=utf-8"

_NO_DATA = "{0} has no data of a cluster. It founds one only when every founding member has none either, "
_OUTSIDE = {
    Standing.REMOVED: "{0} was removed from the cluster. Stop it, or add it again with POST /members.",
    Standing.REFUSED: "The replicas that {0} reaches do not know it as a member. Stop it if it was removed; otherwise "
    "add it with POST /members.",
    Standing.WAITING: "{0} was started to join and has not learned the membership yet. Add it with POST /members, and "
    "check that its setting `members` has the address of a member.",
    Standing.FOUNDING: _NO_DATA + "and waits for {1}. Start all founding members with the same setting `members`. "
    "GET /readyz there says what a member waits for. If a member cannot start, and no data of the cluster exists, set "
    "`bootstrap_without` to its name on all the others.",
    Standing.RESTORE_MISMATCH: "{0} {2}. Other founding members begin with another state, and found no cluster with "
    "it: {1}. GET /status shows in `restored` how each member begins: the number before the colon is its --above. Stop "
    "each member whose state is wrong, move its data directory away, and restore it from the backup of the others with "
    "their --above.",
    Standing.DATA_LOST: _NO_DATA + "and it is known to {1} with other data: {0} has lost its data. Put its data "
    "directory back or, if a majority has its data, call POST /members/{0}/replace there: {0} then gets the data of "
    "the cluster, in place of a restored state. If no majority has its data, restore a backup on all members, without "
    "an --above that was used before.",
}


class StatusPages:
    """Handlers of the pages. `stopping` returns True while the front end is shutting down."""

    def __init__(self, replica: ReplicaService, metrics: Metrics, stopping: Callable[[], bool]) -> None:
        self._replica = replica
        self._metrics = metrics
        self._stopping = stopping
        self._pages: dict[str, Callable[[], HttpResponse]] = {
            "/": lambda: _page(_TEXT, index()),
            "/status": self._status,
            "/livez": lambda: _page(_TEXT, b"ok\n"),
            "/readyz": self._readyz,
            "/metrics": lambda: _page(CONTENT_TYPE, self._metrics.render()),
        }
        self._lasting = {"/docs": docs_page(), "/openapi.json": openapi_page(), **pages()}

    def knows(self, path: str) -> bool:
        """Return whether there is a page at `path`."""
        return path in self._pages or path in self._lasting

    def route(self, request: HttpRequest, path: str, query: str) -> TaskCall:
        """Return the call of a request for the page at `path`. Raises Problem."""
        if path == "*":
            raise not_allowed(request.method, "GET, HEAD, PUT, POST, DELETE")
        if not self.knows(path):
            known = ", ".join(["/kv/{key}", *self._pages, *(page for page in self._lasting if page.count("/") == 1)])
            raise Problem(NO_SUCH_RESOURCE, f"The paths of this server are {known}. GET / explains them.")
        if request.method not in ("GET", "HEAD"):
            raise not_allowed(request.method, ALLOWED)
        refuse_parameters(query)
        return TaskCall(partial(self._handle, request, path), takes_body=False)

    async def _handle(self, request: HttpRequest, path: str) -> HttpResponse:
        if path in self._lasting:
            return self._lasting[path].response(request)
        return self._pages[path]()

    def _status(self) -> HttpResponse:
        document = msgspec.json.format(msgspec.json.encode(self._replica.status()), indent=2)
        return _page("application/json", document + b"\n")

    def _readyz(self) -> HttpResponse:
        if self._stopping():
            raise Problem(STOPPING, "Send requests to another replica.", fields=RETRY_AFTER)
        status = self._replica.status()
        if status.standing in _OUTSIDE:
            own = f"was restored as {status.restored}" if status.restored else "was not restored"
            why = _OUTSIDE[status.standing].format(status.id, ", ".join(status.waits_for), own)
            raise Problem(NOT_READY, why, fields=RETRY_AFTER)
        if status.ready:
            return _page(_TEXT, b"ok\n")
        if status.leader is None:
            why = "This replica knows no leader. Check in GET /status that a majority of the replicas is connected."
        else:
            why = f"This replica has not caught up with the leader {status.leader} yet. GET /status shows its progress."
        raise Problem(NOT_READY, why, fields=RETRY_AFTER)


def _page(content_type: str, body: bytes) -> HttpResponse:
    fields = f"Content-Type: {content_type}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
    return HttpResponse(200, fields.encode(), body)
