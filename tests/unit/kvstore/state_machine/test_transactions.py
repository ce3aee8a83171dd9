"""Many keys at once: conditions, order, one revision."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.commands import (
    Compare,
    Delete,
    DeleteResult,
    DeleteSpan,
    DeleteSpanResult,
    Get,
    KeyState,
    List,
    ListedKeys,
    NotFound,
    Operation,
    Put,
    PutResult,
    Record,
    Relation,
    Target,
    TooManyKeys,
    Transact,
    TransactResult,
)
from kvstore.api.key_range import EVERY_KEY, Span, starting_with
from kvstore.state_machine import transactions
from kvstore.state_machine.quota import growth_of
from kvstore.state_machine.view import complete
from storage.base import first_of
from tests.simulation.steps import short_steps
from tests.unit.kvstore.state_machine.commanded import CommandedStore


def always(*then: Operation) -> Transact:
    return Transact([], list(then), [])


def test_all_operations_are_done_in_order_in_one_revision() -> None:
    store = CommandedStore(Put(b"a", b"1"), Put(b"b", b"2"))
    result = store.do(always(Put(b"c", b"3"), Get(b"c"), Delete(b"a"), Get(b"a"), Put(b"c", b"4"), Delete(b"x")))
    assert result == TransactResult(
        True,
        3,
        [
            PutResult(3, 1),
            KeyState(b"c", Record(b"3", 3, 3, 1, 0)),
            DeleteResult(3, 1, 1),
            KeyState(b"a", None),
            PutResult(3, 2),
            NotFound(3),
        ],
    )
    assert store.content == {b"b": b"2", b"c": b"4"}
    assert [change.position for change in store.machine.changes[2:]] == [first_of(3) + number for number in (0, 1, 2)]
    assert store.machine.changes[-1].supersedes == first_of(3)
    assert store.do(Put(b"d", b"5")) == PutResult(4, 1)


def test_what_changes_nothing_has_no_revision() -> None:
    store = CommandedStore(Put(b"a", b"1"))
    assert store.do(always(Get(b"a"), Delete(b"x"))) == TransactResult(
        True, 1, [KeyState(b"a", Record(b"1", 1, 1, 1)), NotFound(1)]
    )
    assert store.do(DeleteSpan(starting_with(b"x"))) == DeleteSpanResult(1, 0)
    assert store.machine.revision == 1


def test_without_its_conditions_the_other_branch_is_done() -> None:
    store = CommandedStore(Put(b"a", b"1"))
    command = Transact(
        [Compare(b"a", Target.VALUE, Relation.EQUAL, b"1"), Compare(b"b", Target.EXISTS, Relation.EQUAL, 1)],
        [Put(b"c", b"then")],
        [Put(b"c", b"else")],
    )
    assert store.do(command) == TransactResult(False, 2, [PutResult(2, 1)])
    assert store.content[b"c"] == b"else"


def test_transactions_nest_and_share_the_revision() -> None:
    inner = Transact([Compare(b"a", Target.VERSION, Relation.EQUAL, 2)], [Put(b"b", b"deep")], [Put(b"b", b"shallow")])
    store = CommandedStore(Put(b"a", b"1"))
    result = store.do(always(Put(b"a", b"2"), inner, DeleteSpan(starting_with(b"b")), List(EVERY_KEY, 5)))
    listed = ListedKeys([KeyState(b"a", Record(b"2", 2, 1, 2, 0))], more=False)
    assert result == TransactResult(
        True, 2, [PutResult(2, 2), TransactResult(True, 2, [PutResult(2, 1)]), DeleteSpanResult(2, 1), listed]
    )


RECORD = CommandedStore(Put(b"k", b"old"), Put(b"k", b"m"), Put(b"x", b""))
"""`k` has value m, version 2, revision 2, create revision 1."""


CONDITIONS: list[tuple[str, str, int | bytes, bool, bool]] = [
    ("exists", "eq", 1, True, False),
    ("exists", "eq", 0, False, True),
    ("value", "eq", b"m", True, False),
    ("value", "eq", b"old", False, False),
    ("value", "ne", b"old", True, True),
    ("value", "ne", b"m", False, True),
    ("value", "lt", b"n", True, False),
    ("value", "lt", b"m", False, False),
    ("value", "gt", b"", True, False),
    ("version", "eq", 2, True, False),
    ("version", "eq", 0, False, True),
    ("version", "gt", 1, True, False),
    ("version", "gt", 2, False, False),
    ("revision", "eq", 2, True, False),
    ("revision", "lt", 2, False, True),
    ("revision", "ne", 2, False, True),
    ("create_revision", "eq", 1, True, False),
    ("create_revision", "lt", 1, False, True),
    ("create_revision", "eq", 2, False, False),
    ("value", "eq", 3, False, False),
    ("value", "ne", 3, False, True),
    ("version", "lt", b"z", False, False),
]


def test_a_condition_on_a_key(subtests: pytest.Subtests) -> None:
    for target, relation, operand, there, absent in CONDITIONS:
        with subtests.test(target=target, relation=relation, operand=operand):
            for key, expected in ((b"k", there), (b"none", absent)):
                compare = Compare(key, Target(target), Relation(relation), operand)
                assert complete(transactions.holds(compare, RECORD.machine)) is expected


@pytest.mark.parametrize(
    ("span", "target", "relation", "operand", "expected"),
    [
        (EVERY_KEY, "version", "gt", 0, True),
        (EVERY_KEY, "version", "gt", 1, False),
        (Span(b"a", b"k"), "version", "gt", 9, True),
        (Span(b"a", b"k"), "exists", "eq", 0, True),
        (Span(b"a", b"k\0"), "exists", "eq", 1, True),
        (starting_with(b"x"), "exists", "eq", 0, False),
    ],
)
def test_a_condition_on_a_span_is_one_on_each_key_that_is_there(
    span: Span, target: str, relation: str, operand: int, expected: bool
) -> None:
    compare = Compare(span, Target(target), Relation(relation), operand)
    assert complete(transactions.holds(compare, RECORD.machine)) is expected


def test_a_list_ends_at_its_limit_and_says_whether_there_is_more() -> None:
    store = CommandedStore(*[Put(b"k%d" % number, b"") for number in (3, 1, 2)])
    for limit, more in ((2, True), (3, False)):
        result = store.do(always(List(starting_with(b"k"), limit)))
        assert isinstance(result, TransactResult)
        (listed,) = result.results
        assert isinstance(listed, ListedKeys)
        assert [found.key for found in listed.found] == [b"k1", b"k2", b"k3"][:limit]
        assert listed.more is more


def test_too_many_keys_are_refused_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at or deleted, in whichever branch."""
    monkeypatch.setattr(transactions, "MAX_KEYS", 3)
    store = CommandedStore(*[Put(b"k%d" % number, b"") for number in range(4)])
    half = DeleteSpan(Span(b"k0", b"k2"))
    for command in (
        DeleteSpan(EVERY_KEY),
        always(Put(b"a", b""), DeleteSpan(EVERY_KEY)),
        always(List(EVERY_KEY, 4)),
        always(always(half), half),
        Transact([], [half], [half]),
        Transact([Compare(EVERY_KEY, Target.VERSION, Relation.EQUAL, 1)], [], []),
    ):
        assert store.do(command) == TooManyKeys()
    exists = Compare(EVERY_KEY, Target.EXISTS, Relation.EQUAL, 1)
    assert store.do(Transact([exists], [half, Delete(b"k2"), List(EVERY_KEY, 1)], [])) == TransactResult(
        True,
        5,
        [
            DeleteSpanResult(5, 2),
            DeleteResult(5, 1, 3),
            ListedKeys([KeyState(b"k3", Record(b"", 4, 4, 1))], more=False),
        ],
    )
    assert store.content == {b"k3": b""}


