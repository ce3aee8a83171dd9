"""`POST /txn`: transactions over many keys; the body is `kvstore.api.json.transaction_request`."""

from collections.abc import Callable
from typing import Any

from kvstore.api.commands import KeyState, ListedKeys, OperationResult, PutResult, Record, Result, TransactResult
from kvstore.api.errors import Outcome
from kvstore.api.json.transaction_parsing import InvalidTransactionError, transaction_of
from kvstore.api.json.transaction_result import transaction_document
from kvstore.server.http.calls import ReplicaCall
from kvstore.server.http.conditions import refuse_conditions
from kvstore.server.http.problems import ANSWER_TOO_LARGE, INVALID_TRANSACTION, Problem, not_allowed
from kvstore.server.http.query_parameters import refuse_parameters
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.response import HttpResponse, json_response
from kvstore.server.http.writes import IdempotencyKey, once, refuse_result
from kvstore.server.service import ReplicaService

PATH = "/txn"
MAX_RESPONSE_BYTES = 8 << 20
"""Most bytes of values in one response."""


class TransactionHandlers:
    """Handlers of transactions."""

    def __init__(self, replica: ReplicaService) -> None:
        self._replica = replica

    def route(self, request: HttpRequest, path: str, query: str) -> ReplicaCall:  # noqa: ARG002  it is PATH
        """Return the call of a request. Raises Problem."""
        if request.method != "POST":
            raise not_allowed(request.method, "POST")
        return TransactionCall(self._replica, request, query)


class TransactionCall:
    """A POST of a transaction."""

    __slots__ = ("_idempotency_key", "_replica", "_request")
    takes_body = True

    def __init__(self, replica: ReplicaService, request: HttpRequest, query: str) -> None:
        self._replica = replica
        self._request = request
        refuse_parameters(query)
        refuse_conditions(request)
        self._idempotency_key = IdempotencyKey.of(request)

    def ask(self, reply: Callable[[Any], None]) -> None:
        """See ReplicaCall."""
        try:
            command = transaction_of(self._request.body)
        except InvalidTransactionError as error:
            raise Problem(INVALID_TRANSACTION, str(error)) from None
        self._replica.write(once(command, self._idempotency_key, self._request), reply)

    def response_to(self, reply: Result) -> HttpResponse:
        """See ReplicaCall."""
        refuse_result(reply)
        if not isinstance(reply, TransactResult):
            raise TypeError(f"a transaction was answered with {reply!r}")
        if size_of(reply) > MAX_RESPONSE_BYTES:
            detail = (
                f"It was done, and the store is at revision {reply.revision}, but the results are too large: "
                "read the keys one by one, or list them."
            )
            raise Problem(ANSWER_TOO_LARGE, detail, outcome=Outcome.UNKNOWN)
        return json_response(200, transaction_document(reply))


def size_of(result: OperationResult) -> int:
    """Return the bytes of the values in a result."""
    match result:
        case KeyState(record=Record(value=value)):
            return len(value)
        case ListedKeys(found=found):
            return sum(map(size_of, found))
        case TransactResult(results=results):
            return sum(size_of(each) for each in results if not isinstance(each, PutResult))  # most are
        case _:
            return 0
