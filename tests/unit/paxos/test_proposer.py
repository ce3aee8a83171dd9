from hypothesis import given
from hypothesis import strategies as st

from paxos.configuration import ALPHA, ConfigurationHistory, ConfigurationVersion
from paxos.messages import Promise
from paxos.options import Options
from paxos.proposer import Phase1, Pipeline
from paxos.types import MS, NOOP, ZERO, Ballot, Configuration, PValue, Slot, pack, unpack
from tests.unit.paxos.harness import START

THREE = Configuration(("n1", "n2", "n3"))
B1, B2, B3, B9 = (Ballot(number, "n1") for number in (1, 2, 3, 9))
WAIT = 200 * MS


def promise(*accepted: PValue, from_slot: Slot = 1, next_slot: Slot = 0) -> Promise:
    return Promise(B9, from_slot, accepted, next_slot)


def phase1(from_slot: Slot = 1) -> Phase1:
    return Phase1(B9, from_slot, [THREE])


def pipeline(recovered: list[bytes] | None = None, *, from_slot: Slot = 1, **options: int) -> Pipeline:
    """Everything is worth a slot, unless the test says otherwise."""
    return Pipeline(
        from_slot,
        recovered or [],
        ConfigurationHistory("n1", [ConfigurationVersion(1, THREE)]),
        Options(**{"min_batch_bytes": 1, **options}),
    )


# Phase 1


def test_rule_9_a_campaign_is_won_with_the_promises_of_a_majority_of_voters() -> None:
    one = phase1()
    one.add_promise("n2", promise())
    one.add_promise("n2", promise())
    one.add_promise("stranger", promise())
    assert not one.has_quorum()
    one.add_promise("n3", promise())
    assert one.has_quorum()


def test_rule_10_the_value_of_the_highest_ballot_is_recovered_for_each_slot() -> None:
    one = phase1()
    one.add_promise("n1", promise(PValue(1, B1, b"old"), PValue(2, B3, b"newest")))
    one.add_promise("n2", promise(PValue(1, B2, b"new"), PValue(2, B2, b"new")))
    assert one.recovered() == [b"new", b"newest"]


def test_rule_10_gaps_are_filled_with_no_ops() -> None:
    one = phase1(from_slot=5)
    one.add_promise("n1", promise(PValue(7, B1, b"seven"), from_slot=5))
    assert one.recovered() == [NOOP, NOOP, b"seven"]


def test_rule_10_nothing_accepted_leaves_nothing_to_recover() -> None:
    one = phase1(from_slot=5)
    one.add_promise("n1", promise(from_slot=5))
    assert one.recovered() == []


def test_rule_9_a_promise_counts_when_its_last_page_is_there() -> None:
    one = phase1()
    one.add_promise("n1", promise())
    one.add_promise("n2", promise(PValue(1, B1, b"a"), next_slot=4))
    assert not one.has_quorum()
    assert one.awaiting == {"n2": 4, "n3": 1}
    one.add_promise("n2", promise(PValue(4, B1, b"d"), from_slot=4))
    assert one.has_quorum()
    assert one.recovered() == [b"a", NOOP, NOOP, b"d"]


def test_rule_9_pages_count_in_order_and_each_once() -> None:
    one = phase1()
    one.add_promise("n1", promise())
    first, second = promise(PValue(1, B1, b"a"), next_slot=4), promise(PValue(4, B1, b"d"), from_slot=4, next_slot=6)
    one.add_promise("n2", second)
    assert one.awaiting["n2"] == 1
    one.add_promise("n2", first)
    one.add_promise("n2", first)
    assert one.awaiting["n2"] == 4
    one.add_promise("n2", second)
    one.add_promise("n2", first)
    assert one.awaiting["n2"] == 6
    assert not one.has_quorum()


# Phase 2


def test_rule_10_what_was_recovered_goes_first_then_the_own_no_op_then_the_queue() -> None:
    one = pipeline([b"a", b"b"], from_slot=5)
    one.enqueue((b"new",))
    assert one.own_noop == 7
    assert one.propose(START, 10**6) == [(5, b"a"), (6, b"b"), (7, NOOP), (8, pack([b"new"]))]
    assert one.propose(START, 10**6) == []


def test_one_slot_holds_all_that_waited_and_fits() -> None:
    one = pipeline(max_batch_bytes=5)
    one.propose(START, 10**6)
    one.enqueue((b"aa", b"bb", b"cc"))
    one.enqueue((b"d",))
    assert one.queued == 4
    assert one.propose(START, 10**6) == [(2, pack([b"aa", b"bb"])), (3, pack([b"cc", b"d"]))]
    assert one.queued == 0


