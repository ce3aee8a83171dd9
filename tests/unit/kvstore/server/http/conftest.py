import logging
from collections.abc import Iterator

import pytest

from kvstore.server.http.dispatcher import Dispatcher, Exchange
from kvstore.server.http.response import HttpResponse, StreamedResponse
from tests.unit.kvstore.server.http.described import faults


@pytest.fixture(autouse=True)
def described(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No request of any test may be answered in a way that /openapi.json does not know."""
    found: list[str] = []
    finish = Dispatcher.finish

    def checked(
        self: Dispatcher, exchange: Exchange, response: HttpResponse | StreamedResponse, now: float | None = None
    ) -> None:
        found.extend(faults(exchange.request.method, exchange.request.target, response))
        finish(self, exchange, response, now)

    monkeypatch.setattr(Dispatcher, "finish", checked)
    yield
    assert found == [], "describe it in kvstore/server/http/openapi, or answer as it is described"


@pytest.fixture(autouse=True)
def nothing_to_complain(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No request of any test may leave a warning or a traceback in the log, unless the test expects and clears it."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []
