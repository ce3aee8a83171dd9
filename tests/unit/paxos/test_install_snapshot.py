"""A replica whose peers have cut the log that it lacks, and the state that it is given instead."""

import pytest
from msgspec.structs import replace

from paxos.configuration import ALPHA, ConfigurationVersion
from paxos.errors import InvariantError
from paxos.messages import (
    Accept,
    Accepted,
    Chosen,
    Fetch,
    FetchSnapshot,
    Heartbeat,
    HeartbeatAck,
    Learn,
    Prepare,
    Promise,
    Reject,
    SnapshotPage,
)
from paxos.ready import ServeFetch, Write
from paxos.role import Role
from paxos.types import NOOP, Ballot, Configuration, PValue
from tests.unit.paxos.harness import ME, OPTIONS, Bench, pre_vote, prepare, reign, to

B1, B2 = Ballot(1, "n2"), Ballot(2, "n3")
THREE = [ConfigurationVersion(1, Configuration((ME, "n2", "n3")))]
FOUR = [ConfigurationVersion(7, Configuration((ME, "n2", "n3", "n4")))]
NOBODY = [ConfigurationVersion(1, Configuration(()))]


def cut_off() -> Bench:
    """It lacks everything, and n2 has cut the first five of nine slots."""
    bench = Bench(promised=B1)
    bench.receive("n2", Chosen(B1, 9))
    bench.expect(to("n2", Fetch(1)))
    bench.receive("n2", Learn((), 9, 5))
    bench.expect()
    return bench


def jump(bench: Bench, slot: int, versions: list[ConfigurationVersion] = THREE) -> None:
    bench.replica.install_snapshot(slot, versions, bench.now)


def test_rule_11_whoever_lacks_slots_that_a_peer_has_cut_says_whose_state_it_needs_and_asks_for_no_slots() -> None:
    bench = cut_off()
    assert bench.replica.snapshot_source == "n2"
    assert bench.replica._learner.next_deadline() is None
    assert not bench.replica.caught_up
    bench.receive("n3", Learn((), 12, 4))
    bench.expect()
    assert bench.replica.snapshot_source == "n2"
    bench.receive("n3", Learn((), 12, 6))
    assert bench.replica.snapshot_source == "n3"


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_rule_11_a_cut_behind_which_nothing_is_missing_cuts_nobody_off(cut: int) -> None:
    bench = Bench(promised=B1, chosen=2)
    bench.receive("n2", Learn((), 9, cut))
    bench.expect(to("n2", Fetch(3)))
    assert bench.replica.snapshot_source is None


def test_rule_11_the_next_slot_is_enough_to_be_cut_off() -> None:
    bench = Bench(promised=B1, chosen=2)
    bench.receive("n2", Learn((), 9, 3))
    bench.expect()
    assert bench.replica.snapshot_source == "n2"


def test_rule_11_whoever_gets_the_slots_from_another_peer_is_cut_off_no_more() -> None:
    bench = cut_off()
    values = [PValue(slot, B1, b"v") for slot in range(1, 6)]
    bench.receive("n3", Learn(tuple(values), 5, 0))
    bench.expect(to("n2", Fetch(6)), accepts=values, chosen=[(slot, b"v") for slot in range(1, 6)])
    assert bench.replica.snapshot_source is None


def test_a_leader_is_never_cut_off() -> None:
    bench = Bench()
    reign(bench)
    bench.receive("n2", Learn((), 1, 5))
    bench.expect()
    assert bench.replica.snapshot_source is None


def test_rule_25_with_a_state_the_log_goes_on_behind_it() -> None:
    bench = cut_off()
    jump(bench, 6)
    assert (bench.replica.chosen, bench.replica.snapshot_source) == (6, None)
    bench.expect(to("n2", Fetch(7)))
    entries = [PValue(slot, B1, b"v") for slot in (7, 8, 9)]
    bench.receive("n2", Learn(tuple(entries), 9, 5))
    bench.expect(accepts=entries, chosen=[(7, b"v"), (8, b"v"), (9, b"v")])


