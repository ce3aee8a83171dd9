"""A replica that the log alone does not help: it fetches the state of a peer, and goes on from there.

That is so when the slots that it lacks are cut from the logs of its peers (rule 11), and when it knows no member yet:
one that joins learns from the state who belongs to the cluster, itself among them. A witness takes over no more.
"""

from collections.abc import Iterable, Mapping

from kvstore.api.membership import MemberRole, configurations_of
from kvstore.replica.applier import Applier, bare_applier
from kvstore.replica.checkpointer import Checkpointer
from kvstore.replica.snapshot_send import END, IncomingSnapshot
from paxos.messages import SnapshotPage
from paxos.ready import Envelope
from paxos.replica import Replica
from paxos.types import MS, Ballot, NodeId, Time
from storage.base import StagedPage, StatePage, Storage

HEARD_MS = 1000
"""A peer that was heard within this time is alive, and can be asked for its state."""


class SnapshotReceiver:
    """Of the replica `node`, as long as it lives."""

    def __init__(self, node: NodeId, storage: Storage, checkpointer: Checkpointer, replica: Replica) -> None:
        """Go on with what an earlier life has stored of a state."""
        self._node = node
        self._checkpointer = checkpointer
        self._replica = replica
        self._incoming = IncomingSnapshot(storage)
        self.keeps_records = False
        """Whether more is wanted than who the members are; False too while that says what this replica is."""

    @property
    def needed(self) -> bool:
        """The log alone does not help."""
        return self._replica.snapshot_source is not None or not self._checkpointer.applier.machine.memberships

    def question(
        self, heard: Mapping[NodeId, Time], linked: Iterable[NodeId], leading: Ballot | None, now: Time
    ) -> Envelope | None:
        """What is to be asked now: of peers that are alive and keep records, of the leader last. Whoever knows no
        member yet asks whom it has a link with: only a leader speaks unasked, and that may be nobody whom it was told
        of."""
        if not self.needed:
            return None
        source, membership = self._replica.snapshot_source, self._checkpointer.applier.machine.membership
        alive = {peer for peer, last in heard.items() if now - last < HEARD_MS * MS or peer == source}
        if not membership.members:
            alive.update(peer for peer in linked if peer != self._node)
        alive.difference_update(membership.configuration.witnesses)
        leader = leading.node if leading is not None else None
        sources = sorted(alive, key=lambda peer: (peer == leader, peer))
        question = self._incoming.ask(sources, now, only_end=not self.keeps_records)
        return Envelope(*question) if question is not None else None

    def take(self, sender: NodeId, message: SnapshotPage, now: Time) -> bool:
        """A page. True when it was the last, and the state is that of the peer now."""
        if not self.needed:
            return False
        if message.after == END:
            return self._take_end(sender, message, now)
        taken = self._incoming.take(sender, message, self._replica.chosen, now)
        if taken is None:
            return False
        staged, applier = taken
        if applier is None:
            self._checkpointer.stage(staged)
            return False
        self._install(staged, applier, now)
        return True

    def stored(self) -> None:
        """The last page is durable."""
        self._incoming.stored()

    def next_deadline(self) -> Time | None:
        """When a question is repeated."""
        return self._incoming.next_deadline() if self.needed else None

    def _take_end(self, sender: NodeId, message: SnapshotPage, now: Time) -> bool:
        """Learn from it what this replica is: a witness needs no more, all others need the rest."""
        progress = self._incoming.take_end(sender, message)
        applier = bare_applier(progress) if progress is not None else None
        member = applier.machine.membership.get(self._node) if applier is not None else None
        if applier is None or member is None:
            return False  # the source lags: it does not know yet of this one
        if member.purpose is not MemberRole.WITNESS:
            self.keeps_records = True
            self._incoming.ask_at_once()
            return False
        if applier.applied <= self._replica.chosen:
            return False
        self._incoming.ask_at_once()
        self._install(StagedPage(0, StatePage([], 0, applier.progress())), applier, now)
        return True

    def _install(self, staged: StagedPage, applier: Applier, now: Time) -> None:
        self._checkpointer.replace(applier, staged)
        self._replica.install_snapshot(applier.applied, configurations_of(applier.machine.memberships), now)