def test_a_payload_that_is_bigger_than_a_batch_goes_alone() -> None:
    one = pipeline(max_batch_bytes=5)
    one.propose(START, 10**6)
    one.enqueue((b"much too big", b"a"))
    assert one.propose(START, 10**6) == [(2, pack([b"much too big"])), (3, pack([b"a"]))]


def test_what_is_applied_is_under_way_no_more() -> None:
    """It was decided under an earlier ballot of this leader, and its voters are voters no more."""
    one = pipeline([b"a", b"b", b"c"], window=3)
    one.propose(START, 0)
    assert [slot for slot, _ in one.propose(START + 1, 2)] == [4]
    assert [slot for slot, _, _ in one.overdue(START + WAIT)] == [3]
    assert one.oldest() == START
    one.propose(START + 1, 3)
    assert one.oldest() == START + 1


def test_what_waits_has_to_be_worth_a_slot() -> None:
    one = pipeline(min_batch_bytes=100)
    one.propose(START, 0)
    for voter in ("n1", "n2"):
        one.accepted(voter, 1)
    one.enqueue((b"a" * 10,))
    assert [slot for slot, _ in one.propose(START, 1)] == [2]
    one.enqueue((b"b" * 5,))
    assert one.propose(START, 1) == []
    one.enqueue((b"c" * 10,))  # with the five as much as is under way, however it is packed
    assert [slot for slot, _ in one.propose(START, 1)] == [3]
    one.enqueue((b"d" * 20,))
    assert one.propose(START, 1) == []
    one.enqueue((b"e" * 80,))
    assert [slot for slot, _ in one.propose(START, 1)] == [4]
    one.enqueue((b"f",))
    assert one.propose(START, 1) == []
    for slot in (2, 3, 4):
        for voter in ("n1", "n2"):
            one.accepted(voter, slot)
    assert [slot for slot, _ in one.propose(START, 4)] == [5]


def test_no_more_slots_are_under_way_than_the_window_holds() -> None:
    one = pipeline([b"a", b"b"], window=2)
    assert one.propose(START, 0) == [(1, b"a"), (2, b"b")]
    one.enqueue((b"new",))
    assert one.propose(START, 0) == []
    one.accepted("n1", 1)
    one.accepted("n2", 1)
    assert one.propose(START, 0) == [(3, NOOP)]


def test_rule_26_the_queue_is_bounded_and_takes_more_when_there_is_room() -> None:
    phase_2 = pipeline(window=1, max_queued_bytes=4, max_batch_bytes=2)
    assert phase_2.enqueue((b"aa", b"bb"))
    assert not phase_2.has_room
    assert not phase_2.enqueue((b"cc",))
    assert phase_2.queued == 2
    assert [value for _, value in phase_2.propose(0, 10**6)] == [NOOP]
    assert [phase_2.accepted(name, 1) for name in ("n1", "n2")] == [False, True]
    assert [value for _, value in phase_2.propose(0, 10**6)] == [pack([b"aa"])]
    assert phase_2.enqueue((b"cc",))


def test_rule_9_a_slot_is_chosen_by_a_majority_of_voters_and_once() -> None:
    one = pipeline()
    one.propose(START, 10**6)
    assert not one.accepted("n2", 1)
    assert not one.accepted("n2", 1)
    assert not one.accepted("stranger", 1)
    assert one.accepted("n1", 1)
    assert not one.accepted("n3", 1)


def test_rule_9_a_vote_for_a_slot_that_is_not_under_way_counts_nowhere() -> None:
    one = pipeline()
    assert not one.accepted("n1", 1)
    one.propose(START, 10**6)
    assert not one.accepted("n2", 1)


def test_a_slot_is_sent_again_to_those_who_have_not_answered_with_a_doubling_wait() -> None:
    one = pipeline()
    assert (one.next_resend(), one.oldest()) == (None, None)
    one.propose(START, 10**6)
    one.accepted("n2", 1)
    assert (one.next_resend(), one.oldest()) == (START + WAIT, START)
    assert one.overdue(START + WAIT - 1) == []
    assert one.overdue(START + WAIT) == [(1, NOOP, ["n1", "n3"])]
    assert one.next_resend() == START + 3 * WAIT
    assert one.overdue(START + 3 * WAIT) == [(1, NOOP, ["n1", "n3"])]
    assert one.next_resend() == START + 7 * WAIT
    assert one.oldest() == START


