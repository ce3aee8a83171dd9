"""The changes that watchers saw, compared with each other, with acknowledged writes, and with reads of the past.

All changes that any watcher saw are the history of the store. Replayed in order, they give the state as of every
revision. The version and the creation revision in an event show whether an earlier change of the key is missing.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec


class ObservedChange(NamedTuple):
    """A change of `key` in an event: a put of a record, or a deletion with value None and zeros."""

    revision: int
    key: str
    value: str | None
    version: int
    create_revision: int


class WatchSegment(msgspec.Struct):
    """The changes that one watcher received without a gap, from one revision to another."""

    kind: str
    prefix: str
    """Beginning of the watched keys; the whole key for a watcher of a single key."""
    single: bool
    first: int
    """First revision that the watcher asked for."""
    upto: int
    """Last revision that the watcher has seen completely."""
    changes: list[ObservedChange] = []

    def covers(self, key: str) -> bool:
        """Return whether the watcher watches `key`."""
        return key == self.prefix if self.single else key.startswith(self.prefix)


class AcknowledgedChange(NamedTuple):
    """A change that a client was told is done."""

    revision: int
    key: str
    value: str | None


class PastRead(NamedTuple):
    """The answer to a read of `key` as of `revision`; an absent key has the value None and zeros."""

    replica: str
    revision: int
    key: str
    value: str | None
    modified: int
    version: int
    create_revision: int


class PastList(NamedTuple):
    """The answer to a list of the keys that begin with `prefix` as of `revision`."""

    replica: str
    revision: int
    prefix: str
    records: list[ObservedChange]


class ChangesVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of what was compared, and the violations."""

    watches: int
    events: int
    changes: int
    reads: int
    lists: int
    listed: int
    violations: list[str]


def judge_changes(
    segments: Sequence[WatchSegment],
    acknowledged: Iterable[AcknowledgedChange],
    sent: Mapping[str, str],
    reads: Sequence[PastRead],
    lists: Sequence[PastList],
) -> ChangesVerdict:
    """Compare everything. `sent` has the key of each value that a client sent."""
    history, conflicts = _history(segments)
    violations = [
        *conflicts,
        *_never_sent(history, sent),
        *_missed(history, segments, acknowledged),
        *(line for segment in segments for line in wrong_segment(segment, history)),
    ]
    past = ReplayedHistory(history)
    violations += [*past.gaps, *(line for read in reads for line in past.wrong_read(read))]
    violations += [line for listed in lists for line in past.wrong_list(listed)]
    return ChangesVerdict(
        watches=len(segments),
        events=sum(len(segment.changes) for segment in segments),
        changes=sum(map(len, history.values())),
        reads=len(reads),
        lists=len(lists),
        listed=sum(len(listed.records) for listed in lists),
        violations=violations,
    )


History = Mapping[int, dict[str, ObservedChange]]
"""The changes by revision and key, in the order in which the widest watcher received them."""


def _history(segments: Iterable[WatchSegment]) -> tuple[dict[int, dict[str, ObservedChange]], list[str]]:
    found: dict[int, dict[str, ObservedChange]] = {}
    conflicts = []
    for segment in sorted(segments, key=lambda each: (each.single, len(each.prefix), each.first)):
        for change in segment.changes:
            known = found.setdefault(change.revision, {}).setdefault(change.key, change)
            if known != change:
                conflicts.append(f"{_of(segment)} received {change}, another watcher {known}")
    return dict(sorted(found.items())), conflicts


def _never_sent(history: History, sent: Mapping[str, str]) -> Iterator[str]:
    for changes in history.values():
        for change in changes.values():
            if change.value is not None and sent.get(change.value) != change.key:
                yield f"{change} has a value that was sent for {sent.get(change.value)}"


def _missed(
    history: History, segments: Sequence[WatchSegment], acknowledged: Iterable[AcknowledgedChange]
) -> Iterator[str]:
    for done in acknowledged:
        change = history.get(done.revision, {}).get(done.key)
        if change is not None and change.value == done.value:
            continue
        if change is not None or any(
            each.covers(done.key) and each.first <= done.revision <= each.upto for each in segments
        ):
            yield f"{done} was acknowledged, and the watchers received {change}"


def wrong_segment(segment: WatchSegment, history: History) -> Iterator[str]:
    """Describe the first change of a watcher that differs from the history of its keys."""
    expected = [
        change
        for revision, changes in history.items()
        if segment.first <= revision <= segment.upto
        for change in changes.values()
        if segment.covers(change.key)
    ]
    for place, (received, due) in enumerate(zip(segment.changes, expected, strict=False)):
        if received != due:
            before = segment.changes[place - 1] if place else None
            yield f"{_of(segment)} received {received} after {before}, but the next change is {due}"
            return
    if len(segment.changes) < len(expected):
        missing = expected[len(segment.changes)]
        yield f"{_of(segment)} received everything up to revision {segment.upto} but not {missing}"
    elif len(segment.changes) > len(expected):
        yield f"{_of(segment)} received {segment.changes[len(expected)]} beyond the changes of its keys"


def _of(segment: WatchSegment) -> str:
    return f"the {segment.kind} watcher of {segment.prefix!r} from revision {segment.first}"


class ReplayedHistory:
    """The state as of every revision, out of all changes."""

    def __init__(self, history: History) -> None:
        self._of_key: dict[str, list[ObservedChange]] = {}
        self.gaps: list[str] = []
        """Descriptions of events that do not continue the event before them."""
        for changes in history.values():
            for change in changes.values():
                earlier = self._of_key.setdefault(change.key, [])
                if earlier or change.value is None:
                    self.gaps += _gaps(earlier[-1] if earlier else None, change)
                earlier.append(change)

    def as_of(self, key: str, revision: int) -> ObservedChange | None:
        """Return the last change of `key` up to `revision`, None for an absent key."""
        changes = self._of_key.get(key, [])
        place = bisect_right(changes, revision, key=lambda change: change.revision)
        change = changes[place - 1] if place else None
        return None if change is None or change.value is None else change

    def wrong_read(self, read: PastRead) -> Iterator[str]:
        """Describe a read of the past that differs from the history."""
        due = self.as_of(read.key, read.revision)
        found = None
        if read.value is not None:
            found = ObservedChange(read.modified, read.key, read.value, read.version, read.create_revision)
        if found != due:
            yield f"{read.replica} answered a read of {read.key} as of revision {read.revision} with {found}, not {due}"

    def wrong_list(self, listed: PastList) -> Iterator[str]:
        """Describe the first record of a list of the past that differs from the history."""
        found = {record.key: record for record in listed.records}
        keys = {key for key in self._of_key if key.startswith(listed.prefix)} | found.keys()
        for key in sorted(keys):
            due = self.as_of(key, listed.revision)
            if found.get(key) != due:
                what = f"{listed.replica} listed {key} as of revision {listed.revision}"
                yield f"{what} as {found.get(key)}, but it was {due}"
                return


def _gaps(before: ObservedChange | None, change: ObservedChange) -> Iterator[str]:
    """Describe a change that does not follow `before` in the history of its key."""
    present = before is not None and before.value is not None
    if change.value is None:
        if not present:
            yield f"{change} deletes an absent key: the last change was {before}"
        return
    version = before.version + 1 if present and before is not None else 1
    created = before.create_revision if present and before is not None else change.revision
    if (change.version, change.create_revision) != (version, created):
        yield f"{change} does not continue {before}: a change between them is missing"
