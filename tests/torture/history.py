"""The history of a run, as recorded by its clients, and its verdict."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from tests.torture.command import first_lines
from tests.torture.linearizability import FOREVER, Operation, Verdict, check

CallKind = Literal["put", "swap", "delete", "get", "quorum", "stale", "compare", "pair", "pair-swap", "both", "half"]
"""Kind of a request. A swap is a put on the condition that the key has not changed since it was last seen; a swap whose
condition fails is recorded as a compare, which reads the revision. The last four kinds are for a pair: two keys that
are always put together in one transaction, so that they are one register. `both` reads the pair in a transaction,
`half` reads one of its keys by GET."""
CallOutcome = Literal["answered", "unknown", "refused"]
"""Outcome of a request. Unknown: a write that may have taken effect, or may later. Refused: a write without effect, or
a read without an answer."""

SWAPS = frozenset({"swap", "pair-swap"})
WRITES = frozenset({"put", "delete", "pair"}) | SWAPS


class RecordedCall(msgspec.Struct, frozen=True, gc=False):
    """One request to one replica. Times are nanoseconds of one monotonic clock."""

    kind: CallKind
    key: str
    replica: str
    called_ns: int
    returned_ns: int
    """Time at which the client knew the outcome or gave up."""
    outcome: CallOutcome
    value: str | None = None
    """The value that was put, or that a read saw; None for an absent key."""
    revision: int | None = None
    """Revision of an acknowledged write, or of the record that a read saw."""
    expected: str | None = None
    """Value that a swap expects; None for an absent key."""

    @property
    def found(self) -> bool:
        """Whether an answered delete or read found the key."""
        return self.revision is not None


class HistoryVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Violations and unverified keys in the history of a run."""

    keys: int
    unverified: list[str]
    """Keys for which the search for an order was given up."""
    illegal: list[str]
    """Keys whose answers no order explains, the one with the fewest operations first."""
    backwards: list[str]
    """Descriptions of answers whose revision contradicts an earlier one."""
    lost: list[str]
    """Descriptions of acknowledged writes that the last read of their key contradicts."""

    @property
    def sound(self) -> bool:
        """Whether nothing contradicts linearizability and durability."""
        return not (self.illegal or self.backwards or self.lost)

    def lines(self, acknowledged: int) -> list[str]:
        """Return the verdict as lines of a report."""
        counts = (
            f"{acknowledged:,} writes acknowledged, {len(self.lost)} lost; {self.keys:,} keys, {len(self.illegal)} not "
            f"linearizable, {len(self.unverified)} unverified; {len(self.backwards)} revisions went back"
        )
        illegal = [f"no order explains the answers for {key}" for key in self.illegal]
        return [counts, *first_lines([*self.lost, *illegal, *self.backwards])]


def by_key(calls: Iterable[RecordedCall]) -> dict[str, list[RecordedCall]]:
    """Return the calls of each key, in the given order."""
    keys: dict[str, list[RecordedCall]] = {}
    for call in calls:
        keys.setdefault(call.key, []).append(call)
    return keys


def judge(calls: Sequence[RecordedCall], on_key: Callable[[int, int], None] = lambda _, __: None) -> HistoryVerdict:
    """Return the verdict on a history. `on_key` gets the number of checked keys and of all keys, to show progress."""
    keys = by_key(calls)
    verdicts: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    for number, (key, of_key) in enumerate(keys.items()):
        verdicts[check(list(operations(with_known_values(of_key))))[0]].append(key)
        on_key(number + 1, len(keys))
    return HistoryVerdict(
        keys=len(keys),
        unverified=verdicts[Verdict.UNVERIFIED],
        illegal=sorted(verdicts[Verdict.ILLEGAL], key=lambda key: len(keys[key])),
        backwards=[*backwards(calls), *wrong_records(calls)],
        lost=[line for of_key in keys.values() for line in lost(of_key)],
    )


def with_known_values(calls: Sequence[RecordedCall]) -> Iterator[RecordedCall]:
    """Yield the calls of one key. A compare gets the value of the revision that it saw, and is omitted when no
    acknowledged write has that revision."""
    values = {call.revision: call.value for call in calls if call.kind in WRITES and call.revision is not None}
    for call in calls:
        if call.kind != "compare" or call.revision is None:
            yield call
        elif call.revision in values:
            yield msgspec.structs.replace(call, value=values[call.revision])


