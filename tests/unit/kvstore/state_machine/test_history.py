from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.commands import Command, CommandBatch, Delete, Put, Record, Transact
from kvstore.api.key_range import EVERY_KEY, Span
from kvstore.api.queries import Lookup, Scan
from kvstore.api.results import ReadAnswer, RevisionUnavailable, ScanAnswer
from kvstore.state_machine.history import History
from kvstore.state_machine.reads import look_up
from kvstore.state_machine.state_machine import StateMachine
from storage.base import end_of, first_of


def machine_of(*commands: Command) -> StateMachine:
    machine = StateMachine([])
    machine.apply(CommandBatch("n1", 1, 1, 1, list(commands)), 1)
    return machine


COMMANDS = (Put(b"a", b"1"), Put(b"b", b"2"), Put(b"a", b"3"), Delete(b"b"), Delete(b"a"), Put(b"a", b"6"))


def value(machine: StateMachine, key: bytes, revision: int) -> bytes | None:
    answer = look_up(Lookup(key, revision), machine, 1, None)
    assert isinstance(answer, ReadAnswer)
    assert answer.revision == revision
    return answer.record.value if answer.record is not None else None


def test_a_key_is_told_as_of_each_revision() -> None:
    machine = machine_of(*COMMANDS)
    assert [value(machine, b"a", revision) for revision in range(7)] == [None, b"1", b"1", b"3", b"3", None, b"6"]
    assert [value(machine, b"b", revision) for revision in range(7)] == [None, None, b"2", b"2", None, None, None]
    assert [value(machine, b"c", revision) for revision in range(7)] == [None] * 7


def test_a_key_that_changes_often_is_told_as_of_each_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.state_machine.history.FEW", 3)
    machine = machine_of(*[Put(b"ab"[number % 7 == 0 :][:1], b"%d" % number) for number in range(1, 40)])
    expected = None
    for number in range(1, 40):
        expected = b"%d" % number if number % 7 else expected
        assert value(machine, b"a", number) == expected
    assert [value(machine, b"b", number) for number in (6, 7, 13, 14, 39)] == [None, b"7", b"7", b"14", b"35"]


def test_what_is_compacted_or_was_not_reached_is_not_told() -> None:
    machine = machine_of(*COMMANDS)
    machine.forget(first_of(3))
    machine.forget(first_of(2))
    for query in (Lookup(b"a", 2), Lookup(b"a", 7), Scan(EVERY_KEY, 9, revision=2), Scan(EVERY_KEY, 9, revision=7)):
        assert look_up(query, machine, 1, None) == RevisionUnavailable(3, 6)
    assert [value(machine, b"a", revision) for revision in (3, 4, 5, 6)] == [b"3", b"3", None, b"6"]
    assert value(machine, b"b", 3) == b"2"


def scan(machine: StateMachine, query: Scan) -> tuple[list[bytes], bool]:
    answer = look_up(query, machine, 7, 1.5)
    assert isinstance(answer, ScanAnswer)
    assert (answer.applied, answer.age_ms) == (7, 1.5)
    return [found.key for found in answer.found], answer.more


def test_keys_are_listed_in_either_order_within_their_span() -> None:
    machine = machine_of(*[Put(key, b"") for key in (b"c", b"a", b"d", b"b")])
    assert scan(machine, Scan(EVERY_KEY, 9)) == ([b"a", b"b", b"c", b"d"], False)
    assert scan(machine, Scan(Span(b"b", b"d"), 9)) == ([b"b", b"c"], False)
    assert scan(machine, Scan(EVERY_KEY, 3)) == ([b"a", b"b", b"c"], True)
    assert scan(machine, Scan(EVERY_KEY, 2, reverse=True)) == ([b"d", b"c"], True)
    assert scan(machine, Scan(Span(b"x", None), 2)) == ([], False)


def test_a_list_ends_where_it_becomes_too_long_after_one_key_at_least() -> None:
    machine = machine_of(Put(b"a", bytes(30)), Put(b"b", bytes(4)), Put(b"c", bytes(4)), Put(b"d", b""))
    assert scan(machine, Scan(EVERY_KEY, 9, max_bytes=10)) == ([b"a"], True)
    assert scan(machine, Scan(Span(b"b", None), 9, max_bytes=10)) == ([b"b", b"c"], True)


def test_the_past_is_forgotten_whole() -> None:
    history = History()
    for number in range(1, 1001):
        history.add(first_of(number), b"k%d" % (number % 3), None, None)
        assert history.compact(first_of(number - 5)) == []
        assert len(history._changes) <= 12
    assert [event.revision for event in history.after(0)] == [996, 997, 998, 999, 1000]
    assert [event.revision for event in history.after(first_of(998))] == [999, 1000]
    assert sorted(history.compact(first_of(1000))) == [b"k0", b"k1", b"k2"]
    assert (list(history.after(0)), list(history.keys())) == ([], [])


keys = st.sampled_from([b"a", b"b", b"c", b"d"])
changes: st.SearchStrategy[Command] = st.one_of(
    st.builds(Put, keys, st.binary(max_size=2)),
    st.builds(Delete, keys),
    st.builds(Transact, st.just([]), st.lists(st.builds(Put, keys, st.binary(max_size=2)), max_size=3), st.just([])),
)


@given(commands=st.lists(changes, max_size=20), forget=st.lists(st.integers(0, 20), max_size=3), reload=st.booleans())
def test_every_revision_that_is_kept_is_what_it_was(
    commands: Sequence[Command], forget: Sequence[int], reload: bool
) -> None:
    """Also after the state was loaded from what was stored."""
    machine = StateMachine([])
    states: list[dict[bytes, Record]] = [{}]
    for number, command in enumerate(commands, 1):
        machine.apply(CommandBatch("n1", 1, number, number, [command]), number)
        del states[machine.revision :]
        states.append(dict(machine.records))
        if number in forget:
            machine.forget(first_of(machine.revision - 1))
    if reload:
        stored, oldest = machine.changes, machine.history.compacted
        machine = StateMachine([])
        machine.forget(oldest)
        for change in stored:
            machine.load(change)
        machine.sort()
    oldest = machine.history.compacted >> 20
    for revision in range(oldest, machine.revision + 1):
        assert {key: record for key, record in machine.as_of(EVERY_KEY, revision) if record} == states[revision]
        assert end_of(revision) >= machine.history.compacted
    assert list(machine.keys(EVERY_KEY)) == sorted(machine.records)
    machine.forget(machine.position)
    assert list(machine._in_order()) == sorted(machine.records)
