"""The short way of a request for a key: no task, no future, and answers to all that came together in one go.

    connection --- scan ---> Turn ---> replica
    connection <-- answer -- Turns <-- reply, once for each Turn, in any order

What it costs is what limits a replica: docs/decisions/0008-fast-path.md has the figures.
"""

import asyncio
import logging
from time import perf_counter
from typing import Protocol

from kvstore.api.commands import Result
from kvstore.api.errors import Refused
from kvstore.api.results import ReadAnswer
from kvstore.server.http.answer import Answer
from kvstore.server.http.head import KEYS, Plain
from kvstore.server.http.kv import Keys, get_answer, put_answer
from kvstore.server.http.problems import Problem, internal_error, refusal
from kvstore.server.metrics import Metrics

_log = logging.getLogger(__name__)


class Asker(Protocol):
    """Who waits for a turn."""

    def answered(self) -> None:
        """One of its turns has its answer."""


class Turn:
    """One request, from its arrival to its answer."""

    __slots__ = ("_turns", "answer", "asker", "plain", "reply", "started")

    def __init__(self, turns: "Turns", asker: Asker, plain: Plain) -> None:
        self._turns = turns
        self.asker = asker
        self.plain = plain
        self.started = perf_counter()
        self.answer: Answer | None = None
        self.reply: Result | ReadAnswer | Exception

    def replied(self, reply: Result | ReadAnswer | Exception) -> None:
        """What the replica found, did or refused."""
        self.reply = reply
        self._turns.replied(self)

    @property
    def method(self) -> str:
        """Of the request."""
        return "GET" if self.plain.value is None else "PUT"


class Turns:
    """All turns of a front end."""

    def __init__(self, keys: Keys, metrics: Metrics) -> None:
        self._keys = keys
        self._metrics = metrics
        self._replied: list[Turn] = []

    def begin(self, asker: Asker, plain: Plain) -> Turn:
        """Ask the replica. `asker` hears when there is an answer, never before this returns."""
        turn = Turn(self, asker, plain)
        keys = self._keys
        keys.in_flight += 1
        try:
            keys.refuse_too_many()
            keys.ask(plain, turn.replied)
        except Exception as error:  # noqa: BLE001  the client gets an answer, whatever it is
            turn.replied(error)
        return turn

    def replied(self, turn: Turn) -> None:
        """All that comes in one turn of the event loop is answered in the next."""
        if not self._replied:
            asyncio.get_running_loop().call_soon(self._answer)
        self._replied.append(turn)

    def _answer(self) -> None:
        replied, self._replied = self._replied, []
        self._keys.in_flight -= len(replied)
        now = perf_counter()
        for turn in replied:
            turn.answer = answer = _answer_to(turn)
            self._metrics.observe_request(turn.method, KEYS, answer.status, now - turn.started)
            turn.asker.answered()


def _answer_to(turn: Turn) -> Answer:
    try:
        return _wanted_answer(turn.plain, turn.reply)
    except Problem as problem:
        return problem.answer(turn.method)
    except Refused as refused:
        return refusal(refused).answer(turn.method)
    except Exception:  # noqa: BLE001  whatever it is, the client gets an answer and the log the cause
        _log.exception("%s %.200r failed", turn.method, turn.plain.key)
        return internal_error().answer(turn.method)


def _wanted_answer(plain: Plain, reply: Result | ReadAnswer | Exception) -> Answer:
    """Raises what stands against it."""
    if isinstance(reply, Exception):
        raise reply
    return get_answer(reply, plain.consistency) if isinstance(reply, ReadAnswer) else put_answer(plain.key, reply)
