"""Is a history linearizable? Wing and Gong's search with Lowe's memory of configurations, one key at a time.

Wing and Gong, "Testing and Verifying Concurrent Objects" (1993); Lowe, "Testing for Linearizability" (2017). Keys are
independent, so a history is checked key by key (Herlihy and Wing 1990: linearizability is local).

The search places the operations of a key one after the other. Only what was called before the earliest return among the
rest may come next. Four rules keep it short; with each of them an order is found if and only if there is one:

1. *An unknown write comes just in time*: right before a definite operation whose answer would not fit without it. For
   take any legal order. If an unknown put or delete is followed by a write that observes nothing, or by nothing, leave
   it out: nobody saw it, the value after the next operation is the same, and it need not have taken effect. (An unknown
   delete observes nothing either, for nobody was told what it found.) If the answer of what follows fits without it,
   leave it out, too. Each time the order gets shorter, and where that ends the rule holds.
2. *Of the unknown writes of one value the earliest called is placed first.* They never return, so two of them can
   change places: the earlier may stand wherever the later may, and the later anywhere after that.
3. *What sees the present value and leaves it comes at once*: a get of it, or a delete that found nothing where nothing
   is. Taken from its place in a legal order to the front it changes nothing in either place.
4. *A value is not left while a get of it is not placed*, unless a write of it is not placed either: no legal order
   begins like that. (Swaps that are to find it are not looked at here.)

A configuration is the first definite operation not placed, a mask of the placed ones after it, the value and the placed
unknown ones. Each is visited once, and not at all if it was visited with fewer unknown ones placed. Values that nobody
saw are one value. So its size depends on how many operations run at once, not on the length of the history. A swap of
unknown outcome is taken for an unknown put: that it had a condition is not asked of it.
"""

from collections.abc import Iterator, Sequence
from enum import Enum

import msgspec

FOREVER = 1 << 62
"""The return time of an operation whose outcome is unknown: it may take effect at any later moment, or never."""
MAX_STEPS = 2_000_000
"""How many placements are tried for a key before it is given up. Steps and not seconds: the verdict on a history is the
same on every machine."""

ABSENT = 0
UNSEEN = 1
"""Every value that no get saw."""
PRESENT = -1
"""What a delete saw that found something."""
ANYTHING = -2
"""What an operation saw that tells nothing."""


class Operation(msgspec.Struct, frozen=True):
    """One call. `kind` is put, delete, get or swap, a put on a condition that held. `value`: what was put, or what get
    saw (None: absent). `found`: what delete said, None when unknown. `called` and `returned` are instants of one clock.
    `expected`: what swap was to find (None: absent)."""

    kind: str
    key: bytes
    value: bytes | None
    called: int
    returned: int
    found: bool | None = None
    expected: bytes | None = None


class Verdict(Enum):
    """Unverified is not passed: the search gave up."""

    LINEARIZABLE = "linearizable"
    ILLEGAL = "illegal"
    UNVERIFIED = "unverified"


def check(history: Sequence[Operation], max_steps: int = MAX_STEPS) -> tuple[Verdict, bytes | None]:
    """The worst verdict over all keys, illegal before unverified, and the first key that has it (None: all are
    linearizable)."""
    found = verdicts(history, max_steps)
    for verdict in (Verdict.ILLEGAL, Verdict.UNVERIFIED):
        for key in found:
            if found[key] is verdict:
                return verdict, key
    return Verdict.LINEARIZABLE, None


def verdicts(history: Sequence[Operation], max_steps: int = MAX_STEPS) -> dict[bytes, Verdict]:
    """The verdict on each key, in the order of the keys. `max_steps` is for each key."""
    keys: dict[bytes, list[Operation]] = {}
    for operation in history:
        keys.setdefault(operation.key, []).append(operation)
    return {key: check_key(operations, max_steps) for key, operations in sorted(keys.items())}


def check_key(operations: Sequence[Operation], max_steps: int = MAX_STEPS) -> Verdict:
    """Search for an order of the operations of one key that respects real time and explains every answer.

    First with unknown writes that may come again and again, where several leave one value: which of them are placed
    then makes no difference, and where even that finds no order there is none.
    """
    verdict = _search(_Search(operations, again=True), max_steps)
    return verdict if verdict is not Verdict.LINEARIZABLE else _search(_Search(operations, again=False), max_steps)


