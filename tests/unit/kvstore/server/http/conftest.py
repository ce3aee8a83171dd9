import logging
from collections.abc import Iterator

import pytest
from aiohttp import web

from kvstore.server.http import connection, turns
from kvstore.server.http.answer import Answer
from kvstore.server.http.head import NotPlainError
from kvstore.server.http.server import Frontend
from tests.unit.kvstore.server.http.described import faults


@pytest.fixture(autouse=True, params=["short", "aiohttp"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test is run twice: what clients see is the same, whichever way their requests go."""
    if request.param == "aiohttp":

        def refuse(*_: object) -> None:
            raise NotPlainError

        monkeypatch.setattr(connection, "scan", refuse)
    return str(request.param)


@pytest.fixture(autouse=True)
def described(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No request of any test may be answered in a way that /openapi.json does not know."""
    found: list[str] = []
    handle, answer_to = Frontend._handle, turns._answer_to

    async def handled(self: Frontend, request: web.BaseRequest) -> web.StreamResponse:
        answer = await handle(self, request)
        found.extend(faults(request.method, request.raw_path, answer))
        return answer

    def answered(turn: turns.Turn) -> Answer:
        answer = answer_to(turn)
        found.extend(faults(turn.method, "/kv/key", answer))
        return answer

    monkeypatch.setattr(Frontend, "_handle", handled)
    monkeypatch.setattr(turns, "_answer_to", answered)
    yield
    assert found == [], "describe it in kvstore/server/http/openapi, or answer as it is described"


@pytest.fixture(autouse=True)
def nothing_to_complain(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No request of any test may leave a warning or a traceback in the log, unless the test expects and clears it."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []
