import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_to_complain(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No request of any test may leave a warning or a traceback in the log, unless the test expects and clears it."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []
