"""The reply of a replica as an awaitable, for callers that run in a task."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from kvstore.api.errors import Refused

Reply = TypeVar("Reply")


async def reply_of(ask: Callable[[Callable[["Reply | Refused"], None]], object]) -> "Reply":
    """Call `ask` with a callback, and return the reply that the callback receives. Raises Refused."""
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    ask(partial(_settle, future))
    return await future


def _settle(future: "asyncio.Future[Reply]", reply: "Reply | Refused") -> None:
    if future.done():
        return  # the client has gone
    if isinstance(reply, Refused):
        future.set_exception(reply)
    else:
        future.set_result(reply)
