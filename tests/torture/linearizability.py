"""A linearizability checker: the search of Wing and Gong with Lowe's cache of configurations, one key at a time.

Wing and Gong, "Testing and Verifying Concurrent Objects" (1993); Lowe, "Testing for Linearizability" (2017). Keys are
independent, so a history is checked key by key (Herlihy and Wing 1990: linearizability is local).

The search places the operations of a key one after the other. An operation may come next if it was called before the
earliest return among the operations that are not placed. Four rules shorten the search; with each of them, an order is
found if and only if one exists:

1. *An unknown write is placed right before a definite operation whose answer requires it.* Proof: in any legal order,
   an unknown put or delete that is followed by a write without an observation, or by nothing, can be removed: no
   operation saw it, the value after the next operation is the same, and it need not have taken effect. (An unknown
   delete observes nothing either.) It can also be removed when the answer of the next operation fits without it. Each
   removal makes the order shorter, so the process ends, and then the rule holds.
2. *Of the unknown writes of one value, the earliest called is placed first.* Unknown writes never return, so two of
   them can be exchanged: the earlier one fits wherever the later one does, and the later one anywhere after that.
3. *An operation that sees the current value and does not change it is placed at once*: a get of the value, or a delete
   of an absent key. A legal order remains legal when the operation is moved to its front.
4. *A value is not replaced while a get of the value is not placed*, unless a write of the value is not placed either:
   no legal order begins like that. (The rule ignores swaps that expect the value.)

A configuration consists of the first definite operation that is not placed, a mask of the placed operations after it,
the value, and the placed unknown writes. A configuration is visited once, and not at all if the same one with fewer
placed unknown writes was visited. Values that no operation saw count as one value. So the number of configurations
depends on the number of concurrent operations, not on the length of the history. A swap of unknown outcome counts as an
unknown put, without its condition."""

from collections.abc import Iterator, Sequence
from enum import Enum

import msgspec

FOREVER = 1 << 62
"""The return time of an operation whose outcome is unknown: it may take effect at any later moment, or never."""
MAX_STEPS = 2_000_000
"""Number of placements after which the search for a key is given up. Steps rather than seconds, so that a history has
the same verdict on every machine."""

ABSENT = 0
UNSEEN = 1
"""All values that no get and no swap saw."""
PRESENT = -1
"""The observation of a delete that found a record."""
ANYTHING = -2
"""The observation of an operation that sees nothing."""


class Operation(msgspec.Struct, frozen=True):
    """One operation. `called` and `returned` are times of one clock."""

    kind: str
    """One of put, delete, get and swap. A swap is a put whose condition was met."""
    key: bytes
    value: bytes | None
    """The value that was put or that a get saw; None for an absent key."""
    called: int
    returned: int
    found: bool | None = None
    """Whether a delete found a record; None when unknown."""
    expected: bytes | None = None
    """The value that a swap expects; None for an absent key."""


class Verdict(Enum):
    """Verdict on a history; unverified means that the search was given up."""

    LINEARIZABLE = "linearizable"
    ILLEGAL = "illegal"
    UNVERIFIED = "unverified"


def check(history: Sequence[Operation], max_steps: int = MAX_STEPS) -> tuple[Verdict, bytes | None]:
    """Return the worst verdict over all keys, illegal before unverified, and the first key with it, or None."""
    found = verdicts(history, max_steps)
    for verdict in (Verdict.ILLEGAL, Verdict.UNVERIFIED):
        for key in found:
            if found[key] is verdict:
                return verdict, key
    return Verdict.LINEARIZABLE, None


def verdicts(history: Sequence[Operation], max_steps: int = MAX_STEPS) -> dict[bytes, Verdict]:
    """Return the verdict on each key, in the order of the keys. `max_steps` is for each key."""
    keys: dict[bytes, list[Operation]] = {}
    for operation in history:
        keys.setdefault(operation.key, []).append(operation)
    return {key: check_key(operations, max_steps) for key, operations in sorted(keys.items())}


def check_key(operations: Sequence[Operation], max_steps: int = MAX_STEPS) -> Verdict:
    """Search for an order of the operations of one key that respects real time and explains every answer.

    The first search lets unknown writes that leave the same value take effect any number of times, so that it need not
    track which of them are placed. If that search finds no order, there is none.
    """
    verdict = _search(_Search(operations, again=True), max_steps)
    return verdict if verdict is not Verdict.LINEARIZABLE else _search(_Search(operations, again=False), max_steps)


def _search(search: "_Search", max_steps: int) -> Verdict:
    stack, steps = [_Configuration(0, 0, ABSENT, 0)], 0
    visited: dict[tuple[int, int, int], list[int]] = {}
    while stack:
        configuration = stack.pop()
        if configuration.first == len(search.definite):
            return Verdict.LINEARIZABLE
        used = visited.setdefault((configuration.first, configuration.mask, configuration.value), [])
        if any(fewer & configuration.used == fewer for fewer in used):
            continue  # a visit with fewer placed unknown writes had the same choices and more
        used.append(configuration.used)
        following = search.following(configuration)
        steps += 1 + len(following)
        if steps > max_steps:
            return Verdict.UNVERIFIED
        stack.extend(reversed(following))
    return Verdict.ILLEGAL


class _SearchStep(msgspec.Struct, frozen=True):
    """An operation in the search, in which values are small numbers."""

    called: int
    returned: int
    sees: int
    leaves: int


