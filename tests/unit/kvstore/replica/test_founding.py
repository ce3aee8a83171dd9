"""Rule 30: a cluster is founded once, by members that have no data."""

from random import Random

import pytest

from kvstore.api.commands import Put, Result
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.membership import MemberRole
from kvstore.replica.founding import REPEAT_MS, FoundingPlan
from kvstore.replica.node import Node
from kvstore.replica.snapshot_receive import RETRY_MS
from kvstore.replica.snapshot_send import state_message
from paxos.messages import Accept, FetchSnapshot, FoundingState, Heartbeat, PreVote
from paxos.options import Options
from paxos.types import MS, Ballot
from storage.base import Founding, StateWrite
from storage.memory import MemoryStorage
from tests.unit.kvstore.replica.host import refusal
from tests.unit.kvstore.replica.restored import PUTS, restored_storage

NAMES = ("n1", "n2", "n3")


class FoundingHost:
    """A node with a disk, at its first start."""

    def __init__(
        self,
        name: str,
        incarnation: int,
        without: tuple[str, ...] = (),
        *,
        joins: bool = False,
        storage: MemoryStorage | None = None,
    ) -> None:
        self.storage = storage or MemoryStorage("test", name, incarnation)
        self.plan = FoundingPlan(() if joins else NAMES, without)
        self.now = 10**12
        self.start()

    def start(self) -> None:
        self.node = Node(
            self.storage,
            Options(),
            clock=lambda: self.now,
            rng=Random(1),
            request_timeout_ms=1000,
            max_waiting=10,
            plan=self.plan,
        )

    def restart(self) -> None:
        self.storage = self.storage.reopen()
        self.start()

    def messages(self) -> dict[str, FoundingState]:
        """Make all its writes durable, and return what it sends to whom at last."""
        sent: dict[str, FoundingState] = {}
        while True:
            self.now += REPEAT_MS * MS
            ready = self.node.step()
            for envelope in ready.messages:
                if isinstance(envelope.message, FoundingState):
                    sent[envelope.to] = envelope.message
            if ready.write is None:
                return sent
            self.storage.write([ready.write])
            self.node.durable([ready.write])


def restored(name: str, incarnation: int, slot: int = 100, without: tuple[str, ...] = ()) -> FoundingHost:
    """A member that was restored from a backup."""
    return FoundingHost(name, incarnation, without, storage=restored_storage(name, incarnation, slot=slot))


def talk(*members: FoundingHost, rounds: int = 4) -> None:
    """Let these members exchange messages; all others are away."""
    for _ in range(rounds):
        for member in members:
            for to, message in member.messages().items():
                for other in members:
                    if other.node.id == to:
                        other.node.receive(member.node.id, message)
    for member in members:
        member.messages()


def voters(member: FoundingHost) -> dict[str, int]:
    return {each.name: each.incarnation for each in member.node.membership.members if each.role is MemberRole.VOTER}


def founded(*members: FoundingHost) -> list[bool]:
    return [member.node.view.known for member in members]


def test_all_members_together_found_a_cluster_with_the_incarnations_of_their_data() -> None:
    members = [FoundingHost(name, incarnation) for name, incarnation in zip(NAMES, (11, 12, 13), strict=True)]
    talk(*members)
    for member in members:
        assert voters(member) == {"n1": 11, "n2": 12, "n3": 13}
        member.restart()
        assert voters(member) == {"n1": 11, "n2": 12, "n3": 13}


def test_one_member_alone_founds_its_cluster_at_once() -> None:
    one = MemoryStorage("test", "n1", 11)
    node = Node(
        one, Options(), clock=lambda: 1, rng=Random(1), request_timeout_ms=1, max_waiting=1, plan=FoundingPlan(("n1",))
    )
    assert node.view.known
    assert one.hard_state.founding == Founding((("n1", 11),), complete=True)


@pytest.mark.parametrize("absent", NAMES)
def test_without_the_answer_of_one_member_nobody_founds_a_cluster(absent: str) -> None:
    members = [FoundingHost(name, 11) for name in NAMES if name != absent]
    talk(*members)
    assert founded(*members) == [False, False]
    assert all(member.node.founding.awaited == [absent] for member in members)


def test_a_replica_without_a_membership_promises_nothing_and_serves_nobody() -> None:
    one = FoundingHost("n1", 11)
    one.node.receive("n2", PreVote(1, 1))
    answers: list[Result | Refused] = []
    one.node.write(Put(b"k", b"v"), answers.append)
    assert refusal(answers) == (Reason.JOINING, Outcome.FAILED)
    ready = one.node.step()
    replies = [envelope.message for envelope in ready.messages if not isinstance(envelope.message, FoundingState)]
    assert [getattr(reply, "willing", False) for reply in replies] == [False] * len(replies)