def test_how_much_the_state_may_grow_by() -> None:
    store = CommandedStore(Put(b"a", bytes(10)))
    size = store.machine.size_bytes
    grows = Put(b"b", bytes(5))
    command = Transact([], [Put(b"a", b""), grows, Delete(b"a")], [Put(b"a", bytes(12))])
    assert growth_of(command, store.machine) == growth_of(grows, store.machine)
    store.do(always(grows))
    assert store.machine.size_bytes == size + growth_of(Put(b"c", bytes(5)), store.machine)
    assert growth_of(always(Get(b"a"), DeleteSpan(EVERY_KEY)), store.machine) == 0


@pytest.mark.parametrize(
    ("prefix", "span"),
    [
        (b"", EVERY_KEY),
        (b"a", Span(b"a", b"b")),
        (b"a\xff", Span(b"a\xff", b"b")),
        (b"\xff\xff", Span(b"\xff\xff", None)),
        (b"a\xfe", Span(b"a\xfe", b"a\xff")),
    ],
)
def test_a_prefix_is_a_span(prefix: bytes, span: Span) -> None:
    assert starting_with(prefix) == span


short = st.sampled_from([b"", b"a", b"b", b"\xff", b"ab", b"a\xff", b"a\xffb", b"\xff\xff", b"b\0"])


