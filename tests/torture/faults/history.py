"""What clients asked and were told, and what can be said about it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from tests.torture.linearizability import FOREVER, Operation, Verdict, check

Kind = Literal["put", "swap", "delete", "get", "quorum", "stale", "compare", "pair", "pair-swap", "both", "half"]
"""What was asked. A swap is a put on the condition that the key is as it was seen before; one whose condition did not
hold is a compare, a read of the revision. The last four are about a pair: two keys that are put together in one
transaction, so that they are one register, of which `both` reads all in a transaction, and `half` one key by GET."""
Outcome = Literal["answered", "unknown", "refused"]
"""Unknown: a write that may have been done, or may yet be. Refused: a write without a trace, or an unanswered read."""

SWAPS = frozenset({"swap", "pair-swap"})
WRITES = frozenset({"put", "delete", "pair"}) | SWAPS


class Call(msgspec.Struct, frozen=True, gc=False):
    """One request to one replica. `value`: what was put, or what a read saw, None when the key was absent. `revision`:
    of a write that was answered, or of the record that a read saw. `expected`: what a swap was to find, None for an
    absent key. `called_ns` and `returned_ns` are instants of one
    monotonic clock; it has returned when the client knew the outcome, or gave up."""

    kind: Kind
    key: str
    replica: str
    called_ns: int
    returned_ns: int
    outcome: Outcome
    value: str | None = None
    revision: int | None = None
    expected: str | None = None

    @property
    def found(self) -> bool:
        """Of a delete or read that was answered: whether the key was there."""
        return self.revision is not None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the history of a run shows."""

    keys: int
    silent: list[str]
    """Keys for which the search for an order was given up."""
    illegal: list[str]
    """Keys whose answers no order explains, the one with the fewest operations first."""
    backwards: list[str]
    """Answers whose revision contradicts an earlier one, in words."""
    lost: list[str]
    """Acknowledged writes of which the last read of their key shows nothing, in words."""


def by_key(calls: Iterable[Call]) -> dict[str, list[Call]]:
    """The calls of each key, in the order given."""
    keys: dict[str, list[Call]] = {}
    for call in calls:
        keys.setdefault(call.key, []).append(call)
    return keys


def judge(calls: Sequence[Call], on_key: Callable[[int, int], None] = lambda _, __: None) -> Judgement:
    """Check all. `on_key` is told how many keys of how many are done: the search may take a while."""
    keys = by_key(calls)
    found: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    for number, (key, its) in enumerate(keys.items()):
        found[check(list(operations(known(its))))[0]].append(key)
        on_key(number + 1, len(keys))
    return Judgement(
        keys=len(keys),
        silent=found[Verdict.UNVERIFIED],
        illegal=sorted(found[Verdict.ILLEGAL], key=lambda key: len(keys[key])),
        backwards=[*backwards(calls), *other_values(calls)],
        lost=[line for its in keys.values() for line in lost(its)],
    )


def known(calls: Sequence[Call]) -> Iterator[Call]:
    """The calls of one key; compares with the value that was put under the revision which they saw, and without those
    whose writer was not told of it."""
    values = {call.revision: call.value for call in calls if call.kind in WRITES and call.revision is not None}
    for call in calls:
        if call.kind != "compare" or call.revision is None:
            yield call
        elif call.revision in values:
            yield msgspec.structs.replace(call, value=values[call.revision])


def operations(calls: Iterable[Call]) -> Iterator[Operation]:
    """Those that say something about the order: no refusals and no stale reads."""
    for call in calls:
        if call.outcome == "refused" or call.kind == "stale":
            continue
        yield Operation(
            kind=_kind(call),
            key=call.key.encode(),
            value=None if call.value is None else call.value.encode(),
            called=call.called_ns,
            returned=call.returned_ns if call.outcome == "answered" else FOREVER,
            found=call.found if call.kind == "delete" and call.outcome == "answered" else None,
            expected=None if call.expected is None else call.expected.encode(),
        )


def _kind(call: Call) -> str:
    """As the checker knows it."""
    if call.kind in SWAPS:
        return "swap"
    if call.kind == "pair":
        return "put"
    return call.kind if call.kind in WRITES else "get"


def backwards(calls: Sequence[Call]) -> Iterator[str]:
    """Revisions that go back in real time. What is called after an answer with some revision has a revision at or above
    it, if it is a read of the same key, and above it, if it is a write of any key."""
    answered = [call for call in calls if call.outcome == "answered" and call.revision and call.kind != "stale"]
    returning = iter(sorted(answered, key=lambda call: call.returned_ns))
    following = next(returning, None)
    highest: Call | None = None
    of_key: dict[str, Call] = {}
    for call in sorted(answered, key=lambda call: call.called_ns):
        while following is not None and following.returned_ns < call.called_ns:
            highest = _later(highest, following)
            of_key[following.key] = _later(of_key.get(following.key), following)
            following = next(returning, None)
        before = highest if call.kind in WRITES else of_key.get(call.key)
        if before is None:
            continue
        equal_is_fine = call.kind not in WRITES and before.kind != "delete"
        if _revision(call) < _revision(before) or (_revision(call) == _revision(before) and not equal_is_fine):
            yield f"{_words(call)} was called after {_words(before)} had returned"


def other_values(calls: Iterable[Call]) -> Iterator[str]:
    """Records, those of stale reads too, that are not what was put under their revision."""
    put: dict[int, Call] = {}
    for call in calls:
        if call.kind in WRITES and call.revision is not None:
            other = put.setdefault(call.revision, call)
            if other is not call:
                yield f"{_words(call)} and {_words(other)} have one revision"
    for call in calls:
        source = put.get(call.revision or 0)
        if call.kind in WRITES or source is None:
            continue
        if call.key != source.key or (call.value != source.value and call.kind != "compare"):
            yield f"{_words(call)} saw what was not put there: {_words(source)}"


def lost(calls: Sequence[Call]) -> Iterator[str]:
    """Acknowledged writes of one key that its last read contradicts, whatever came between."""
    reads = (call for call in calls if call.kind in {"get", "both"} and call.outcome == "answered")
    last = max(reads, key=_called, default=None)
    if last is None:
        return
    done = [call for call in calls if call.kind in WRITES and call.found and call.returned_ns < last.called_ns]
    newest = max(done, key=_revision, default=None)
    if newest is None:
        return
    if last.found:
        if _revision(last) < _revision(newest):
            yield f"{_words(newest)}: the last read saw {_words(last)}"
    elif newest.kind != "delete" and not any(call.kind == "delete" and call.outcome == "unknown" for call in calls):
        yield f"{_words(newest)}: the last read at {last.replica} saw nothing, and nobody deleted it"


def _called(call: Call) -> int:
    return call.called_ns


def _revision(call: Call) -> int:
    return call.revision or 0


def _later(one: Call | None, other: Call) -> Call:
    return other if one is None or _revision(other) > _revision(one) else one


def _words(call: Call) -> str:
    value = "" if call.value is None else f" = {call.value}"
    return f"{call.kind} {call.key}{value} at {call.replica} with revision {call.revision}"
