"""What is applied, and that it is the same again when it is loaded."""

from collections.abc import Callable
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kvstore.api.commands import (
    Command,
    CommandBatch,
    Delete,
    NotReconfigured,
    Put,
    PutResult,
    Reconfigure,
    Reconfigured,
    pack_batch,
)
from kvstore.api.membership import MemberRole, MembershipVersion, newcomer
from kvstore.replica.applier import Applier, extend_chain, load_state, store_replayed, witness_applier
from kvstore.state_machine.view import STEP_RECORDS
from paxos.configuration import ALPHA
from paxos.types import NOOP, PValue, pack
from storage.base import CHAIN_BYTES, GENESIS, AppliedProgress, Change, DamagedError, StatePage, StateWrite, first_of
from storage.memory import MemoryStorage
from tests.unit.kvstore.memberships import genesis
from tests.unit.kvstore.replica.sources import B1, VOTERS, Source, in_slot, puts

A, B = puts(b"a", b"b")
ROSTER = genesis(VOTERS)[0].membership
GROWN = ROSTER.changed(newcomer("n4", "n4:1", MemberRole.LEARNER))


def applier(*values: bytes) -> Applier:
    made = Applier(genesis(VOTERS))
    for slot, value in enumerate(values, 1):
        made.replay(slot, value)
    return made


def again(source: Source) -> Applier:
    return load_state(source.storage, [])


# Applying


def test_rule_12_slots_are_applied_in_order_and_a_gap_is_damage() -> None:
    made = applier(NOOP)
    for slot in (1, 3):
        with pytest.raises(DamagedError, match="follows slot 1: the log has a gap"):
            made.replay(slot, NOOP)
    made.replay(2, NOOP)
    assert made.applied == 2


def test_every_batch_comes_with_what_it_gave_and_what_is_none_is_passed_over() -> None:
    batch = CommandBatch("n1.1", 1, 1, 1, [A])
    made = applier()
    value = pack([pack_batch(batch), b"garbage", pack_batch(batch)])
    assert list(made.apply(1, value)) == [(batch, [PutResult(1, 1)]), (batch, None)]
    assert made.malformed == 1


def test_rule_5_the_chain_is_a_hash_of_all_slots_in_their_order() -> None:
    first = blake2b(GENESIS + (1).to_bytes(8) + b"v", digest_size=CHAIN_BYTES).digest()
    assert extend_chain(GENESIS, 1, b"v") == first
    assert extend_chain(first, 2, b"w") == blake2b(first + (2).to_bytes(8) + b"w", digest_size=CHAIN_BYTES).digest()
    assert applier().chain == GENESIS
    assert applier(NOOP).chain == extend_chain(GENESIS, 1, NOOP)


@given(st.lists(st.binary(max_size=3), max_size=6), st.lists(st.binary(max_size=3), max_size=6))
def test_rule_5_another_log_has_another_chain(one: list[bytes], other: list[bytes]) -> None:
    chains = []
    for values in (one, other):
        chain = GENESIS
        for slot, value in enumerate(values, 1):
            chain = extend_chain(chain, slot, value)
        chains.append(chain)
    assert (chains[0] == chains[1]) == (one == other)


def test_rule_6_what_has_to_be_stored_is_handed_out_once_and_says_how_far_it_goes() -> None:
    made = applier(in_slot(1, A), in_slot(2, Delete(b"a")))
    assert made.take_changes() == [
        Change(first_of(1), b"a", b"0", 1, 1, 0),
        Change(first_of(2), b"a", None, 0, 0, first_of(1)),
    ]
    assert made.take_changes() == []
    progress = made.progress()
    assert (progress.applied, progress.position, progress.chain) == (2, first_of(2), made.chain)
    assert progress.digest == made.machine.digest == 0


# Loading


@pytest.mark.parametrize(
    "commands",
    [[], [A], [A, B, Put(b"a", b"2")], [A, Delete(b"a")], [A, B, Delete(b"a"), Put(b"a", b"x"), Delete(b"b")]],
    ids=["nothing", "one", "some", "gone again", "more"],
)
def test_a_state_that_was_stored_is_the_same_again(commands: list[Command]) -> None:
    source = Source(*commands)
    loaded = again(source)
    assert loaded.progress() == source.applier.progress() or not commands
    assert loaded.machine.records == source.applier.machine.records
    assert (loaded.applied, loaded.chain) == (source.applier.applied, source.applier.chain)


def test_it_goes_on_as_the_first_one_does() -> None:
    source = Source(A, B)
    loaded = again(source)
    for one in (source.applier, loaded):
        one.replay(3, in_slot(3, Put(b"a", b"3")))
    assert loaded.progress() == source.applier.progress()
    assert loaded.take_changes() == source.applier.take_changes()


def test_rule_22_request_ids_are_part_of_it() -> None:
    loaded = again(Source(A))
    batch = CommandBatch("n1.1", 1, 1, 1, [A])
    assert list(loaded.apply(2, pack([pack_batch(batch)]))) == [(batch, None)]


@pytest.mark.parametrize("told", [[], genesis(VOTERS), genesis(["n7"])], ids=["nobody", "the founders", "others"])
def test_rule_27_the_members_are_part_of_it_whatever_the_replica_was_told(told: list[MembershipVersion]) -> None:
    loaded = load_state(Source(Reconfigure(GROWN)).storage, told)
    assert loaded.machine.memberships == [MembershipVersion(1, ROSTER), MembershipVersion(1 + ALPHA, GROWN)]


