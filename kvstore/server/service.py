"""The interface between a replica and its front ends."""

from collections.abc import Callable
from typing import Any, Protocol

from kvstore.api.commands import Command, Result
from kvstore.api.errors import Refused
from kvstore.api.membership import Membership
from kvstore.api.queries import Consistency, Query
from kvstore.api.status import MembersStatus, Status
from kvstore.server.trace import Trace
from kvstore.state_machine.history import History
from kvstore.state_machine.lease_index import LeaseIndex
from storage.base import StatePage


class Replica(Protocol):
    """One replica as its front end sees it. All of it belongs to one event loop."""

    def write(self, command: Command, reply: Callable[[Result | Refused], None]) -> None:
        """Order and apply `command`; `reply` gets its result, or Refused, exactly once."""

    def read(self, query: Query, consistency: Consistency, reply: Callable[[Any], None]) -> None:
        """Look `query` up; `reply` gets what was found, ScanAnswer for a Scan, else ReadAnswer; NotThen; or Refused
        (for STALE only where there is no state at all). Exactly once, perhaps before this returns."""

    @property
    def history(self) -> History:
        """What happened lately; another one once the state was replaced."""

    @property
    def position(self) -> int:
        """Of the last change."""

    @property
    def lease_index(self) -> LeaseIndex:
        """Leases and locks at this moment; another one once the state was replaced."""

    def on_change(self, hear: Callable[[], None]) -> None:
        """Call `hear` from now on when something has happened."""

    def trace(self, trace: Trace | None) -> None:
        """Tell `trace` from now on what happens here; None: nobody."""

    async def read_state(self, reader: str, after: int) -> StatePage:
        """The rows behind revision `after` of the stored state, a page of them. The state is not older than what was
        applied when its first page was asked for. Compaction waits for `reader` meanwhile, within bounds."""

    def end_state(self, reader: str) -> None:
        """`reader` asks for no further page."""

    def status(self) -> Status:
        """A picture of this moment."""

    def members(self) -> MembersStatus:
        """Who belongs to the cluster, and what this replica knows of them at this moment."""

    @property
    def membership(self) -> Membership:
        """The members that a change of them starts from."""

    @property
    def stopping(self) -> bool:
        """True from the moment that a shutdown began: take what is in flight, then no more."""