def test_rule_30_a_majority_that_lost_its_data_founds_no_second_cluster() -> None:
    """Neither with the third member, which has data, nor without its answer."""
    members = [FoundingHost(name, 11) for name in NAMES]
    talk(*members)
    third = members[2]
    wiped = [FoundingHost(name, 99) for name in NAMES[:2]]
    talk(*wiped)
    assert founded(*wiped) == [False, False]
    talk(*wiped, third)
    assert founded(*wiped) == [False, False]
    assert voters(third) == dict.fromkeys(NAMES, 11)


def test_rule_30_a_member_that_has_agreed_agrees_to_no_other_data() -> None:
    """It may be that the others have founded the cluster with the data that was lost since."""
    n1, n2, n3 = (FoundingHost(name, 11) for name in NAMES)
    talk(n1, n2, n3, rounds=2)
    assert n3.storage.hard_state.founding is not None
    again = FoundingHost("n1", 99)
    talk(again, n2, n3)
    assert not again.node.view.known
    for member in (n2, n3):
        founding = member.storage.hard_state.founding
        assert founding is None or dict(founding.members)["n1"] == 11


def test_rule_30_an_agreement_alone_founds_no_cluster() -> None:
    one = FoundingHost("n1", 11)
    for name in ("n2", "n3"):
        one.node.receive(name, FoundingState(11, (), (), founded=False, restored=""))
    one.messages()
    assert one.storage.hard_state.founding == Founding(tuple(dict.fromkeys(NAMES, 11).items()))
    assert (one.node.view.known, one.node.founding.awaited) == (False, ["n2", "n3"])


def test_an_agreement_is_told_only_once_it_is_durable() -> None:
    one = FoundingHost("n1", 11)
    one.messages()
    for name in ("n2", "n3"):
        one.node.receive(name, FoundingState(11, (), (), founded=False, restored=""))
    ready = one.node.step()
    assert isinstance(ready.write, StateWrite)
    assert ready.write.founding is not None
    told = [envelope.message for envelope in ready.messages if isinstance(envelope.message, FoundingState)]
    assert all(not message.members for message in told)
    one.storage.write([ready.write])
    one.node.durable([ready.write])
    assert all(message.members for message in one.messages().values())


def test_a_member_that_died_in_between_founds_the_cluster_with_one_that_has_founded_it() -> None:
    """It has agreed, so it needs no further answer of a member that is away now."""
    n1, n2, n3 = (FoundingHost(name, 11) for name in NAMES)
    agreed = Founding(tuple(dict.fromkeys(NAMES, 11).items()))
    n3.storage.write([StateWrite(founding=agreed)])
    n3.restart()
    for member in (n1, n2):
        member.storage.write([StateWrite(founding=Founding(agreed.members, complete=True))])
        member.restart()
    talk(n3, n1)
    assert voters(n3) == dict.fromkeys(NAMES, 11)


def test_an_absent_member_is_no_voter_at_first() -> None:
    n1, n2 = (FoundingHost(name, 11, without=("n3",)) for name in NAMES[:2])
    talk(n1, n2)
    assert voters(n1) == voters(n2) == {"n1": 11, "n2": 11}
    third = n1.node.membership.get("n3")
    assert third is not None
    assert (third.role, third.joining, third.becomes) == (MemberRole.LEARNER, True, MemberRole.VOTER)
    n3 = FoundingHost("n3", 11)
    talk(n1, n2, n3)
    assert not n3.node.view.known, "it learns the membership from a snapshot"


def test_the_setting_of_the_member_with_the_lowest_name_decides_who_is_absent() -> None:
    n1, n2 = FoundingHost("n1", 11, without=("n3",)), FoundingHost("n2", 12)
    talk(n1, n2)
    assert voters(n2) == {"n1": 11, "n2": 12}


def test_a_member_that_may_start_without_another_names_the_one_that_may_not() -> None:
    n1, n2 = FoundingHost("n1", 11), FoundingHost("n2", 12, without=("n3",))
    talk(n1, n2)
    assert founded(n1, n2) == [False, False]
    assert (n1.node.founding.awaited, n2.node.founding.awaited) == (["n3"], ["n1"])


def test_a_replica_that_joins_takes_no_part() -> None:
    """Its data was damaged, or belongs to a later member: it must not count as a new one."""
    n1, n2, n3 = FoundingHost("n1", 11), FoundingHost("n2", 11), FoundingHost("n3", 11, joins=True)
    talk(n1, n2, n3)
    assert founded(n1, n2, n3) == [False, False, False]


def test_an_older_state_of_the_same_data_changes_nothing() -> None:
    """Messages may be delayed and repeated."""
    one = FoundingHost("n3", 11)
    agreed = FoundingState(11, tuple(dict.fromkeys(NAMES, 11).items()), (), founded=False, restored="")
    for name in ("n1", "n2"):
        one.node.receive(name, agreed)
        one.node.receive(name, FoundingState(11, (), (), founded=False, restored=""))
    one.messages()
    assert one.node.view.known


