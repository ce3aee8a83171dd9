"""`POST /txn`: many keys at once; see `kvstore.http.transaction_body`."""

from functools import partial

import orjson
from aiohttp import web

from kvstore.commands import TooManyChanges, Transacted
from kvstore.http.answer import Answer
from kvstore.http.asking import reply_of
from kvstore.http.body import read_body
from kvstore.http.documents import transacted_document
from kvstore.http.limits import Limits
from kvstore.http.problems import not_allowed, too_many_changes
from kvstore.http.target import no_parameters
from kvstore.http.transaction_body import transaction_of
from kvstore.requests import Replica

PATH = "/txn"

_FIELDS = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"


class Transactions:
    """Hands transactions to a replica."""

    def __init__(self, replica: Replica, limits: Limits) -> None:
        self._replica = replica
        self._limits = limits

    async def answer(self, request: web.BaseRequest, query: str) -> Answer:
        """The answer to a request for `PATH`. Raises Problem or Refused."""
        if request.method != "POST":
            raise not_allowed(request.method, "POST")
        no_parameters(query)
        command = transaction_of(await read_body(request, self._limits))
        result = await reply_of(partial(self._replica.write, command))
        if isinstance(result, TooManyChanges):
            raise too_many_changes()
        if not isinstance(result, Transacted):
            raise TypeError(f"a transaction was answered with {result!r}")
        return Answer(200, _FIELDS, orjson.dumps(transacted_document(result)) + b"\n")
