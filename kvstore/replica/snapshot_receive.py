"""Receives a snapshot from a peer, page by page, when the log alone is not enough.

The log is not enough in two cases: the peers have truncated the slots that this replica lacks (rule 11), or this
replica does not know the membership yet. A replica that joins learns the membership, and its own role, from the
snapshot. A witness takes over the membership and no records.

A page holds the rows after a position. Rows never change, so each page may come from another peer, or from the same
peer after a restart of either side. Only compaction between two pages can break the sequence: the receiver has the rows
up to position p, and the source drops the deletion, after p, of a key in these rows. Therefore a source defers
compaction while a receiver asks, up to a time limit. A receiver starts again when it gets a page that is compacted
beyond p, unless all pages are compacted up to the same position. Storage requires the same, see
`storage.base.StatePage`.
"""

import zlib
from collections.abc import Iterable, Mapping

import msgspec

from kvstore.api.limits import MAX_REVISION
from kvstore.api.membership import MemberRole, configurations_of
from kvstore.replica.applier import PAGE_BYTES, Applier, witness_applier
from kvstore.replica.checkpointer import Checkpointer
from kvstore.replica.founding import FoundingManager
from paxos.messages import FetchSnapshot, SnapshotPage
from paxos.ready import Envelope
from paxos.replica import Replica
from paxos.types import MS, Ballot, NodeId, Slot, Time
from storage.base import AppliedProgress, Change, StagedPage, StatePage, Storage, StorageError, first_of

END = first_of(MAX_REVISION - 1)
"""A position after every change. The page after it has no rows, only the progress, which holds the membership."""
STATE_BYTES_PER_S = 16 << 20
"""Limit on the rate of a snapshot, which shares the disks and cores of both replicas with their clients."""
RETRY_MS = 500
"""Time after which an unanswered request is repeated to the next source."""
ALIVE_MS = 1000
"""Age of a peer's last message up to which the peer counts as alive, and may be a source."""

_rows_decoder = msgspec.msgpack.Decoder(list[Change])
_progress_decoder = msgspec.msgpack.Decoder(AppliedProgress)


def _page_of(message: SnapshotPage) -> StatePage | None:
    """Return the page in `message`, or None when it was damaged in transit."""
    if zlib.crc32(message.rows) != message.checksum:
        return None
    try:
        end = _progress_decoder.decode(message.end) if message.end else None
        return StatePage(_rows_decoder.decode(message.rows), message.compacted, end)
    except msgspec.MsgspecError:
        return None


class IncomingSnapshot:
    """A snapshot that is being received, from the first request to the last page."""

    def __init__(self, storage: Storage) -> None:
        """Continue from the pages that are already staged in `storage`."""
        self._begin()
        self._source: NodeId = ""
        self._requested_at: Time = 0
        self._unanswered = False
        self._due: Time | None = None
        """Earliest time of the next request, or of a repeated one. None means at once."""
        self._storing = False
        """True while the last page is not durable."""
        recovered = storage.recovered()
        # A restored state is no part of a peer's state: the first page of a peer takes the place of its rows.
        while recovered.restored is None and self._after < recovered.staged:
            page = storage.read_state(self._after, PAGE_BYTES, staged=True)
            self._load(page, recovered.staged_compacted)  # the page itself tells how far the least of all pages is

    def _begin(self) -> None:
        self._applier = Applier([])
        self._after = 0
        self._compacted = self._least = 0
        """Positions up to which the first page, and the least compacted page, are compacted."""

    def request(self, sources: list[NodeId], now: Time, *, only_end: bool) -> tuple[NodeId, FetchSnapshot] | None:
        """Return the request that is due, with the peer to ask. `sources` is in order of preference. With `only_end`,
        the request asks for the progress and no rows."""
        if self._storing or (self._due is not None and now < self._due):
            return None
        if not sources:
            self._due = None
            return None
        if self._source not in sources or self._unanswered:
            self._turn_to_next(sources)
        self._requested_at, self._unanswered = now, True
        self._due = now + RETRY_MS * MS
        return self._source, FetchSnapshot(END if only_end else self._after)

    def take_end(self, sender: NodeId, message: SnapshotPage) -> AppliedProgress | None:
        """Return the progress in the answer to a request with `only_end`, or None for any other message."""
        if sender != self._source or message.after != END:
            return None
        page = _page_of(message)
        return page.progress if page is not None else None

    def request_at_once(self) -> None:
        """Make the next request due at once."""
        self._unanswered, self._due = False, None

    def take(
        self, sender: NodeId, message: SnapshotPage, applied: Slot, now: Time
    ) -> tuple[StagedPage, Applier | None] | None:
        """Return the page in `message`, to store before the next request, and on the last page the received state.

        Return None for a page that is of no use: it answers another request, is damaged, may lack deletions, or
        completes a state that is not newer than slot `applied`.
        """
        if self._storing or sender != self._source or message.after != self._after:
            return None
        page = _page_of(message)
        if page is None:
            return None  # the timeout repeats the request
        if not self._follows(page):
            self._give_up(now)
            return None
        staged = StagedPage(self._after, page)
        self._load(page, page.compacted)
        self._unanswered = False
        self._due = self._requested_at + len(message.rows) * 1000 * MS // STATE_BYTES_PER_S
        if page.progress is None:
            self._storing = True
            return staged, None
        return self._complete(staged, page.progress, applied, now)

    def stored(self) -> None:
        """Record that the last page is durable."""
        self._storing = False

    def next_deadline(self) -> Time | None:
        """Return the time at which the next request is due, or None while storage has to answer first."""
        return None if self._storing else self._due

    def _follows(self, page: StatePage) -> bool:
        """Return False when `page` may lack deletions of keys in earlier pages."""
        alike = page.compacted == self._compacted == self._least
        return self._after == 0 or alike or page.compacted <= self._after

    def _load(self, page: StatePage, compacted: int) -> None:
        """Load a page. If it is the first one, the source had compacted up to position `compacted`: the state that is
        received has no history before it, even if later pages are of a source that has compacted less."""
        if self._after == 0:
            self._compacted = self._least = compacted
            self._applier.machine.forget(compacted)
        self._least = min(self._least, page.compacted)
        for change in page.changes:
            self._applier.machine.load(change)
            self._after = change.position

    def _complete(
        self, staged: StagedPage, progress: AppliedProgress, applied: Slot, now: Time
    ) -> tuple[StagedPage, Applier] | None:
        applier = self._applier
        try:
            applier.finish(progress)
        except StorageError:
            self._give_up(now)
            return None
        if applier.applied <= applied or progress.position < self._compacted:
            self._give_up(now)  # the source lags
            return None
        self._begin()
        self._storing = True
        return staged, applier

    def _give_up(self, now: Time) -> None:
        """Start again with another source after RETRY_MS."""
        self._begin()
        self._unanswered, self._due = True, now + RETRY_MS * MS

    def _turn_to_next(self, sources: list[NodeId]) -> None:
        last = sources.index(self._source) if self._source in sources else -1
        self._source = sources[(last + 1) % len(sources)]


