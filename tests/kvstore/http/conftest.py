import logging
from collections.abc import Iterator

import pytest

from kvstore.http import connection
from kvstore.http.head import NotPlainError


@pytest.fixture(autouse=True, params=["short", "aiohttp"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test is run twice: what clients see is the same, whichever way their requests go."""
    if request.param == "aiohttp":

        def refuse(*_: object) -> None:
            raise NotPlainError

        monkeypatch.setattr(connection, "scan", refuse)
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_to_complain(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No request of any test may leave a warning or a traceback in the log, unless the test expects and clears it."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []
