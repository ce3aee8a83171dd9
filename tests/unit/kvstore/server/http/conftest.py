import logging
from collections.abc import Iterator

import pytest

from kvstore.api.key_range import Span
from kvstore.server.http import event_pages
from kvstore.server.http.dispatcher import Dispatcher, Exchange
from kvstore.server.http.event_pages import EventPage
from kvstore.server.http.response import HttpResponse, StreamedResponse
from kvstore.state_machine.history import History
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


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The start of each page of events that is encoded, in order."""
    starts: list[int] = []
    encode = event_pages.encode_page

    def record(history: History, head: int, span: Span, start: int) -> EventPage:
        starts.append(start)
        return encode(history, head, span, start)

    monkeypatch.setattr(event_pages, "encode_page", record)
    return starts