def test_rule_25_the_slot_of_the_state_is_remembered_with_the_next_record() -> None:
    bench = cut_off()
    jump(bench, 6)
    bench.receive("n2", Accept(B1, 10, b"x", 9))
    ready = bench.replica.take(bench.now)
    assert ready.write == Write(
        chosen=6, accepts=[PValue(10, B1, b"x")], votes=[to("n2", Accepted(B1, 10))], promise=None
    )


def test_rule_25_a_state_lowers_no_promise_and_drops_no_accepted_slot_above_it() -> None:
    tail = [PValue(slot, B1, b"v%d" % slot) for slot in (1, 3, 5, 6, 8)]
    bench = Bench(promised=B2, tail=tail)
    jump(bench, 5)
    assert bench.replica.promised == B2
    bench.receive("n2", Prepare(B1, 6))
    bench.expect(to("n2", Reject(B1, B2, 0)))
    higher = Ballot(3, "n3")
    bench.receive("n3", Prepare(higher, 6))
    bench.expect(votes=[to("n3", Promise(higher, 6, tuple(tail[3:]), 0))], promise=higher)


def test_rule_11_what_the_state_stands_for_is_cut_and_not_empty() -> None:
    bench = Bench(promised=B1, tail=[PValue(slot, B1, b"v") for slot in range(1, 8)])
    jump(bench, 5)
    bench.receive("n3", Prepare(B2, 5))
    bench.expect(to("n3", Reject(B2, B1, 6)))


def test_rule_12_slots_above_the_state_that_are_known_to_be_chosen_follow_at_once() -> None:
    bench = Bench(promised=B1, tail=[PValue(slot, B1, b"v%d" % slot) for slot in (4, 6, 7, 9)])
    bench.receive("n2", Chosen(B1, 7))
    bench.expect(to("n2", Fetch(1)))
    jump(bench, 5)
    bench.expect(chosen=[(6, b"v6"), (7, b"v7")])


def test_rule_12_what_was_learnt_out_of_order_is_used_behind_the_state_and_forgotten_below_it() -> None:
    bench = Bench(promised=B1)
    entries = [PValue(slot, B1, b"v") for slot in (3, 4, 6, 7)]
    bench.receive("n2", Learn(tuple(entries), 7, 0))
    bench.expect(to("n2", Fetch(1)), accepts=entries)
    jump(bench, 5)
    assert bench.replica._learner._decided == set()
    bench.expect(chosen=[(6, b"v"), (7, b"v")])


def test_rule_25_a_state_that_brings_nothing_new_is_a_bug() -> None:
    bench = Bench(promised=B1, chosen=5)
    with pytest.raises(InvariantError, match="would go down"):
        jump(bench, 5)


def test_a_leader_is_given_no_state() -> None:
    bench = Bench()
    reign(bench)
    with pytest.raises(InvariantError, match="a leader was given a snapshot"):
        jump(bench, 9)


@pytest.mark.parametrize("begin", [pre_vote, prepare])
def test_rule_20_whoever_stood_for_election_begins_again_behind_the_state(begin: object) -> None:
    bench = Bench()
    assert callable(begin)
    begin(bench)
    assert bench.role() is Role.CANDIDATE
    jump(bench, 5)
    bench.expect()
    assert bench.role() is Role.FOLLOWER
    bench.durable()
    bench.receive("n2", Promise(Ballot(1, ME), 1, (), 0))
    bench.expect()
    assert bench.role() is Role.FOLLOWER
    pre_vote(bench)


def test_rule_27_the_state_says_who_the_members_are_from_then_on() -> None:
    bench = cut_off()
    jump(bench, 6, FOUR)
    assert bench.peers == ["n2", "n3", "n4"]
    assert bench.replica.configurations.newest == FOUR[0].configuration