def operations(calls: Iterable[RecordedCall]) -> Iterator[Operation]:
    """Yield the calls that constrain the order, for the checker, without refused calls and stale reads."""
    for call in calls:
        if call.outcome == "refused" or call.kind == "stale":
            continue
        yield Operation(
            kind=_checker_kind(call),
            key=call.key.encode(),
            value=None if call.value is None else call.value.encode(),
            called=call.called_ns,
            returned=call.returned_ns if call.outcome == "answered" else FOREVER,
            found=call.found if call.kind == "delete" and call.outcome == "answered" else None,
            expected=None if call.expected is None else call.expected.encode(),
        )


def _checker_kind(call: RecordedCall) -> str:
    if call.kind in SWAPS:
        return "swap"
    if call.kind == "pair":
        return "put"
    return call.kind if call.kind in WRITES else "get"


def backwards(calls: Sequence[RecordedCall]) -> Iterator[str]:
    """Describe revisions that go back in real time.

    When a call begins after an answer with some revision has arrived, a read of the same key must return at least this
    revision, and a write of any key a higher one."""
    answered = [call for call in calls if call.outcome == "answered" and call.revision and call.kind != "stale"]
    returning = iter(sorted(answered, key=lambda call: call.returned_ns))
    following = next(returning, None)
    highest: RecordedCall | None = None
    of_key: dict[str, RecordedCall] = {}
    for call in sorted(answered, key=lambda call: call.called_ns):
        while following is not None and following.returned_ns < call.called_ns:
            highest = _higher(highest, following)
            of_key[following.key] = _higher(of_key.get(following.key), following)
            following = next(returning, None)
        before = highest if call.kind in WRITES else of_key.get(call.key)
        if before is None:
            continue
        may_be_equal = call.kind not in WRITES and before.kind != "delete"
        if _revision(call) < _revision(before) or (_revision(call) == _revision(before) and not may_be_equal):
            yield f"{_describe(call)} was called after {_describe(before)} had returned"


def wrong_records(calls: Iterable[RecordedCall]) -> Iterator[str]:
    """Describe records, also those of stale reads, that differ from the write of their revision."""
    put: dict[int, RecordedCall] = {}
    for call in calls:
        if call.kind in WRITES and call.revision is not None:
            other = put.setdefault(call.revision, call)
            if other is not call:
                yield f"{_describe(call)} and {_describe(other)} have the same revision"
    for call in calls:
        source = put.get(call.revision or 0)
        if call.kind in WRITES or source is None:
            continue
        if call.key != source.key or (call.value != source.value and call.kind != "compare"):
            yield f"{_describe(call)} differs from the write of this revision: {_describe(source)}"


def lost(calls: Sequence[RecordedCall]) -> Iterator[str]:
    """Describe an acknowledged write that the last read of the same key contradicts."""
    reads = (call for call in calls if call.kind in {"get", "both"} and call.outcome == "answered")
    last = max(reads, key=lambda call: call.called_ns, default=None)
    if last is None:
        return
    done = [call for call in calls if call.kind in WRITES and call.found and call.returned_ns < last.called_ns]
    newest = max(done, key=_revision, default=None)
    if newest is None:
        return
    if last.found:
        if _revision(last) < _revision(newest):
            yield f"{_describe(newest)}: the last read saw {_describe(last)}"
    elif newest.kind != "delete" and not any(call.kind == "delete" and call.outcome == "unknown" for call in calls):
        yield f"{_describe(newest)}: the last read at {last.replica} found no record, and no delete explains it"


def _revision(call: RecordedCall) -> int:
    return call.revision or 0


def _higher(one: RecordedCall | None, other: RecordedCall) -> RecordedCall:
    return other if one is None or _revision(other) > _revision(one) else one


def _describe(call: RecordedCall) -> str:
    value = "" if call.value is None else f" = {call.value}"
    return f"{call.kind} {call.key}{value} at {call.replica} with revision {call.revision}"
