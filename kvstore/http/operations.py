"""What an operator, a load balancer and Prometheus ask: `/`, `/status`, `/livez`, `/readyz`, `/metrics`."""

from collections.abc import Callable

import msgspec

from kvstore.http.answer import Answer
from kvstore.http.problems import NO_SUCH_RESOURCE, NOT_READY, RETRY_AFTER, STOPPING, Problem, not_allowed
from kvstore.http.target import no_parameters
from kvstore.metrics import CONTENT_TYPE, Metrics
from kvstore.requests import Replica, Standing

ALLOWED = "GET, HEAD"

_TEXT = "text/plain; charset=utf-8"
_INDEX = b"""\
kvstore: a replicated, linearizable key-value store.

  PUT    /kv/{key}    the body becomes the value
  GET    /kv/{key}    the value     ?consistency=linearizable (default), quorum or stale
  HEAD   /kv/{key}    its headers only
  DELETE /kv/{key}    remove the key
  GET    /status      this replica and what it knows of the others, as JSON
  GET    /members     who belongs to the cluster; POST adds one: {"name": ..., "address": ..., "role": ...}
  DELETE /members/{name}            remove it     ?force=true where that leaves no majority connected
  POST   /members/{name}/replace    its disk is a new one
  POST   /members/{name}/promote    a learner shall vote
  GET    /livez       200 while the process runs
  GET    /readyz      200 while this replica can serve
  GET    /metrics     for Prometheus
  GET    /backup      the whole state, for `kvstore backup`

A key is 1 to 1024 bytes; percent-encode what a URL cannot hold. Try:

  curl -X PUT --data-binary 'hello' http://<this address>/kv/greeting
  curl http://<this address>/kv/greeting
"""


_STRANGE = {
    Standing.REMOVED: "{0} was removed from the cluster: stop it. `kvstore member add {0}` would take it back.",
    Standing.REFUSED: "The replicas that it reaches do not know {0} as a member: stop it if it was removed, else make "
    "it one with `kvstore member add {0}`.",
    Standing.WAITING: "{0} was started to join, and no member has told it yet who the others are: see that it was made "
    "one (`kvstore member add {0}`), and that its settings name the addresses of others.",
}


class Operations:
    """Answers everything but requests for keys. `stopping` tells whether the front end is being shut down."""

    def __init__(self, replica: Replica, metrics: Metrics, stopping: Callable[[], bool]) -> None:
        self._replica = replica
        self._metrics = metrics
        self._stopping = stopping
        self._pages: dict[str, Callable[[], Answer]] = {
            "/": lambda: _page(_TEXT, _INDEX),
            "/status": self._status,
            "/livez": lambda: _page(_TEXT, b"ok\n"),
            "/readyz": self._readyz,
            "/metrics": lambda: _page(CONTENT_TYPE, self._metrics.render()),
        }

    def knows(self, path: str) -> bool:
        """True for a path that stands for a page here."""
        return path in self._pages

    def answer(self, method: str, path: str, query: str) -> Answer:
        """The page at `path`. Raises Problem."""
        page = self._pages.get(path)
        if page is None:
            known = ", ".join(["/kv/{key}", *self._pages])
            raise Problem(NO_SUCH_RESOURCE, f"What exists is {known}. GET / explains them.")
        if method not in ("GET", "HEAD"):
            raise not_allowed(method, ALLOWED)
        no_parameters(query)
        return page()

    def _status(self) -> Answer:
        document = msgspec.json.format(msgspec.json.encode(self._replica.status()), indent=2)
        return _page("application/json", document + b"\n")

    def _readyz(self) -> Answer:
        if self._stopping():
            raise Problem(STOPPING, "Send requests to another replica.", fields=RETRY_AFTER)
        status = self._replica.status()
        if status.standing in _STRANGE:
            raise Problem(NOT_READY, _STRANGE[status.standing].format(status.id), fields=RETRY_AFTER)
        if status.ready:
            return _page(_TEXT, b"ok\n")
        if status.leader is None:
            why = "It knows no leader: check that a majority of the replicas is up and connected, see GET /status."
        else:
            why = (
                f"It has not yet caught up with the leader {status.leader}: wait, and see GET /status for its progress."
            )
        raise Problem(NOT_READY, why, fields=RETRY_AFTER)


def _page(content_type: str, body: bytes) -> Answer:
    fields = f"Content-Type: {content_type}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
    return Answer(200, fields.encode(), body)