class SnapshotReceiver:
    """The receiving side of snapshots: requests a snapshot when the replica `node` needs one, and installs it."""

    def __init__(
        self,
        node: NodeId,
        storage: Storage,
        checkpointer: Checkpointer,
        replica: Replica,
        founding: FoundingManager,
    ) -> None:
        """Continue from the pages that an earlier process has staged in `storage`."""
        self._node = node
        self._founding = founding
        self._checkpointer = checkpointer
        self._replica = replica
        self._incoming = IncomingSnapshot(storage)
        self.keeps_records = False
        """True when this replica needs the records; False for a witness, and while this replica's role is unknown."""

    @property
    def needed(self) -> bool:
        """True while the log alone is not enough, and the founding of the cluster does not provide the state."""
        known = bool(self._checkpointer.applier.machine.memberships)
        return (self._replica.snapshot_source is not None or not known) and not self._founding.provides_state

    def request(
        self, heard: Mapping[NodeId, Time], linked: Iterable[NodeId], leading: Ballot | None, now: Time
    ) -> Envelope | None:
        """Return the request that is due now, or None. The sources are live peers with records, the leader last.

        A replica that does not know the membership asks every peer in `linked`, because it may have heard none of them:
        only the leader sends messages without being asked, and the leader may be missing in this replica's settings.
        """
        if not self.needed:
            return None
        snapshot_source, membership = self._replica.snapshot_source, self._checkpointer.applier.machine.membership
        alive = {peer for peer, last in heard.items() if now - last < ALIVE_MS * MS or peer == snapshot_source}
        if not membership.members:
            alive.update(peer for peer in linked if peer != self._node)
        alive.difference_update(membership.configuration.witnesses)
        leader = leading.node if leading is not None else None
        sources = sorted(alive, key=lambda peer: (peer == leader, peer))
        request = self._incoming.request(sources, now, only_end=not self.keeps_records)
        return Envelope(*request) if request is not None else None

    def take(self, sender: NodeId, message: SnapshotPage, now: Time) -> bool:
        """Handle a page. Return True when it was the last one, and the received state is now that of this replica."""
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
        """Record that the last page is durable."""
        self._incoming.stored()

    def next_deadline(self) -> Time | None:
        """Return the time of the next request, or None."""
        return self._incoming.next_deadline() if self.needed else None

    def _take_end(self, sender: NodeId, message: SnapshotPage, now: Time) -> bool:
        """Take this replica's role from the membership. A witness needs no more pages, any other member the records."""
        progress = self._incoming.take_end(sender, message)
        applier = witness_applier(progress) if progress is not None else None
        member = applier.machine.membership.get(self._node) if applier is not None else None
        if applier is None or member is None:
            return False  # the source lags: its membership lacks this replica
        if member.purpose is not MemberRole.WITNESS:
            self.keeps_records = True
            self._incoming.request_at_once()
            return False
        if applier.applied <= self._replica.chosen:
            return False
        self._incoming.request_at_once()
        self._install(StagedPage(0, StatePage([], 0, applier.progress())), applier, now)
        return True

    def _install(self, staged: StagedPage, applier: Applier, now: Time) -> None:
        self._checkpointer.stage(staged)
        self._checkpointer.replace(applier)
        self._replica.install_snapshot(applier.applied, configurations_of(applier.machine.memberships), now)
