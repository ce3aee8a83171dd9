"""The leader that this replica follows, and the age of the leader's last message."""

from collections.abc import Callable

from paxos.replica import Replica
from paxos.types import MS, Ballot, NodeId, Time


class LeaderWatch:
    """The leader as of the last step, and the time of its last message."""

    def __init__(self, replica: Replica, clock: Callable[[], Time]) -> None:
        self._replica = replica
        self._clock = clock
        self.leading: Ballot | None = None
        """Ballot of the leader, None while no leader is known."""
        self._heard_at: Time | None = None

    def heard(self, sender: NodeId, now: Time) -> None:
        """Record the time of a message from `sender`."""
        if self.leading is not None and self.leading.node == sender:
            self._heard_at = now

    def changed(self) -> bool:
        """Take over the leader that the protocol follows now. Return True when the leader has changed."""
        leading = self._replica.leader_ballot
        if leading == self.leading:
            return False
        if self.leading is not None and self.leading.node == self._replica.node:
            self._heard_at = self._clock()  # until now this replica was the leader
        self.leading = leading
        return True

    def age_ms(self) -> float | None:
        """Return the milliseconds since the leader's last message: 0 on the leader, None before the first message."""
        leading = self._replica.leader_ballot
        if leading is not None and leading.node == self._replica.node:
            return 0.0
        return (self._clock() - self._heard_at) / MS if self._heard_at is not None else None
