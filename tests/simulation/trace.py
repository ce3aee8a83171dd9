"""What happened in a run, event by event: the end of it for whoever looks into a failure, and a digest of it all."""

import hashlib
from collections import deque
from collections.abc import Iterator

from paxos.types import MS, Time
from tests.simulation.words import words

LAST = 60
"""Events that are kept to be shown."""


class EventTrace:
    """Events as they happen. They are kept as they are and become text only when somebody reads them."""

    def __init__(self, *, last: int | None = LAST, digest: bool = False) -> None:
        """Keep the `last` events, None for all; with `digest`, hash every one of them."""
        self._events: deque[tuple[Time, str, str, object]] = deque(maxlen=last)
        self._hash = hashlib.sha256() if digest else None

    def note(self, now: Time, who: str, what: str, detail: object = "") -> None:
        """`what` happened to, or was done by, `who`."""
        event = (now, who, what, detail)
        self._events.append(event)
        if self._hash is not None:
            self._hash.update(repr(event).encode())

    def lines(self) -> Iterator[str]:
        """The kept events, a line each, times in milliseconds."""
        for now, who, what, detail in self._events:
            yield f"{now / MS:12.3f}  {who:<3} {what} {words(detail)}".rstrip()

    def digest(self) -> str:
        """A hash of every event so far."""
        assert self._hash is not None, "this trace keeps no digest"
        return self._hash.hexdigest()
