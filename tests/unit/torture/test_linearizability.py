from collections.abc import Callable, Sequence
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.torture.linearizability import FOREVER, Operation, Verdict, check, check_key, verdicts

K = b"k"


def put(value: bytes, called: int, returned: int = FOREVER) -> Operation:
    return Operation("put", K, value, called, returned)


def get(value: bytes | None, called: int, returned: int = FOREVER) -> Operation:
    return Operation("get", K, value, called, returned)


def delete(found: bool | None, called: int, returned: int = FOREVER) -> Operation:
    return Operation("delete", K, None, called, returned, found)


LEGAL: dict[str, list[Operation]] = {
    "nothing happened": [],
    "only unknown": [put(b"a", 0), delete(None, 1), get(None, 2)],
    "one after the other": [get(None, 0, 1), put(b"a", 2, 3), get(b"a", 4, 5), delete(True, 6, 7), get(None, 8, 9)],
    "nothing to delete": [delete(False, 0, 1), put(b"a", 2, 3), delete(True, 4, 5), delete(False, 6, 7)],
    "seen before its put returns": [put(b"a", 0, 9), get(b"a", 1, 2), get(b"a", 3, 4)],
    "not yet seen while its put runs": [put(b"a", 0, 9), get(None, 1, 2), get(b"a", 3, 4)],
    "concurrent puts, the first called last": [put(b"a", 0, 9), put(b"b", 1, 8), get(b"b", 2, 3), get(b"a", 4, 5)],
    "reads that overlap disagree": [put(b"a", 0, 1), put(b"b", 2, 9), get(b"b", 3, 8), get(b"a", 4, 7)],
    "unknown put that never takes effect": [put(b"a", 0), get(None, 1, 2), get(None, 3, 4)],
    "unknown put that takes effect late": [
        put(b"a", 0),
        get(None, 1, 2),
        put(b"b", 3, 4),
        get(b"b", 5, 6),
        get(b"a", 7, 8),
    ],
    "unknown delete that never takes effect": [put(b"a", 0, 1), delete(None, 2), get(b"a", 3, 4)],
    "unknown delete that takes effect late": [put(b"a", 0, 1), delete(None, 2), get(b"a", 3, 4), get(None, 5, 6)],
    "unknown put that a delete found": [put(b"a", 0), delete(True, 1, 2), get(None, 3, 4)],
    "unknown delete before a delete that found nothing": [put(b"a", 0, 1), delete(None, 2), delete(False, 3, 4)],
    "two unknown puts of one value": [
        put(b"a", 0),
        put(b"a", 1),
        get(b"a", 2, 3),
        delete(True, 4, 5),
        get(None, 6, 7),
        get(b"a", 8, 9),
    ],
    "an unseen unknown put is what the delete found": [put(b"a", 0), put(b"b", 1), delete(True, 2, 3), get(b"a", 4, 5)],
    "delete of an outcome nobody noted": [put(b"a", 0, 1), delete(None, 2, 3), get(None, 4, 5)],
    "a value put twice": [put(b"a", 0, 1), put(b"b", 2, 3), put(b"a", 4, 5), get(b"a", 6, 7)],
    "one instant is at once": [put(b"a", 0, 1), put(b"b", 2, 5), get(b"a", 5, 6)],
    "keys know nothing of each other": [
        put(b"a", 0, 1),
        Operation("get", b"other", None, 2, 3),
        Operation("put", b"other", b"b", 4, 5),
        get(b"a", 6, 7),
    ],
}

