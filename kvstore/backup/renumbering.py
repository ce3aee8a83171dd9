"""The state of a restored cluster: the keys of a backup, with numbers that no client knows yet.

Clients keep numbers for longer than a connection: revisions (as entity tags, ids of watch events, cursors of lists),
versions of keys, client leases, fencing tokens, idempotency keys and applied slots. After the backup was taken, the old
cluster may have given out more of them; so may a cluster that was restored earlier. A number that is given out twice
makes an old condition hold for a new value, or gives the lease of one client to another.

Therefore a restore counts as a write of every key. All new numbers are above `above`, which grows with the time of day,
and keep their order. The restored store has no earlier history, and no client leases: their keys, locks and idempotency
keys are left out.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from msgspec.structs import astuple

from kvstore.api.commands import Record
from kvstore.api.limits import MAX_REVISION
from kvstore.backup.file import Backup, BackupInfo, MisuseError
from kvstore.state_machine.digest import DIGEST_MASK, digest_of
from kvstore.state_machine.lease_index import attached_key_in, is_internal
from storage.base import AppliedProgress, Change, end_of, first_of, revision_of, sub_revision_of

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
REVISIONS_PER_S = 40_000
"""Growth of the default `above`: more revisions than a cluster can make on average from one restore to the next, the
restored ones included."""
MAX_AHEAD_STEP = 10_000_000_000
"""Limit of the further step from a backup whose revision is ahead of the clock."""
MAX_ABOVE = MAX_REVISION - 2**40
"""Greatest `above`: it leaves revisions for ten months at full speed."""
CLOCK_ERROR = timedelta(minutes=1)
"""Time by which the clock of this machine may be behind that of the machine that took the backup."""


def default_above(info: BackupInfo, now: datetime) -> int:
    """Return the number of ticks of 1/REVISIONS_PER_S second since EPOCH.

    A later restore, from whichever backup, thus gets higher numbers than an earlier one and the clusters between them.
    A cluster that was ahead of the clock when the backup was taken may have gained as much again; then more is added.
    Raises MisuseError if the clock must be wrong.
    """
    taken_at = datetime.fromisoformat(info.taken_at)
    if now + CLOCK_ERROR < taken_at:
        raise MisuseError(
            f"the backup was taken at {info.taken_at}, but the clock of this machine is at "
            f"{now.isoformat(timespec='seconds')}: correct the clock, or give --above"
        )
    ahead = max(0, info.revision - _ticks(taken_at))
    return _ticks(now) + ahead + min(ahead, MAX_AHEAD_STEP)


def _ticks(at: datetime) -> int:
    return int((at - EPOCH).total_seconds() * REVISIONS_PER_S)


class RestoredState:
    """The state with which every member of a restored cluster starts. It depends on the backup and on `above` only.

    Raises MisuseError if `above` is less than the revision of the backup, or leaves too few revisions.
    """

    def __init__(self, backup: Backup, above: int) -> None:
        info = backup.info
        if above < info.revision:
            raise MisuseError(
                f"--above {above} is less than the revision of the backup, {info.revision}: give at least that number, "
                "or leave --above out"
            )
        if above > MAX_ABOVE:
            raise MisuseError(
                f"revisions would go on above {above}, beyond the limit of {MAX_ABOVE}: correct the clock of this "
                "machine, or give a lower --above that the old cluster has not reached"
            )
        self.info = info
        self.above = above
        self._backup = backup
        self._step = above - info.revision
        self._leased: set[bytes] = set()
        numbers: set[int] = set()
        for change in backup.changes():
            leased = attached_key_in(change.key)
            if leased is not None:
                self._leased.add(leased)
            elif not is_internal(change.key):
                numbers.update((revision_of(change.position), change.create_revision))
        self._numbers = array("q", sorted(numbers))
        self._digest = 0
        for key, record in map(_record, self.changes()):
            self._digest = (self._digest + digest_of(key, record)) & DIGEST_MASK

    @property
    def revision(self) -> int:
        """The revision of the restored store."""
        return self.above + len(self._numbers)

    @property
    def records(self) -> int:
        """Number of keys."""
        return self.info.records - self.left_out

    @property
    def left_out(self) -> int:
        """Number of keys of the backup that had a lease, and are left out."""
        return len(self._leased)

    @property
    def progress(self) -> AppliedProgress:
        """Applied progress of a restored replica, without `extra`."""
        old = self.info.progress
        return AppliedProgress(old.applied + self._step, end_of(self.revision), old.chain, self._digest)

    @property
    def mark(self) -> str:
        """Text by which replicas recognise that they began with the same state: the same records, after the same log.
        Two backups may have the same records at different slots."""
        applied, _, chain, digest, _ = astuple(self.progress)
        log = blake2b(b"%d %d " % (applied, digest) + chain, digest_size=8)
        return f"{self.above}:{log.hexdigest()}"

    def changes(self) -> Iterator[Change]:
        """Yield the records in order of revision, as rows of a state without superseded revisions."""
        for position, key, value, create_revision, version, _ in self._backup.changes():
            if not is_internal(key) and key not in self._leased:
                revision = self._renumbered(revision_of(position))
                yield Change(
                    first_of(revision) + sub_revision_of(position),
                    key,
                    value,
                    self._renumbered(create_revision),
                    version + self._step,
                    supersedes=0,
                )

    def _renumbered(self, revision: int) -> int:
        return self.above + bisect_right(self._numbers, revision)


def _record(change: Change) -> tuple[bytes, Record]:
    position, key, value, create_revision, version, _ = change
    # A backup has no deletions, so there is a value.
    return key, Record(value or b"", revision_of(position), create_revision, version, sub_revision_of(position))