@given(prefix=short, keys=st.sets(short))
def test_the_span_of_a_prefix_has_the_keys_that_begin_with_it(prefix: bytes, keys: set[bytes]) -> None:
    store = CommandedStore(*[Put(key, b"") for key in sorted(keys)])
    expected = sorted(key for key in keys if key.startswith(prefix))
    assert list(store.machine.keys(starting_with(prefix))) == expected


keys = st.sampled_from([b"a", b"b", b"c", b"d"])
spans = st.builds(Span, keys, st.none() | keys)
operations: st.SearchStrategy[Operation] = st.recursive(
    st.one_of(
        st.builds(Put, keys, st.binary(max_size=3)),
        st.builds(Delete, keys),
        st.builds(DeleteSpan, spans),
        st.builds(Get, keys),
        st.builds(List, spans, st.integers(1, 3)),
    ),
    lambda inner: st.builds(
        Transact,
        st.lists(
            st.builds(Compare, keys | spans, st.just(Target.VERSION), st.sampled_from(Relation), st.integers(0, 2)),
            max_size=2,
        ),
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3),
    ),
    max_leaves=8,
)


@given(commands=st.lists(st.lists(operations, max_size=4), max_size=6))
def test_the_changes_give_the_same_state_again(commands: Sequence[list[Operation]]) -> None:
    """Rule 6: what is stored of a transaction is all that it did, its positions follow each other, and the keys stay in
    order."""
    store = CommandedStore()
    for each in commands:
        before = store.machine.revision
        store.do(Transact([], each, []))
        assert store.machine.revision <= before + 1
        assert store.keys == sorted(store.machine.records)
    loaded = store.loaded()
    assert loaded.records == store.machine.records
    assert (loaded.digest, loaded.size_bytes, loaded.position) == (
        store.machine.digest,
        store.machine.size_bytes,
        store.machine.position,
    )
    assert list(loaded.keys(EVERY_KEY)) == sorted(loaded.records)


def test_a_deletion_with_a_limit_takes_the_first_keys_and_says_whether_there_are_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactions, "MAX_KEYS", 3)
    store = CommandedStore(*[Put(b"k%d" % number, b"") for number in range(5)])
    assert store.do(DeleteSpan(EVERY_KEY)) == TooManyKeys()
    assert store.do(DeleteSpan(EVERY_KEY, 3)) == DeleteSpanResult(6, 3, more=True)
    assert store.keys == [b"k3", b"k4"]
    assert store.do(DeleteSpan(EVERY_KEY, 2)) == DeleteSpanResult(7, 2, more=False)
    assert store.do(DeleteSpan(EVERY_KEY, 2)) == DeleteSpanResult(7, 0, more=False)


def test_keys_that_only_the_history_has_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "MAX_KEYS", 1)
    store = CommandedStore(Put(b"a", b""), Put(b"b", b""), Delete(b"a"))
    assert store.machine.most_keys(EVERY_KEY) == 2
    assert store.do(DeleteSpan(EVERY_KEY)) == DeleteSpanResult(4, 1)


@given(st.sampled_from([1, 2, 500]), st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=6))
def test_rule_21_the_length_of_the_steps_changes_nothing(records: int, keys: list[bytes]) -> None:
    command = always(*[Put(key, b"1") for key in keys], DeleteSpan(Span(b"b", None)), *[Delete(key) for key in keys])
    whole = CommandedStore(*[Put(key, b"0") for key in keys], command)
    with short_steps(records):
        stepped = CommandedStore(*[Put(key, b"0") for key in keys], command)
    assert stepped.machine.changes == whole.machine.changes
    assert stepped.machine.digest == whole.machine.digest
    assert (stepped.machine.size_bytes, stepped.machine.superseded_bytes) == (
        whole.machine.size_bytes,
        whole.machine.superseded_bytes,
    )