def test_rule_27_the_second_change_of_an_entry_is_judged_by_the_first_though_nobody_sees_that_yet() -> None:
    """A reader of the memberships sees none of the two before the entry is complete."""
    made = applier()
    first, second = ROSTER.without("n3"), ROSTER.without("n2")
    made.begin(
        1, in_slot(1, Reconfigure(first), Reconfigure(second), *[Put(b"%d" % key, b"") for key in range(STEP_RECORDS)])
    )
    assert made.advance(1)[1] is None
    assert made.machine.membership == ROSTER
    _, ended = made.advance(1000)
    assert ended is not None
    ((_, results),) = ended
    assert results is not None
    assert [type(result) for result in results[:2]] == [Reconfigured, NotReconfigured]
    assert made.machine.membership == first


def test_before_anything_is_stored_the_members_are_those_that_the_cluster_begins_with() -> None:
    loaded = load_state(MemoryStorage("test", "n1"), genesis(VOTERS))
    assert (loaded.applied, loaded.machine.membership) == (0, ROSTER)


def test_what_was_compacted_is_not_missed_though_the_last_revisions_were_deletions() -> None:
    source = Source(A, B, Delete(b"b"))
    source.compact(3)
    loaded = again(source)
    assert (loaded.machine.revision, loaded.progress()) == (3, source.applier.progress())


DAMAGED: dict[str, Callable[[Change, Change], list[Change]]] = {
    "a row is missing": lambda first, second: [second],
    "a value is another": lambda first, second: [first._replace(value=b"x"), second],
    "a key is another": lambda first, second: [first._replace(key=b"x"), second],
    "a version is another": lambda first, second: [first._replace(version=7), second],
    "a row is one too many": lambda first, second: [first, second, Change(first_of(3), b"c", b"", 3, 1, 0)],
    "a deletion is one too many": lambda first, second: [first, second, Change(first_of(3), b"c", None, 0, 0, 0)],
}


class Pages(MemoryStorage):
    """Storage whose state is what the test says."""

    def __init__(self, page: StatePage) -> None:
        super().__init__("test", "n1")
        self._page = page

    def read_state(self, after: int, max_bytes: int, *, staged: bool = False) -> StatePage:
        return self._page


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_rule_5_records_that_do_not_have_the_digest_that_was_stored_with_them_are_damage(
    damage: Callable[[Change, Change], list[Change]],
) -> None:
    page = Source(A, B).storage.read_state(0, 1 << 20)
    assert load_state(Pages(page), []).machine.get(b"b") is not None
    with pytest.raises(DamagedError, match="records as of revision 2 do not have their digest"):
        load_state(Pages(page._replace(changes=damage(*page.changes))), [])


def test_what_was_replayed_is_stored_so_that_the_next_start_need_not() -> None:
    storage = MemoryStorage("test", "n1")
    storage.write([StateWrite(promise=B1, accepts=[PValue(1, B1, in_slot(1, A))], chosen=1)])
    made = applier(in_slot(1, A))
    store_replayed(storage, made)
    assert load_state(storage, []).progress() == made.progress()


# A witness


def bare(*values: bytes) -> Applier:
    made = witness_applier(applier().progress())
    assert made is not None
    for slot, value in enumerate(values, 1):
        made.replay(slot, value)
    return made


def test_rule_29_a_witness_follows_who_the_members_are_and_keeps_no_record() -> None:
    value = in_slot(1, A, Reconfigure(GROWN), B)
    made = bare(value)
    assert (made.machine.records, made.machine.revision, made.take_changes()) == ({}, 0, [])
    assert made.machine.membership == GROWN
    assert made.chain == applier(value).chain


def test_rule_29_a_witness_knows_what_became_of_changes_of_the_members_and_of_nothing_else() -> None:
    given_to = bare()
    change = CommandBatch("n1.1", 1, 1, 1, [Reconfigure(GROWN)])
    mixed = CommandBatch("n1.1", 1, 2, 1, [A, Reconfigure(GROWN)])
    assert list(given_to.apply(1, pack([pack_batch(change)]))) == [(change, [Reconfigured(GROWN, 1 + ALPHA)])]
    assert list(given_to.apply(2, pack([pack_batch(mixed)]))) == [(mixed, None)]


def test_rule_22_a_witness_knows_the_request_ids() -> None:
    made = bare(in_slot(1, A))
    assert made.machine.request_ids.pack() == applier(in_slot(1, A)).machine.request_ids.pack()


def test_rule_29_a_witness_takes_over_of_a_state_what_it_keeps_and_stays_one_when_it_is_loaded() -> None:
    source = Source(A, Reconfigure(GROWN))
    made = witness_applier(source.applier.progress())
    assert made is not None
    assert (made.membership_only, made.applied, made.chain) == (True, 2, source.applier.chain)
    assert (made.machine.membership, made.machine.revision, made.machine.digest) == (GROWN, 0, 0)
    loaded = Applier([])
    loaded.finish(made.progress())
    assert loaded.membership_only
    assert loaded.progress() == made.progress()


def test_nobody_becomes_a_witness_by_a_state_in_which_nobody_knows_the_members() -> None:
    assert witness_applier(AppliedProgress()) is None
    assert witness_applier(replace(Applier([]).progress(), applied=0)) is not None
