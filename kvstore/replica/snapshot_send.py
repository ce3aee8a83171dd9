"""The state of one replica on its way to another, page by page.

The one that receives asks for a page, stores it, and asks for the next: nothing piles up on either side, and the other
one remembers no more than that somebody asked. A page is "the rows behind revision r": rows never change, so whoever is
asked for the next page may be another replica, or the same one after a restart on either side.

One thing may come between: the source compacts, and drops a deletion behind r of a key that stands in a page before r.
So it does not compact while somebody asks, within bounds; and the receiver begins anew where it sees that a source has
compacted behind r, and not just what all pages before were compacted to. Storage insists on that, see StatePage.
"""

import zlib

import msgspec

from kvstore.replica.applier import PAGE_BYTES, Applier
from paxos.messages import FetchSnapshot, SnapshotPage
from paxos.types import MS, NodeId, Slot, Time
from storage.base import AppliedProgress, Change, StagedPage, StatePage, Storage, StorageError

END = 2**62 - 1
"""Behind every revision: the page behind it has no rows, and says as of when the state is, and who the members are."""
MOST_PAGE_BYTES = 64 * 1024
"""A page of state is read between two commits of the one who sends it: milliseconds of work."""
STATE_BYTES_PER_S = 16 << 20
"""How fast a state is asked for: the clients of those who send and store it share their disks and cores with it."""
ASK_AGAIN_MS = 500
"""A question without an answer goes to the next replica after this time."""
HOLD_IDLE_MS = 10_000
HOLD_MS = 600_000
"""Compaction waits for a peer that fetches: for so long since its last question, and since its first."""

_encode = msgspec.msgpack.Encoder().encode
_rows_decoder = msgspec.msgpack.Decoder(list[Change])
_progress_decoder = msgspec.msgpack.Decoder(AppliedProgress)


def state_message(after: int, page: StatePage) -> SnapshotPage:
    """The answer to the question for the rows behind `after`."""
    rows = _encode(page.changes)
    end = _encode(page.progress) if page.progress is not None else b""
    return SnapshotPage(after, rows, page.compacted, end, zlib.crc32(rows))


def _page_of(message: SnapshotPage) -> StatePage | None:
    """None when it is not what was sent."""
    if zlib.crc32(message.rows) != message.checksum:
        return None
    try:
        end = _progress_decoder.decode(message.end) if message.end else None
        return StatePage(_rows_decoder.decode(message.rows), message.compacted, end)
    except msgspec.MsgspecError:
        return None


class IncomingSnapshot:
    """The state that this replica is being given."""

    def __init__(self, storage: Storage) -> None:
        """Go on with what an earlier life has stored."""
        self._begin()
        self._source: NodeId = ""
        self._asked_at: Time = 0
        self._unanswered = False
        self._due: Time | None = None
        """When the next question may be asked, or the same again of another; None for at once."""
        self._storing = False
        recovered = storage.recovered()
        while self._after < recovered.staged:
            page = storage.read_state(self._after, PAGE_BYTES, staged=True)
            self._load(page)
            self._compacted = recovered.staged_compacted

    def _begin(self) -> None:
        self._applier = Applier([])
        self._after = 0
        self._compacted = self._least = 0
        """What the first page left out, and the least that any did."""

    def ask(self, sources: list[NodeId], now: Time, *, only_end: bool) -> tuple[NodeId, FetchSnapshot] | None:
        """The question that is due, and to whom; `sources` in the order of preference. `only_end`: no rows."""
        if self._storing or (self._due is not None and now < self._due):
            return None
        if not sources:
            self._due = None
            return None
        if self._source not in sources or self._unanswered:
            self._turn_to_next(sources)
        self._asked_at, self._unanswered = now, True
        self._due = now + ASK_AGAIN_MS * MS
        return self._source, FetchSnapshot(END if only_end else self._after)

    def take_end(self, sender: NodeId, message: SnapshotPage) -> AppliedProgress | None:
        """The answer to a question for the end only."""
        if sender != self._source or message.after != END:
            return None
        page = _page_of(message)
        return page.progress if page is not None else None

    def ask_at_once(self) -> None:
        """The next question need not wait."""
        self._unanswered, self._due = False, None

    def take(
        self, sender: NodeId, message: SnapshotPage, applied: Slot, now: Time
    ) -> tuple[StagedPage, Applier | None] | None:
        """A page, to be stored before the next question; with the last one, the whole state. None for one that is of
        no use here, where slots up to `applied` are applied already."""
        if self._storing or sender != self._source or message.after != self._after:
            return None
        page = _page_of(message)
        if page is None:
            return None  # it is asked for again
        if not self._follows(page):
            self._give_up(now)
            return None
        staged = StagedPage(self._after, page)
        self._load(page)
        self._unanswered = False
        self._due = self._asked_at + len(message.rows) * 1000 * MS // STATE_BYTES_PER_S
        if page.progress is None:
            self._storing = True
            return staged, None
        return self._complete(staged, page.progress, applied, now)

    def stored(self) -> None:
        """The last page is durable."""
        self._storing = False

    def next_deadline(self) -> Time | None:
        """When a question is asked that nothing else brings about."""
        return None if self._storing else self._due

    def _follows(self, page: StatePage) -> bool:
        """False when deletions may be missing in it of keys that are here."""
        alike = page.compacted == self._compacted == self._least
        return self._after == 0 or alike or page.compacted <= self._after

    def _load(self, page: StatePage) -> None:
        if self._after == 0:
            self._compacted = self._least = page.compacted
            self._applier.machine.forget(page.compacted)
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
            self._give_up(now)  # the source lags itself
            return None
        self._begin()
        self._storing = True
        return staged, applier

    def _give_up(self, now: Time) -> None:
        """Begin anew, with another source, in a while."""
        self._begin()
        self._unanswered, self._due = True, now + ASK_AGAIN_MS * MS

    def _turn_to_next(self, sources: list[NodeId]) -> None:
        last = sources.index(self._source) if self._source in sources else -1
        self._source = sources[(last + 1) % len(sources)]


class OutgoingSnapshots:
    """The peers that fetch the state of this replica."""

    def __init__(self) -> None:
        self._fetching: dict[NodeId, tuple[Time, Time]] = {}

    def asked(self, peer: NodeId, message: FetchSnapshot, now: Time) -> None:
        """`peer` wants a page."""
        begun, _ = self._fetching.get(peer, (now, now))
        self._fetching[peer] = (now if message.after == 0 else begun, now)

    def ended(self, peer: NodeId) -> None:
        """`peer` was sent the last page."""
        self._fetching.pop(peer, None)

    def hold(self, now: Time) -> bool:
        """True while what is superseded must stay, because somebody fetches."""
        return any(
            now - last < HOLD_IDLE_MS * MS and now - begun < HOLD_MS * MS for begun, last in self._fetching.values()
        )