def _search(search: "_Search", max_steps: int) -> Verdict:
    stack, steps = [_Configuration(0, 0, ABSENT, 0)], 0
    visited: dict[tuple[int, int, int], list[int]] = {}
    while stack:
        configurations = stack.pop()
        if configurations.first == len(search.definite):
            return Verdict.LINEARIZABLE
        used = visited.setdefault((configurations.first, configurations.mask, configurations.value), [])
        if any(fewer & configurations.used == fewer for fewer in used):
            continue  # whatever explains the rest from here explained it with more to choose from
        used.append(configurations.used)
        following = search.following(configurations)
        steps += 1 + len(following)
        if steps > max_steps:
            return Verdict.UNVERIFIED
        stack.extend(reversed(following))
    return Verdict.ILLEGAL


class _Step(msgspec.Struct, frozen=True):
    """An operation as the search sees it: values are small numbers."""

    called: int
    returned: int
    sees: int
    leaves: int


class _Configuration(msgspec.Struct, frozen=True):
    """What is placed: the definite operations below `first` and those whose bit, counted from `first`, is in `mask`
    (bit 0 is not); the unknown ones whose bit is in `used`. `value` is what they left."""

    first: int
    mask: int
    value: int
    used: int

    def placed(self, index: int) -> bool:
        """Whether this definite operation is."""
        return index < self.first or bool(self.mask >> index - self.first & 1)


class _Search:
    """The operations of one key, each kind in the order of calls."""

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
        """The configurations that one more definite operation can lead to, or one of them that is as good as all."""
        candidates, horizon = self._candidates(before)
        for index in candidates:
            if self.definite[index].sees == self.definite[index].leaves == before.value:
                return [_place(before, index, before.value, before.used)]
        following, dear = [], []
        for index in candidates:
            step = self.definite[index]
            if step.sees in {before.value, ANYTHING} or (step.sees == PRESENT and before.value != ABSENT):
                following.append(_place(before, index, step.leaves, before.used))
            else:
                dear += [
                    _place(before, index, step.leaves, before.used | self._bits[unknown])
                    for unknown in self._explanations(before, step, horizon)
                ]
        return [after for after in following + dear if not self._dooms(before, after)]

    def _candidates(self, configurations: _Configuration) -> tuple[list[int], int]:
        """The definite operations that may come next, and the earliest return among all that are not placed."""
        candidates: list[int] = []
        horizon = FOREVER
        free = ~configurations.mask
        while True:
            low = free & -free
            index = configurations.first + low.bit_length() - 1
            if index >= len(self.definite) or self.definite[index].called > horizon:
                return candidates, horizon
            candidates.append(index)
            horizon = min(horizon, self.definite[index].returned)
            free ^= low

    def _explanations(self, configurations: _Configuration, step: _Step, horizon: int) -> Iterator[int]:
        """The unknown writes worth placing before `step`, whose answer does not fit the value there is."""
        if step.sees != PRESENT:
            yield from self._spare(configurations, step.sees, horizon)
            return
        dear = []
        for value in range(UNSEEN, len(self._spares)):
            for unknown in self._spare(configurations, value, horizon):
                if not self._awaited(configurations, value):
                    yield unknown  # nobody is to see its value any more: there is no better use for it
                    return
                dear.append(unknown)
        yield from dear

    def _spare(self, configurations: _Configuration, value: int, horizon: int) -> Iterator[int]:
        """The first unknown write of `value` that is not placed, if it may be placed now."""
        for unknown in self._spares[value]:
            if not configurations.used >> unknown & 1:
                if self._unknown[unknown].called <= horizon:
                    yield unknown
                return

    def _dooms(self, before: _Configuration, after: _Configuration) -> bool:
        """Whether this step leaves a value that is still to be seen, and that nobody is left to write (rule 4)."""
        value = before.value
        if after.value == value or not self._awaited(after, value):
            return False
        return all(map(after.placed, self._writers[value])) and all(
            after.used >> unknown & 1 for unknown in self._spares[value]
        )

    def _awaited(self, configurations: _Configuration, value: int) -> bool:
        for index in reversed(self._viewers[value]):
            if not configurations.placed(index):
                return True
            if index < configurations.first:
                break
        return False


def _steps(operations: Sequence[Operation], numbers: dict[bytes | None, int]) -> list[_Step]:
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
        steps.append(_Step(each.called, each.returned, sees, leaves))
    return steps


def _place(before: _Configuration, index: int, value: int, used: int) -> _Configuration:
    mask = before.mask | 1 << index - before.first
    ones = (~mask & mask + 1).bit_length() - 1
    return _Configuration(before.first + ones, mask >> ones, value, used)