def test_a_leader_that_was_given_a_state_may_propose_alpha_slots_behind_it() -> None:
    """The host has applied what the state stands for."""
    bench = Bench(options=replace(OPTIONS, window=3 * ALPHA, max_batch_bytes=1))
    jump(bench, 100)
    bench.expect()
    ballot = prepare(bench)
    bench.durable()
    bench.receive("n2", Promise(ballot, 101, (), 0))
    bench.replica.propose((b"a",) * (2 * ALPHA))
    ready = bench.replica.take(bench.now)
    assert ready.write is not None
    assert [pvalue.slot for pvalue in ready.write.accepts] == list(range(101, 101 + ALPHA))


def test_the_pages_of_a_state_are_nothing_to_the_core() -> None:
    bench = Bench()
    bench.receive("n2", FetchSnapshot(0), SnapshotPage(0, b"rows", 0, b"end", 7))
    bench.expect()


# Before the members are known


def test_a_replica_that_knows_of_no_member_learns_nothing_and_asks_for_nothing() -> None:
    bench = Bench(versions=NOBODY)
    bench.receive("n2", Heartbeat(B1, 1, 2), Accept(B1, 1, b"a", 1))
    acknowledged = HeartbeatAck(B1, 1, granted=True, chosen=0, votes=0)
    bench.expect(
        to("n2", acknowledged),
        votes=[to("n2", Accepted(B1, 1))],
        promise=B1,
        accepts=[PValue(1, B1, b"a")],
    )
    bench.receive("n2", Learn((PValue(1, B1, b"a"), PValue(2, B1, b"b")), 2, 0))
    bench.expect(accepts=[PValue(2, B1, b"b")])
    assert bench.replica.chosen == 0
    jump(bench, 1)
    bench.expect(chosen=[(2, b"b")])


def test_rule_28_a_replica_that_knows_of_no_member_makes_no_promise() -> None:
    bench = Bench(versions=NOBODY)
    bench.receive("n2", Prepare(B1, 1))
    bench.expect()


def test_rule_29_whoever_lacks_a_state_forgets_the_members_and_accepts_on_until_it_is_given_one() -> None:
    bench = Bench(promised=B1, tail=[PValue(1, B1, b"a")])
    bench.replica.forget_configurations()
    bench.receive("n2", Chosen(B1, 1), Accept(B1, 2, b"b", 1))
    bench.expect(votes=[to("n2", Accepted(B1, 2))], accepts=[PValue(2, B1, b"b")])
    assert (bench.replica.chosen, bench.peers) == (0, [])
    bench.receive("n2", Accept(B1, 8, b"h", 8))
    bench.expect(votes=[to("n2", Accepted(B1, 8))], accepts=[PValue(8, B1, b"h")])
    jump(bench, 7)
    bench.expect(chosen=[(8, b"h")])


@pytest.mark.parametrize("begin", [pre_vote, reign])
def test_whoever_stands_or_leads_does_not_forget_the_members(begin: object) -> None:
    bench = Bench()
    assert callable(begin)
    begin(bench)
    with pytest.raises(InvariantError, match="told to forget its configurations"):
        bench.replica.forget_configurations()


# Whoever has the log


def test_a_fetch_of_slots_that_are_not_at_hand_is_for_storage_all_the_same() -> None:
    """What is cut there, the host knows."""
    bench = Bench(promised=B1, chosen=5)
    bench.receive("n3", Fetch(1))
    bench.expect(fetches=[ServeFetch("n3", 1, 5)])


def test_rule_11_a_late_accept_of_a_slot_that_the_state_stands_for_is_answered_and_kept_nowhere_here() -> None:
    bench = Bench(promised=B1)
    jump(bench, 5)
    bench.receive("n2", Accept(B1, 3, NOOP, 0))
    bench.expect(votes=[to("n2", Accepted(B1, 3))], accepts=[PValue(3, B1, NOOP)])
    assert bench.replica._log.get(3) is None