def test_a_member_that_has_agreed_may_be_led_before_it_knows_that_the_cluster_is_founded() -> None:
    """Its vote is that of the data on the list; it is applied once the membership is known."""
    n3 = FoundingHost("n3", 11)
    n3.storage.write([StateWrite(founding=Founding(tuple(dict.fromkeys(NAMES, 11).items())))])
    n3.restart()
    n3.node.receive("n1", Heartbeat(Ballot(1, "n1"), 1, 0))
    n3.node.receive("n1", Accept(Ballot(1, "n1"), 1, b"", 0))
    n3.messages()
    assert (n3.node.applied, n3.storage.hard_state.last) == (0, 1)
    n1 = FoundingHost("n1", 11)
    n1.storage.write([StateWrite(founding=Founding(tuple(dict.fromkeys(NAMES, 11).items()), complete=True))])
    n1.restart()
    talk(n3, n1)
    assert n3.node.view.known


# Restored members


def records(member: FoundingHost) -> dict[bytes, bytes]:
    machine = member.node.machine
    return {key: record.value for key in machine.records if (record := machine.get(key)) is not None}


RESTORED = {put.key: put.value for put in PUTS}


def test_rule_31_restored_members_found_a_cluster_whose_log_begins_after_the_restored_slot() -> None:
    members = [restored(name, 11) for name in NAMES]
    assert [member.node.applied for member in members] == [0, 0, 0]
    talk(*members)
    for member in members:
        for _ in range(2):
            assert voters(member) == dict.fromkeys(NAMES, 11)
            assert (member.node.applied, member.node.replica.chosen, records(member)) == (100, 100, RESTORED)
            assert [version.first for version in member.node.machine.memberships] == [101]
            assert (member.node.founding.restored, member.storage.hard_state.restored) == ("100:a", None)
            member.restart()


def test_one_restored_member_alone_founds_its_cluster_at_once() -> None:
    storage = restored_storage("n1", 11, slot=100)
    plan = FoundingPlan(("n1",))
    node = Node(storage, Options(), clock=lambda: 1, rng=Random(1), request_timeout_ms=1, max_waiting=1, plan=plan)
    assert (node.view.known, node.applied) == (True, 100)
    assert storage.hard_state.progress.applied == 100


def test_rule_31_members_that_are_restored_again_found_no_second_cluster() -> None:
    """From the same backup with the same numbers, which the first cluster has given out since."""
    members = [restored(name, 11) for name in NAMES]
    talk(*members)
    again = [restored(name, 99) for name in NAMES[:2]]
    talk(*again)
    assert founded(*again) == [False, False]
    talk(*again, members[2])
    assert founded(*again) == [False, False]
    assert [member.node.applied for member in again] == [0, 0]


@pytest.mark.parametrize("other", ["n1", "n3"])
@pytest.mark.parametrize("slot", [None, 200])
def test_rule_31_members_that_begin_with_different_states_found_no_cluster_and_name_each_other(
    other: str, slot: int | None
) -> None:
    """Neither a member without data nor one that was restored with other numbers takes part."""
    odd = FoundingHost(other, 11) if slot is None else restored(other, 11, slot)
    alike = [restored(name, 11) for name in NAMES if name != other]
    talk(odd, *alike)
    assert founded(odd, *alike) == [False] * 3
    assert all(member.storage.hard_state.founding is None for member in (odd, *alike))
    assert odd.node.founding.unlike == {member.node.id: "100:a" for member in alike}
    for member in alike:
        assert member.node.founding.unlike == {other: "" if slot is None else "200:a"}
    odd = restored(other, 12)  # as the message advises
    talk(odd, *alike)
    assert founded(odd, *alike) == [True] * 3
    assert odd.node.founding.unlike == alike[0].node.founding.unlike == {}


def test_rule_31_a_member_agrees_to_no_list_with_another_mark() -> None:
    """It may have told the mark of a state that it has dropped since."""
    one = FoundingHost("n3", 11)
    listed = tuple(dict.fromkeys(NAMES, 11).items())
    for name in ("n1", "n2"):
        one.node.receive(name, FoundingState(11, listed, (), founded=False, restored="100:a"))
    one.messages()
    assert (one.storage.hard_state.founding, one.node.view.known) == (None, False)


@pytest.mark.parametrize("writes", range(3))
def test_a_restored_member_that_dies_during_the_founding_continues_it(writes: int) -> None:
    n1, n2, n3 = (restored(name, 11) for name in NAMES)
    talk(n1, n2, n3, rounds=writes)
    n3.restart()
    talk(n1, n2, n3)
    assert voters(n3) == dict.fromkeys(NAMES, 11)
    assert (n3.node.applied, records(n3)) == (100, RESTORED)