ILLEGAL: dict[str, list[Operation]] = {
    "stale read": [put(b"a", 0, 1), put(b"b", 2, 3), get(b"a", 4, 5)],
    "lost update": [put(b"a", 0, 1), put(b"b", 2, 3), get(b"b", 4, 5), get(b"a", 6, 7)],
    "lost acknowledged write": [put(b"a", 0, 1), get(None, 2, 3)],
    "lost after it was seen": [put(b"a", 0), get(b"a", 1, 2), get(None, 3, 4)],
    "value never written": [put(b"a", 0, 1), get(b"b", 2, 3)],
    "value read before its put was called": [get(b"a", 0, 1), put(b"a", 2, 3)],
    "resurrected after delete": [put(b"a", 0, 1), delete(True, 2, 3), get(b"a", 4, 5)],
    "deleted, yet there": [put(b"a", 0, 1), delete(None, 2, 3), get(b"a", 4, 5)],
    "non-monotonic reads": [put(b"a", 0, 1), put(b"b", 2, 9), get(b"b", 3, 4), get(b"a", 5, 6)],
    "two readers see two orders": [
        put(b"a", 0, 1),
        put(b"b", 0, 1),
        get(b"a", 2, 3),
        get(b"b", 4, 5),
    ],
    "unknown put that takes effect twice": [
        put(b"a", 0),
        get(b"a", 1, 2),
        put(b"b", 3, 4),
        get(b"b", 5, 6),
        get(b"a", 7, 8),
    ],
    "unknown delete that takes effect twice": [
        put(b"a", 0, 1),
        delete(None, 2),
        get(None, 3, 4),
        put(b"b", 5, 6),
        get(b"b", 7, 8),
        get(None, 9, 10),
    ],
    "two unknown deletes that take effect three times": [
        delete(None, 0),
        delete(None, 0),
        *(put(b"a", 1, 2), get(None, 3, 4), put(b"a", 5, 6), get(None, 7, 8), put(b"a", 9, 10), get(None, 11, 12)),
    ],
    "unknown put takes effect before its call": [get(b"a", 0, 1), put(b"a", 2)],
    "unknown delete takes effect before its call": [put(b"a", 0, 1), get(None, 2, 3), delete(None, 4)],
    "delete found what nobody put": [delete(True, 0, 1), put(b"a", 2, 3)],
    "delete missed what is there": [put(b"a", 0, 1), delete(False, 2, 3)],
    "two deletes found one put": [put(b"a", 0, 1), delete(True, 2, 5), delete(True, 3, 4)],
    "the delete took the only unknown put": [put(b"a", 0), delete(True, 1, 2), get(b"a", 3, 4)],
    "one bad key among good ones": [
        Operation("put", b"j", b"a", 0, 1),
        put(b"a", 0, 1),
        get(None, 2, 3),
        Operation("put", b"l", b"a", 0, 1),
    ],
}


def test_a_legal_history_passes(subtests: pytest.Subtests) -> None:
    for name, history in LEGAL.items():
        with subtests.test(name):
            assert check(history) == (Verdict.LINEARIZABLE, None)


def test_an_illegal_history_fails_and_the_key_is_named(subtests: pytest.Subtests) -> None:
    for name, history in ILLEGAL.items():
        with subtests.test(name):
            assert check(history) == (Verdict.ILLEGAL, K)


def test_each_key_has_a_verdict() -> None:
    assert verdicts(ILLEGAL["one bad key among good ones"]) == {
        b"j": Verdict.LINEARIZABLE,
        K: Verdict.ILLEGAL,
        b"l": Verdict.LINEARIZABLE,
    }


def test_a_key_that_was_given_up_is_not_verified() -> None:
    history = [put(b"%d" % number, 0, 100) for number in range(6)] + [get(b"3", 101, 102)]
    assert check_key(history) is Verdict.LINEARIZABLE
    assert check_key(history, max_steps=3) is Verdict.UNVERIFIED
    assert check(history, max_steps=3) == (Verdict.UNVERIFIED, K)


def test_illegal_is_worse_than_given_up() -> None:
    hard = [put(b"%d" % number, 0, 100) for number in range(6)]
    illegal = [Operation("get", b"z", b"a", 0, 1)]
    assert verdicts([*hard, *illegal], max_steps=3) == {K: Verdict.UNVERIFIED, b"z": Verdict.ILLEGAL}
    assert check([*hard, *illegal], max_steps=3) == (Verdict.ILLEGAL, b"z")


def apply(operation: Operation, value: bytes | None) -> tuple[bool, bytes | None]:
    """The definition of a register with delete: whether the answer fits, and the value afterwards."""
    match operation.kind:
        case "put":
            return True, operation.value
        case "get":
            return operation.value == value, value
        case _:
            return operation.found in {None, value is not None}, None


def by_brute_force(rest: Sequence[Operation], value: bytes | None = None) -> bool:
    """Every order of the definite operations with every subset of the unknown ones."""
    if all(each.returned == FOREVER for each in rest):
        return True
    for number, each in enumerate(rest):
        others = [*rest[:number], *rest[number + 1 :]]
        fits, after = (True, value) if each.kind == "get" and each.returned == FOREVER else apply(each, value)
        if fits and all(each.called <= other.returned for other in others) and by_brute_force(others, after):
            return True
    return False


VALUES = st.sampled_from((b"a", b"b", b"c"))


@st.composite
def small_operations(draw: st.DrawFn) -> Operation:
    called = draw(st.integers(0, 12))
    returned = called + draw(st.integers(0, 6)) if draw(st.integers(0, 2)) else FOREVER
    match draw(st.sampled_from(("put", "put", "get", "get", "delete"))):
        case "put":
            return put(draw(VALUES), called, returned)
        case "get":
            return get(draw(st.none() | VALUES), called, returned)
        case _:
            return delete(draw(st.sampled_from((True, False, None))) if returned != FOREVER else None, called, returned)


@settings(max_examples=500, deadline=None)
@given(st.lists(small_operations(), max_size=7))
def test_every_small_history_has_the_verdict_of_brute_force(history: list[Operation]) -> None:
    assert (check(history)[0] is Verdict.LINEARIZABLE) == by_brute_force(history)


