"""Is a history of one key linearizable? Wing and Gong's search with Lowe's memory of configurations.

Wing and Gong, "Testing and Verifying Concurrent Objects" (1993); Lowe, "Testing for Linearizability" (2017). Keys are
independent, so a history is checked key by key (Herlihy and Wing: linearizability is local).
"""

from collections.abc import Sequence
from enum import Enum

import msgspec

FOREVER = 1 << 62
"""The return time of an operation whose outcome is unknown: it may take effect at any later moment, or never."""


class Operation(msgspec.Struct, frozen=True):
    """One call. `kind` is put, delete or get. `value`: what was put, or what get saw (None: absent). `found`: what
    delete said, None when unknown. `called` and `returned` are instants of one clock."""

    kind: str
    key: bytes
    value: bytes | None
    called: int
    returned: int
    found: bool | None = None


class Verdict(Enum):
    """Unverified is not passed: the search gave up."""

    LINEARIZABLE = "linearizable"
    ILLEGAL = "illegal"
    UNVERIFIED = "unverified"


def check(history: Sequence[Operation], max_steps: int = 2_000_000) -> tuple[Verdict, bytes | None]:
    """The verdict over all keys, and the first key that is not linearizable or was given up."""
    keys: dict[bytes, list[Operation]] = {}
    for operation in history:
        if operation.kind != "get" or operation.returned != FOREVER:
            keys.setdefault(operation.key, []).append(operation)
    worst: tuple[Verdict, bytes | None] = (Verdict.LINEARIZABLE, None)
    for key, operations in sorted(keys.items()):
        verdict = check_key(operations, max_steps)
        if verdict is Verdict.ILLEGAL:
            return verdict, key
        if verdict is Verdict.UNVERIFIED:
            worst = (verdict, key)
    return worst


def check_key(operations: Sequence[Operation], max_steps: int) -> Verdict:
    """Search for an order of the operations of one key that respects real time and explains every answer.

    The operations that may come next are those called before the earliest return among the rest. A configuration is the
    set of operations already placed, and the value they left; each is visited once.
    """
    ordered = sorted(operations, key=lambda operation: operation.called)
    all_done = (1 << len(ordered)) - 1
    must = sum(1 << index for index, operation in enumerate(ordered) if operation.returned != FOREVER)
    seen: set[tuple[int, bytes | None]] = {(0, None)}
    stack: list[tuple[int, bytes | None, int]] = [(0, None, 0)]
    steps = 0
    while stack:
        done, value, first = stack.pop()
        if done & must == must:
            return Verdict.LINEARIZABLE
        while done >> first & 1:
            first += 1
        horizon = FOREVER + 1
        for index in range(first, len(ordered)):
            operation = ordered[index]
            if done >> index & 1:
                continue
            if operation.called > horizon:
                break
            horizon = min(horizon, operation.returned)
            steps += 1
            legal, after = apply(operation, value)
            following = (done | 1 << index, after)
            if legal and following not in seen:
                seen.add(following)
                stack.append((*following, first))
        if steps > max_steps:
            return Verdict.UNVERIFIED
    return Verdict.ILLEGAL if all_done else Verdict.LINEARIZABLE


def apply(operation: Operation, value: bytes | None) -> tuple[bool, bytes | None]:
    """Whether the answer of `operation` fits a key that holds `value`, and what the key holds afterwards."""
    if operation.kind == "put":
        return True, operation.value
    if operation.kind == "delete":
        return operation.found is None or operation.found == (value is not None), None
    return operation.value == value, value