def test_a_restored_member_that_has_agreed_votes_before_it_knows_that_the_cluster_is_founded() -> None:
    n3 = restored("n3", 11)
    agreed = Founding(tuple(dict.fromkeys(NAMES, 11).items()), restored="100:a")
    n3.storage.write([StateWrite(founding=agreed)])
    n3.restart()
    n3.node.receive("n1", Heartbeat(Ballot(1, "n1"), 1, 0))
    n3.node.receive("n1", Accept(Ballot(1, "n1"), 101, b"", 100))
    n3.messages()
    assert (n3.node.applied, n3.storage.hard_state.last) == (0, 101)
    n3.restart()
    for name in ("n1", "n2"):
        n3.node.receive(name, FoundingState(11, agreed.members, (), founded=False, restored="100:a"))
    n3.messages()
    assert (n3.node.view.known, n3.node.applied, n3.storage.hard_state.last) == (True, 100, 101)
    n3.node.receive("n1", Heartbeat(Ballot(1, "n1"), 2, 101))
    n3.messages()
    assert n3.node.applied == 101


def serve(source: FoundingHost, member: FoundingHost) -> None:
    """Let `member` have what it asks of `source`: the state, page by page."""
    for _ in range(10):
        member.node.incarnations = {source.node.id: 1}
        member.now += RETRY_MS * MS
        ready = member.node.step()
        if ready.write is not None:
            member.storage.write([ready.write])
            member.node.durable([ready.write])
        for envelope in ready.messages:
            if isinstance(envelope.message, FetchSnapshot) and envelope.to == source.node.id:
                page = source.storage.read_state(envelope.message.after, 1 << 20)
                member.node.receive(source.node.id, state_message(envelope.message.after, page))


def running_cluster(slot: int | None) -> FoundingHost:
    """n1 of a cluster without n3, which was founded with a restored state or without data, and has applied a slot."""
    n1, n2 = (
        FoundingHost(name, 11, ("n3",)) if slot is None else restored(name, 11, slot, ("n3",)) for name in NAMES[:2]
    )
    talk(n1, n2)
    first = n1.node.applied + 1
    n1.node.receive("n2", Heartbeat(Ballot(1, "n2"), 1, 0))
    n1.node.receive("n2", Accept(Ballot(1, "n2"), first, b"", 0))
    n1.node.receive("n2", Heartbeat(Ballot(1, "n2"), 2, first))
    n1.messages()
    n1.node.hold_state("backup", 0)
    n1.messages()
    assert n1.storage.hard_state.progress.applied == first
    return n1


@pytest.mark.parametrize("slot", [None, 50, 100])
def test_a_restored_member_joins_a_cluster_that_runs_as_if_it_had_no_data(slot: int | None) -> None:
    """Its restored state gives way to that of the cluster, which may be at lower slots."""
    n1, n3 = running_cluster(slot), restored("n3", 13)
    serve(n1, n3)
    assert n3.node.view.known
    assert (n3.node.applied, n3.node.founding.restored) == (n1.node.applied, n1.node.founding.restored)
    assert records(n3) == records(n1)
    n3.restart()
    assert (n3.node.applied, records(n3)) == (n1.node.applied, records(n1))
    assert n3.node.founding.restored == n1.node.founding.restored


@pytest.mark.parametrize("slot", [None, 50])
@pytest.mark.parametrize("again", [None, 100])
def test_a_replaced_member_shows_the_mark_of_the_cluster_and_none_of_its_own(
    slot: int | None, again: int | None
) -> None:
    """Until it has the state of the cluster, it shows how its own data begins."""
    n1 = running_cluster(slot)
    n3 = FoundingHost("n3", 13, joins=True) if again is None else restored("n3", 13, again)
    assert n3.node.founding.restored == ("" if again is None else f"{again}:a")
    serve(n1, n3)
    assert n3.node.founding.restored == ("" if slot is None else f"{slot}:a") == n1.node.founding.restored
    n3.restart()
    assert n3.node.founding.restored == n1.node.founding.restored


def test_rule_31_no_snapshot_takes_the_place_of_a_state_with_which_a_cluster_may_be_founded() -> None:
    """All members have agreed, so the cluster that sends it is this one; unless a replica says otherwise."""
    n1, n3 = running_cluster(100), restored("n3", 13)
    n3.storage.write([StateWrite(founding=Founding((("n1", 11), ("n3", 13)), ("n2",), restored="100:a"))])
    n3.restart()
    serve(n1, n3)
    assert (n3.node.view.known, n3.storage.hard_state.restored is not None) == (False, True)
    n3.node.receive("n1", FoundingState(11, (), (), founded=True, restored="100:a"))
    serve(n1, n3)
    assert (n3.node.applied, n3.storage.hard_state.restored) == (101, None)
