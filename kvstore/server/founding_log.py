"""Log lines of a founding member that has no membership yet: what it waits for, and what the operator must do."""

import logging
from collections.abc import Callable, Mapping

from kvstore.peers.handshake_messages import LinkRefusal
from kvstore.peers.transport import Transport
from kvstore.replica.node import Node
from paxos.types import MS, NodeId, Time

log = logging.getLogger(__name__)

UNCHANGED_MS = 2000
"""Time without a change after which the situation is logged. Usually all members start within this time."""


def members_with_other_data(node: Node, transport: Transport) -> list[NodeId]:
    """Return the members that know this replica with other data, which it has lost. Empty unless the founding of the
    cluster is pending."""
    if not node.founding.pending:
        return []
    return sorted(peer for peer, reason in transport.refused_by.items() if reason is LinkRefusal.INCARNATION)


class FoundingLog:
    """The log of the founding of a cluster by `node`."""

    def __init__(self, node: Node, transport: Transport, clock: Callable[[], Time]) -> None:
        self._node = node
        self._transport = transport
        self._clock = clock
        self._advice = ""
        self._since: Time = 0
        self._logged = False

    def update(self) -> None:
        """Log the situation once it has not changed for UNCHANGED_MS."""
        if not self._node.founding.pending:
            return
        advice, now = self._current_advice(), self._clock()
        if advice != self._advice:
            self._advice, self._since, self._logged = advice, now, False
        elif advice and not self._logged and now - self._since > UNCHANGED_MS * MS:
            self._logged = True
            log.warning("%s", advice)

    def _current_advice(self) -> str:
        node, founding = self._node.id, self._node.founding
        knowing, unlike = members_with_other_data(self._node, self._transport), founding.unlike
        if knowing:
            return (
                f"{node} has lost its data, which {', '.join(knowing)} knows. Put its data directory back, or run "
                f"`kvstore member replace {node}` with the address of a member that has the data of the cluster"
            )
        if unlike:
            return _mismatch(node, founding.restored, unlike)
        if founding.awaited:
            return (
                f"{node} has no data of a cluster, and founds one once all members have none: awaiting the answer of "
                f"{', '.join(founding.awaited)}"
            )
        return ""


def _mismatch(node: NodeId, restored: str, unlike: Mapping[NodeId, str]) -> str:
    states = "; ".join(f"{name} {_origin(mark)}" for name, mark in {node: restored, **unlike}.items())
    return (
        f"these members found no cluster together, because they begin with different states: {states}. Stop each "
        "member whose state is wrong, move its data directory away, and run `kvstore restore` for it with the backup "
        "and the --above of the other members"
    )


def _origin(mark: str) -> str:
    above, _, state = mark.partition(":")
    return f"was restored with --above {above} (state {state})" if mark else "was not restored"
