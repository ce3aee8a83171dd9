from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.commands import Command, CommandBatch, Delete, DeleteResult, NotFound, Put, PutResult, Record, Result
from kvstore.state_machine.state_machine import StateMachine


def apply(
    machine: StateMachine, *commands: Command, sequence: int = 1, boot: int = 1, settled_below: int = 1
) -> object:
    return machine.apply(CommandBatch("n1", boot, sequence, settled_below, list(commands)), 1)


def test_a_put_creates_then_replaces_and_counts_revisions_and_versions() -> None:
    machine = StateMachine([])
    assert apply(machine, Put(b"k", b"a"), Put(b"other", b"x"), Put(b"k", b"b")) == [
        PutResult(1, 1),
        PutResult(2, 1),
        PutResult(3, 2),
    ]
    assert machine.get(b"k") == Record(b"b", revision=3, create_revision=1, version=2)
    assert machine.revision == 3


def test_a_delete_tells_what_was_deleted_and_a_later_put_creates_anew() -> None:
    machine = StateMachine([])
    results = apply(machine, Put(b"k", b"a"), Put(b"k", b"b"), Delete(b"k"), Put(b"k", b"c"))
    assert results == [
        PutResult(1, 1),
        PutResult(2, 2),
        DeleteResult(3, version=2, deleted_revision=2),
        PutResult(4, 1),
    ]
    assert machine.get(b"k") == Record(b"c", revision=4, create_revision=4, version=1)


def test_a_delete_of_an_absent_key_changes_nothing() -> None:
    machine = StateMachine([])
    assert apply(machine, Put(b"other", b"x"), Delete(b"k")) == [PutResult(1, 1), NotFound(1)]
    assert machine.revision == 1
    assert machine.get(b"k") is None


def test_rule_22_a_batch_that_is_ordered_twice_is_applied_once() -> None:
    machine = StateMachine([])
    assert apply(machine, Put(b"k", b"a")) == [PutResult(1, 1)]
    assert apply(machine, Put(b"k", b"a")) is None
    assert machine.revision == 1


def test_rule_22_batches_are_applied_in_any_order_each_once() -> None:
    machine = StateMachine([])
    assert apply(machine, Put(b"k", b"b"), sequence=2) == [PutResult(1, 1)]
    assert apply(machine, Put(b"k", b"a"), sequence=1) == [PutResult(2, 2)]
    assert apply(machine, Put(b"k", b"b"), sequence=2) is None
    assert apply(machine, Put(b"k", b"c"), sequence=3) == [PutResult(3, 3)]


def test_rule_22_what_the_origin_has_settled_is_never_applied_again() -> None:
    """CommandBatch 1 was given up by its origin, which then said so in batch 2: a late copy of 1 has no effect."""
    machine = StateMachine([])
    assert apply(machine, Put(b"k", b"b"), sequence=2, settled_below=2) == [PutResult(1, 1)]
    assert apply(machine, Put(b"k", b"a"), sequence=1) is None
    assert apply(machine, Put(b"k", b"b"), sequence=2, settled_below=2) is None


def test_rule_22_a_batch_from_an_earlier_life_of_its_origin_is_not_applied() -> None:
    machine = StateMachine([])
    assert apply(machine, Put(b"k", b"old"), boot=1, sequence=7) == [PutResult(1, 1)]
    assert apply(machine, Put(b"k", b"new"), boot=2, sequence=1) == [PutResult(2, 2)]
    assert apply(machine, Put(b"k", b"old"), boot=1, sequence=8) is None
    assert machine.revision == 2


def test_rule_22_origins_do_not_share_their_numbers() -> None:
    machine = StateMachine([])
    for number, origin in enumerate(("n1", "n2"), 1):
        assert machine.apply(CommandBatch(origin, 1, 1, 1, [Put(b"k", b"a")]), 1) == [PutResult(number, number)]


def test_what_is_settled_takes_no_memory() -> None:
    machine = StateMachine([])
    for sequence in range(1, 1000):
        apply(machine, sequence=sequence, settled_below=max(1, sequence - 3))
    assert len(machine.request_ids.origins["n1"].applied) <= 4


commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Put, st.sampled_from([b"a", b"b"]), st.binary(max_size=3)),
    st.builds(Delete, st.sampled_from([b"a", b"b"])),
)
orders = st.lists(
    st.builds(
        lambda origin, boot, sequence, behind, ordered: CommandBatch(
            origin, boot, sequence, max(1, sequence - behind), ordered
        ),
        st.sampled_from(["n1", "n2"]),
        st.integers(1, 2),
        st.integers(1, 6),
        st.integers(0, 6),
        st.lists(commands, max_size=3),
    )
)


@given(orders)
def test_rule_21_the_same_order_gives_the_same_state_and_the_same_answers(batches: list[CommandBatch]) -> None:
    first, second = StateMachine([]), StateMachine([])
    answers: list[list[list[Result] | None]] = [
        [machine.apply(one, 1) for one in batches] for machine in (first, second)
    ]
    assert answers[0] == answers[1]
    assert (first.records, first.revision) == (second.records, second.revision)


@given(orders)
def test_rule_22_no_request_id_is_applied_twice(batches: list[CommandBatch]) -> None:
    machine = StateMachine([])
    applied = [(one.origin, one.boot, one.sequence) for one in batches if machine.apply(one, 1) is not None]
    assert len(applied) == len(set(applied))
