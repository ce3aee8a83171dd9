import pytest

from kvstore.client import batching


@pytest.fixture(autouse=True)
def _patient_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each request all the time that it needs to end at its own deadline, on a busy machine, too."""
    monkeypatch.setattr(batching, "GRACE_S", 60.0)