# Both, over many ballots

NAMES = THREE.voters
majorities = st.sets(st.sampled_from(NAMES), min_size=2)
ballots_run = st.lists(
    st.tuples(majorities, st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 6))), st.integers(1, 3)),
    min_size=1,
    max_size=8,
)


@given(ballots_run)
def test_rule_10_a_value_once_chosen_is_the_value_of_every_later_ballot(
    runs: list[tuple[set[str], list[tuple[str, int]], int]],
) -> None:
    """Each run is one ballot: who promises, page by page, then which Accepts arrive. Whatever a majority accepted
    under one ballot is what all later ones propose."""
    accepted: dict[str, dict[Slot, PValue]] = {name: {} for name in NAMES}
    promised = dict.fromkeys(NAMES, ZERO)
    chosen: dict[Slot, bytes] = {}
    for number, (quorum, deliveries, page) in enumerate(runs, 1):
        ballot = Ballot(number, "n1")
        phase1 = Phase1(ballot, 1, [THREE])
        for name in sorted(quorum):
            promised[name] = ballot
            answer_in_pages(phase1, name, accepted[name], page)
        assert phase1.has_quorum()
        phase_2 = Pipeline(
            1, phase1.recovered(), ConfigurationHistory("n1", [ConfigurationVersion(1, THREE)]), Options()
        )
        phase_2.enqueue((b"%d" % number,))
        proposed = dict(phase_2.propose(START, 10**6))
        assert {slot: proposed.get(slot) for slot in chosen} == chosen
        for name, slot in deliveries:
            if slot in proposed and ballot >= promised[name]:
                promised[name] = ballot
                accepted[name][slot] = PValue(slot, ballot, proposed[slot])
                if phase_2.accepted(name, slot):
                    chosen[slot] = proposed[slot]


def answer_in_pages(phase1: Phase1, name: str, accepted: dict[Slot, PValue], page: int) -> None:
    pvalues = sorted(accepted.values())
    from_slot = 1
    while True:
        now, later = pvalues[:page], pvalues[page:]
        next_slot = later[0].slot if later else 0
        message = Promise(phase1.ballot, from_slot, tuple(now), next_slot)
        phase1.add_promise(name, message)
        phase1.add_promise(name, message)
        if not next_slot:
            return
        from_slot, pvalues = next_slot, later


@given(st.lists(st.binary(max_size=8)), st.integers(1, 12), st.integers(1, 4), st.lists(st.binary(max_size=3)))
def test_nothing_that_was_enqueued_is_lost_doubled_or_reordered(
    payloads: list[bytes], max_batch_bytes: int, window: int, recovered: list[bytes]
) -> None:
    one = pipeline(recovered, max_batch_bytes=max_batch_bytes, window=window)
    one.enqueue(tuple(payloads))
    values = []
    while begun := one.propose(START, 10**6):
        assert len(begun) <= window
        for slot, value in begun:
            values.append(value)
            assert slot == len(values)
            one.accepted("n1", slot)
            one.accepted("n2", slot)
    assert values[: len(recovered) + 1] == [*recovered, NOOP]
    assert [payload for value in values[len(recovered) + 1 :] for payload in unpack(value)] == payloads


# Memberships that change

FOUR = Configuration(("n1", "n2", "n3", "n4"))


def changing(*versions: ConfigurationVersion, **options: int) -> Pipeline:
    one = Pipeline(
        1,
        [],
        ConfigurationHistory("n1", [ConfigurationVersion(1, THREE), *versions]),
        Options(**{"window": 1000, "min_batch_bytes": 1, **options}),
    )
    one.propose(START, 0)
    return one


def test_rule_27_a_campaign_takes_a_majority_of_each_membership() -> None:
    one = Phase1(B9, 1, [THREE, FOUR])
    assert one.awaiting == dict.fromkeys(FOUR.voters, 1)
    for name, elected in (("n1", False), ("n4", False), ("n3", True)):
        one.add_promise(name, promise())
        assert one.has_quorum() == elected


def test_rule_27_a_campaign_covers_a_later_membership_when_a_majority_of_it_has_promised() -> None:
    one = phase1()
    for name in ("n1", "n2"):
        one.add_promise(name, promise())
    assert one.covers(THREE)
    assert not one.covers(FOUR)
    one.add_late_promise("n3", promise(), next_slot=1)
    assert one.covers(FOUR)
    assert not one.covers(Configuration(("n1", "n5", "n6")))
    assert not one.covers(FOUR)