class Register:
    """A linearizable register under concurrent clients: each operation takes effect at one instant between its call and
    its return. Some are never answered; of those some take effect late, some never."""

    def __init__(self, rng: Random, *, clients: int, count: int, unknown: float, values: int) -> None:
        self._rng = rng
        self._unknown = unknown
        self._values = values
        self._value: bytes | None = None
        self.history: list[Operation] = []
        instants: list[tuple[int, Callable[[], None]]] = []
        for _ in range(clients):
            now = 0
            for _ in range(count // clients):
                called = now + rng.randrange(1, 20)
                effect, returned = sorted(rng.sample(range(called + 1, called + 60), 2))
                instants += self._operate(called, effect, returned)
                now = returned
        for _, happens in sorted(instants, key=lambda each: each[0]):
            happens()

    def _operate(self, called: int, effect: int, returned: int) -> list[tuple[int, Callable[[], None]]]:
        number = len(self.history)
        kind = self._rng.choice(("put", "put", "get", "get", "get", "delete"))
        value = b"%d" % self._rng.randrange(self._values)
        known = self._rng.random() >= self._unknown
        self.history.append(
            Operation(kind, K, value if kind == "put" else None, called, returned if known else FOREVER)
        )

        def happens() -> None:
            operation = self.history[number]
            match kind:
                case "put":
                    self._value = value
                case "get":
                    self.history[number] = msgspec.structs.replace(operation, value=self._value)
                case _:
                    found = self._value is not None if known else None
                    self.history[number] = msgspec.structs.replace(operation, found=found)
                    self._value = None

        if not known:
            if self._rng.random() < 0.4:
                return []
            effect += self._rng.choice((0, 0, 100, 5000))
        return [(effect, happens)]


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    clients=st.sampled_from((1, 4, 8)),
    unknown=st.sampled_from((0.0, 0.1, 0.3)),
    values=st.sampled_from((5, 10**9)),
)
def test_a_long_history_of_a_linearizable_register_is_verified(
    seed: int, clients: int, unknown: float, values: int
) -> None:
    register = Register(Random(seed), clients=clients, count=3000, unknown=unknown, values=values)
    assert check(register.history) == (Verdict.LINEARIZABLE, None)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), clients=st.sampled_from((1, 4, 8)))
def test_one_stale_read_in_a_long_history_is_found(seed: int, clients: int) -> None:
    rng = Random(seed)
    history = Register(rng, clients=clients, count=1500, unknown=0.1, values=10**9).history
    answered = sorted((each for each in history if each.returned != FOREVER), key=lambda each: each.called)
    stale = next(each for each in answered if each.kind == "get" and each.value is not None)
    last = max(each.returned for each in answered)
    over = [put(b"over", last + 1, last + 2), get(b"over", last + 3, last + 4)]
    assert check([*history, *over]) == (Verdict.LINEARIZABLE, None)
    assert check([*history, *over, get(stale.value, last + 5, last + 6)]) == (Verdict.ILLEGAL, K)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), clients=st.sampled_from((1, 4, 8)))
def test_a_read_of_something_else_anywhere_in_a_long_history_is_found(seed: int, clients: int) -> None:
    rng = Random(seed)
    history = Register(rng, clients=clients, count=1500, unknown=0.1, values=10**9).history
    number = rng.choice([n for n, each in enumerate(history) if each.kind == "get" and each.returned != FOREVER])
    history[number] = msgspec.structs.replace(history[number], value=b"never put")
    assert check(history) == (Verdict.ILLEGAL, K)


def swap(expected: bytes | None, value: bytes, called: int, returned: int) -> Operation:
    return Operation("swap", K, value, called, returned, expected=expected)


@pytest.mark.parametrize(
    ("history", "legal"),
    [
        ([swap(None, b"1", 0, 1), swap(b"1", b"2", 2, 3)], True),
        ([swap(b"1", b"2", 0, 5), put(b"1", 1, 2)], True),
        ([put(b"1", 0, 1), swap(b"1", b"2", 2, 9), swap(b"1", b"3", 2, 9)], False),
        ([put(b"1", 0, 1), put(b"2", 2, 3), swap(b"1", b"3", 4, 5)], False),
        ([put(b"1", 0, 1), swap(None, b"2", 2, 3)], False),
        ([put(b"1", 0, 1), put(b"2", 0, FOREVER), swap(b"2", b"3", 2, 3)], True),
        ([swap(None, b"1", 0, FOREVER), swap(b"1", b"2", 2, 3)], True),
        ([put(b"1", 0, 1), swap(b"1", b"2", 2, 3), Operation("get", K, b"1", 4, 5)], False),
    ],
)
def test_a_swap_is_done_only_on_the_value_that_it_expects(history: list[Operation], legal: bool) -> None:
    assert check_key(history) is (Verdict.LINEARIZABLE if legal else Verdict.ILLEGAL)
