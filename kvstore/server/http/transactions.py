"""`POST /txn`: many keys at once; see `kvstore.server.http.transaction_body`."""

import orjson
from aiohttp import web

from kvstore.api.commands import Found, Listed, OperationResult, PutResult, Record, Transacted
from kvstore.api.errors import Outcome
from kvstore.api.json import transacted_document
from kvstore.server.http.answer import JSON, Answer
from kvstore.server.http.body import read_body
from kvstore.server.http.conditions import refuse_conditions
from kvstore.server.http.kv import Keys
from kvstore.server.http.limits import Limits
from kvstore.server.http.problems import ANSWER_TOO_LARGE, Problem, not_allowed
from kvstore.server.http.target import no_parameters
from kvstore.server.http.transaction_body import transaction_of
from kvstore.server.http.writes import id_of, write
from kvstore.server.service import Replica

PATH = "/txn"
MOST_ANSWERED_BYTES = 8 << 20
"""Of values, in one answer."""


class Transactions:
    """Hands transactions to a replica."""

    def __init__(self, replica: Replica, limits: Limits, keys: Keys) -> None:
        """`keys` counts the requests that are in progress, these among them."""
        self._replica = replica
        self._limits = limits
        self._keys = keys

    async def answer(self, request: web.BaseRequest, query: str) -> Answer:
        """The answer to a request for `PATH`. Raises Problem or Refused."""
        if request.method != "POST":
            raise not_allowed(request.method, "POST")
        no_parameters(query)
        refuse_conditions(request.headers)
        with self._keys.counted():
            body = await read_body(request, self._limits)
            result = await write(self._replica, transaction_of(body), id_of(request, body))
        if not isinstance(result, Transacted):
            raise TypeError(f"a transaction was answered with {result!r}")
        if size_of(result) > MOST_ANSWERED_BYTES:
            detail = (
                f"It was done; the store is at revision {result.revision}. Read the keys by themselves, or list them."
            )
            raise Problem(ANSWER_TOO_LARGE, detail, outcome=Outcome.UNKNOWN)
        return Answer(200, JSON, orjson.dumps(transacted_document(result)) + b"\n")


def size_of(result: OperationResult) -> int:
    """Bytes of the values in it."""
    match result:
        case Found(record=Record(value=value)):
            return len(value)
        case Listed(found=found):
            return sum(map(size_of, found))
        case Transacted(results=results):
            return sum(size_of(each) for each in results if not isinstance(each, PutResult))  # most are
        case _:
            return 0