def test_rule_27_a_late_promise_counts_with_what_was_settled_and_with_nothing_else() -> None:
    one = phase1()
    one.add_promise("n1", promise())
    one.add_promise("n2", promise())
    for late in (
        promise(PValue(5, B1, b"a")),
        promise(PValue(4, B1, b"a"), PValue(6, B1, b"a")),
        promise(PValue(4, B1, b"a"), next_slot=5),
        promise(from_slot=4),
    ):
        one.add_late_promise("n3", late, next_slot=5)
        assert one.awaiting == {"n3": 1}
    one.add_late_promise("n3", promise(PValue(4, B1, b"a")), next_slot=5)
    assert one.promised == {"n1", "n2", "n3"}
    assert one.awaiting == {}


def test_rule_27_the_last_page_of_a_promise_counts_late_when_those_before_it_came_in_time() -> None:
    one = phase1()
    one.add_promise("n3", promise(PValue(1, B1, b"a"), next_slot=2))
    one.add_late_promise("n3", promise(PValue(2, B1, b"b"), from_slot=2), next_slot=3)
    assert one.promised == {"n3"}


def test_rule_27_no_slot_begins_more_than_alpha_beyond_what_is_applied() -> None:
    one = changing(max_batch_bytes=1)
    one.enqueue(tuple(b"x" for _ in range(100)))
    for applied in (0, 1, 1, 5):
        begun = [slot for slot, _ in one.propose(START, applied)]
        assert not begun or begun[-1] == applied + ALPHA
        assert one.next_slot == applied + ALPHA + 1


def test_rule_27_a_slot_is_decided_by_its_own_membership() -> None:
    one = changing(ConfigurationVersion(3, FOUR))
    one.fill(5)
    assert [slot for slot, _ in one.propose(START, 0)] == [2, 3, 4]
    assert [one.accepted(name, 2) for name in ("n1", "n4", "n2")] == [False, False, True]
    assert [one.accepted(name, 3) for name in ("n1", "n4", "n2")] == [False, False, True]
    assert one.overdue(START + WAIT) == [(1, NOOP, ["n1", "n2", "n3"]), (4, NOOP, ["n1", "n2", "n3", "n4"])]


def test_rule_27_no_ops_fill_up_to_a_slot_where_there_is_nothing_else_to_order() -> None:
    one = changing()
    one.enqueue((b"a",))
    one.fill(5)
    assert one.propose(START, 0) == [(2, pack([b"a"])), (3, NOOP), (4, NOOP)]
    one.enqueue((b"b",))
    assert one.propose(START, 0) == [(5, pack([b"b"]))]
    assert one.propose(START, 0) == []


def test_a_bulk_payload_delays_small_ones_neither_in_the_queue_nor_in_flight() -> None:
    one = pipeline(bulk_bytes=100, max_bulk_bytes=250, min_batch_bytes=1000)
    one.propose(START, 0)
    one.accepted("n1", 1)
    one.accepted("n2", 1)
    large = [bytes([number]) * 100 for number in range(4)]
    one.enqueue((*large, b"small"))
    assert one.queued == 5
    begun = one.propose(START, 0)
    assert begun == [(2, pack([b"small"])), (3, pack([large[0]])), (4, pack([large[1]]))]
    one.accepted("n1", 2)
    one.accepted("n2", 2)
    one.enqueue((b"next",))  # fewer bytes than are in flight, but those are bulk
    assert one.propose(START, 0) == [(5, pack([b"next"]))]
    one.accepted("n1", 3)
    one.accepted("n2", 3)
    assert one.propose(START, 0) == [(6, pack([large[2]]))]


def test_a_bulk_payload_above_the_limit_goes_alone() -> None:
    one = pipeline(bulk_bytes=10, max_bulk_bytes=10)
    one.propose(START, 0)
    one.enqueue((b"a" * 50, b"b" * 10))
    assert one.propose(START, 0) == [(2, pack([b"a" * 50]))]
    one.accepted("n1", 2)
    one.accepted("n2", 2)
    assert one.propose(START, 0) == [(3, pack([b"b" * 10]))]


def test_rule_26_the_bound_of_the_queue_counts_bulk_payloads() -> None:
    one = pipeline(bulk_bytes=10, max_queued_bytes=15)
    assert one.enqueue((b"a" * 10,))
    assert one.enqueue((b"b" * 10,))
    assert not one.enqueue((b"c",))