class _Configuration(msgspec.Struct, frozen=True):
    """The placed operations: the definite ones below `first` and those whose bit, counted from `first`, is in `mask`
    (bit 0 is not); the unknown ones whose bit is in `used`. `value` is the value that they left."""

    first: int
    mask: int
    value: int
    used: int

    def placed(self, index: int) -> bool:
        """Return whether this definite operation is placed."""
        return index < self.first or bool(self.mask >> index - self.first & 1)


class _Search:
    """The operations of one key, definite and unknown ones, each in the order of their calls."""

    def __init__(self, operations: Sequence[Operation], *, again: bool) -> None:
        definite = [each for each in operations if each.returned != FOREVER]
        numbers: dict[bytes | None, int] = {None: ABSENT}
        for each in definite:
            seen = each.expected if each.kind == "swap" else each.value
            if each.kind in {"get", "swap"} and seen is not None:
                numbers.setdefault(seen, UNSEEN + len(numbers))
        self.definite = _steps(definite, numbers)
        self._unknown = _steps(
            [each for each in operations if each.returned == FOREVER and each.kind != "get"], numbers
        )
        count = UNSEEN + len(numbers)
        self._viewers: list[list[int]] = [[] for _ in range(count)]
        self._writers: list[list[int]] = [[] for _ in range(count)]
        self._spares: list[list[int]] = [[] for _ in range(count)]
        for index, step in enumerate(self.definite):
            (self._viewers if step.sees == step.leaves else self._writers)[step.leaves].append(index)
        for index, step in enumerate(self._unknown):
            self._spares[step.leaves].append(index)
        self._bits = [
            0 if again and len(self._spares[step.leaves]) > 1 else 1 << index
            for index, step in enumerate(self._unknown)
        ]

    def following(self, before: _Configuration) -> list[_Configuration]:
        """Return the configurations after one more definite operation; a single one where rule 3 applies."""
        candidates, horizon = self._candidates(before)
        for index in candidates:
            if self.definite[index].sees == self.definite[index].leaves == before.value:
                return [_place(before, index, before.value, before.used)]
        following, costly = [], []
        for index in candidates:
            step = self.definite[index]
            if step.sees in {before.value, ANYTHING} or (step.sees == PRESENT and before.value != ABSENT):
                following.append(_place(before, index, step.leaves, before.used))
            else:
                costly += [
                    _place(before, index, step.leaves, before.used | self._bits[unknown])
                    for unknown in self._explanations(before, step, horizon)
                ]
        return [after for after in following + costly if not self._is_dead_end(before, after)]

    def _candidates(self, configuration: _Configuration) -> tuple[list[int], int]:
        """Return the definite operations that may come next, and the earliest return among those that are not
        placed."""
        candidates: list[int] = []
        horizon = FOREVER
        free = ~configuration.mask
        while True:
            low = free & -free
            index = configuration.first + low.bit_length() - 1
            if index >= len(self.definite) or self.definite[index].called > horizon:
                return candidates, horizon
            candidates.append(index)
            horizon = min(horizon, self.definite[index].returned)
            free ^= low

    def _explanations(self, configuration: _Configuration, step: _SearchStep, horizon: int) -> Iterator[int]:
        """Yield the unknown writes to place before `step`, whose answer does not fit the current value."""
        if step.sees != PRESENT:
            yield from self._spare(configuration, step.sees, horizon)
            return
        costly = []
        for value in range(UNSEEN, len(self._spares)):
            for unknown in self._spare(configuration, value, horizon):
                if not self._awaited(configuration, value):
                    yield unknown  # no get will see its value, so it has no better use
                    return
                costly.append(unknown)
        yield from costly

    def _spare(self, configuration: _Configuration, value: int, horizon: int) -> Iterator[int]:
        """Yield the first unknown write of `value` that is not placed, if it may be placed now."""
        for unknown in self._spares[value]:
            if not configuration.used >> unknown & 1:
                if self._unknown[unknown].called <= horizon:
                    yield unknown
                return

    def _is_dead_end(self, before: _Configuration, after: _Configuration) -> bool:
        """Return whether `after` replaces a value that a get has yet to see and that no write can restore (rule 4)."""
        value = before.value
        if after.value == value or not self._awaited(after, value):
            return False
        return all(map(after.placed, self._writers[value])) and all(
            after.used >> unknown & 1 for unknown in self._spares[value]
        )

    def _awaited(self, configuration: _Configuration, value: int) -> bool:
        for index in reversed(self._viewers[value]):
            if not configuration.placed(index):
                return True
            if index < configuration.first:
                break
        return False


def _steps(operations: Sequence[Operation], numbers: dict[bytes | None, int]) -> list[_SearchStep]:
    steps = []
    for each in sorted(operations, key=lambda operation: operation.called):
        match each.kind:
            case "get":
                sees = leaves = numbers[each.value]
            case "put":
                sees, leaves = ANYTHING, numbers.get(each.value, UNSEEN)
            case "swap":
                sees, leaves = numbers.get(each.expected, UNSEEN), numbers.get(each.value, UNSEEN)
            case _:
                sees, leaves = {None: ANYTHING, True: PRESENT, False: ABSENT}[each.found], ABSENT
        steps.append(_SearchStep(each.called, each.returned, sees, leaves))
    return steps


def _place(before: _Configuration, index: int, value: int, used: int) -> _Configuration:
    mask = before.mask | 1 << index - before.first
    ones = (~mask & mask + 1).bit_length() - 1
    return _Configuration(before.first + ones, mask >> ones, value, used)
