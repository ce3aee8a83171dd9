"""`/leases`: client leases, which delete their keys and release their locks when they end."""

from functools import partial

from msgspec import UNSET

from kvstore.api.commands import GrantLease, KeepLeaseAlive, LeaseEnded, LeaseGranted, RevokeLease
from kvstore.api.json.documents import (
    GrantRequest,
    LeaseDocument,
    LeaseGrantedDocument,
    LeasePageDocument,
    RangeDeletedDocument,
    key_document,
)
from kvstore.api.limits import MAX_LISTED, MAX_REVISION
from kvstore.api.numbers import InvalidNumberError, parse_integer
from kvstore.api.queries import Consistency, LeaseLookup, LeaseScan
from kvstore.api.results import LeasesAnswer, LeaseStatus
from kvstore.server.http.calls import TaskCall
from kvstore.server.http.in_flight import InFlight
from kvstore.server.http.problems import INVALID_LEASE, NO_SUCH_RESOURCE, Problem, not_allowed
from kvstore.server.http.provisional import confirm, provisional
from kvstore.server.http.query_parameters import consistency_in, integer_in, parse_query, refuse_parameters
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.request_body import decode, refuse_fields
from kvstore.server.http.response import HttpResponse, json_response
from kvstore.server.http.writes import IdempotencyKey, no_such_lease, once, refuse_key, write
from kvstore.server.reply_future import reply_of
from kvstore.server.service import ReplicaService

PATH = "/leases"


class LeaseHandlers:
    """Handlers that grant, renew, revoke and show leases."""

    def __init__(self, replica: ReplicaService, in_flight: InFlight) -> None:
        self._replica = replica
        self._in_flight = in_flight

    def route(self, request: HttpRequest, path: str, query: str) -> TaskCall:
        """Return the call of a request for `path`, `/leases` or below it."""
        return TaskCall(partial(self._handle, request, path, query), takes_body=request.method == "POST")

    async def _handle(self, request: HttpRequest, path: str, query: str) -> HttpResponse:
        with self._in_flight.counted():
            name, _, verb = path.removeprefix(PATH).removeprefix("/").partition("/")
            if path == PATH:
                return await self._answer_for_all(request, query)
            try:
                lease = parse_integer(name, 1, MAX_REVISION)
            except InvalidNumberError as error:
                raise Problem(NO_SUCH_RESOURCE, f"A lease has a number, as in {PATH}/17: {error}.") from None
            if verb == "keepalive":
                return await self._keep_alive(request, lease, query)
            if verb:
                raise Problem(NO_SUCH_RESOURCE, f"The paths of leases are {PATH}, {PATH}/17 and {PATH}/17/keepalive.")
            return await self._answer_for_one(request, lease, query)

    async def _answer_for_all(self, request: HttpRequest, query: str) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            found = parse_query(query, ("after", "limit", "consistency"))
            after = integer_in(found, "after", 0, MAX_REVISION) or 0
            limit = integer_in(found, "limit", 1, MAX_LISTED) or MAX_LISTED
            answer = await self._look(LeaseScan(after, limit), consistency_in(found))
            leases = [_document(status) for status in answer.leases]
            return json_response(200, LeasePageDocument(revision=answer.revision, leases=leases, more=answer.more))
        if request.method != "POST":
            raise not_allowed(request.method, "GET, HEAD, POST")
        refuse_parameters(query)
        wanted = decode(request.body, GrantRequest, INVALID_LEASE, '{"ttl_s": 10}')
        ttl_ms, key = round(wanted.ttl_s * 1000), IdempotencyKey.of(request)
        granted = await write(self._replica, once(GrantLease(provisional(ttl_ms)), key, request))
        if not isinstance(granted, LeaseGranted):
            raise TypeError(f"a grant was answered with {granted!r}")
        await confirm(self._replica, request.client, granted.lease, ttl_ms, waited=False, revocable=key is None)
        location = b"Location: %b/%d\r\n" % (PATH.encode(), granted.lease)
        return json_response(201, LeaseGrantedDocument(id=granted.lease, ttl_s=ttl_ms / 1000), location)

    async def _keep_alive(self, request: HttpRequest, lease: int, query: str) -> HttpResponse:
        if request.method != "POST":
            raise not_allowed(request.method, "POST")
        refuse_parameters(query)
        refuse_key(request)
        refuse_fields(request.body, INVALID_LEASE)
        renewed = await write(self._replica, KeepLeaseAlive(lease))
        if not isinstance(renewed, LeaseGranted):
            raise TypeError(f"a renewal was answered with {renewed!r}")
        return json_response(200, LeaseGrantedDocument(id=lease, ttl_s=renewed.ttl_ms / 1000))

    async def _answer_for_one(self, request: HttpRequest, lease: int, query: str) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            answer = await self._look(LeaseLookup(lease), consistency_in(parse_query(query, ("consistency",))))
            if not answer.leases:
                raise no_such_lease(lease)
            return json_response(200, _document(answer.leases[0]))
        if request.method != "DELETE":
            raise not_allowed(request.method, "GET, HEAD, DELETE")
        refuse_parameters(query)
        ended = await write(self._replica, once(RevokeLease(lease), IdempotencyKey.of(request), request))
        if not isinstance(ended, LeaseEnded):
            raise TypeError(f"a revocation was answered with {ended!r}")
        return json_response(200, RangeDeletedDocument(revision=ended.revision, deleted=ended.deleted))

    async def _look(self, query: LeaseLookup | LeaseScan, consistency: Consistency) -> LeasesAnswer:
        answer = await reply_of(partial(self._replica.read, query, consistency))
        if not isinstance(answer, LeasesAnswer):
            raise TypeError(f"leases were answered with {answer!r}")
        return answer


def _document(status: LeaseStatus) -> LeaseDocument:
    return LeaseDocument(
        id=status.lease,
        ttl_s=status.ttl_ms / 1000,
        left_s=round(status.left_ms / 1000, 3) if status.left_ms is not None else None,
        key_count=status.key_count,
        keys=[key_document(key) for key in status.keys] if status.keys is not None else UNSET,
    )
