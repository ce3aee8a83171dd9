"""Replicas that compare what they hold (rule 24)."""

import pytest
from msgspec.structs import replace

from kvstore.api.membership import Member, MemberRole, Membership
from kvstore.replica.divergence import EVERY_MS, MAX_DIGESTS, MAX_UNDECIDED, DivergenceCheck
from paxos.messages import DigestMismatch, DigestReply, DigestRequest
from paxos.types import MS
from storage.base import AppliedProgress, DamagedError, StorageError
from tests.unit.kvstore.memberships import genesis

THREE = genesis(("n1", "n2", "n3"))[0].membership
SOUND = AppliedProgress(applied=16, position=9, digest=7)
BROKEN = replace(SOUND, digest=8)


def divergence(*states: AppliedProgress, node: str = "n1") -> DivergenceCheck:
    made = DivergenceCheck(node)
    for state in states:
        made.note(state)
    return made


def asked(leader: DivergenceCheck, now: int = EVERY_MS * MS, membership: Membership = THREE) -> DigestRequest:
    question = leader.due(membership, now)
    assert question is not None
    return question


def answer(replica: DivergenceCheck, question: DigestRequest) -> DigestReply:
    (envelope,) = replica.receive("n1", question, THREE)
    assert isinstance(envelope.message, DigestReply)
    return envelope.message


def test_rule_24_replicas_that_hold_the_same_are_told_nothing() -> None:
    leader = divergence(SOUND)
    question = asked(leader)
    for peer in ("n2", "n3"):
        assert leader.receive(peer, answer(divergence(SOUND), question), THREE) == []


def test_rule_24_a_replica_that_differs_from_a_majority_ends() -> None:
    leader, broken = divergence(SOUND), divergence(BROKEN)
    question = asked(leader)
    assert leader.receive("n2", answer(broken, question), THREE) == []
    (verdict,) = leader.receive("n3", answer(divergence(SOUND), question), THREE)
    assert verdict.to == "n2"
    assert isinstance(verdict.message, DigestMismatch)
    with pytest.raises(DamagedError, match="as of slot 16 differs from that of a majority"):
        broken.receive("n1", verdict.message, THREE)
    assert divergence(SOUND).receive("n1", verdict.message, THREE) == []


def test_rule_24_a_leader_that_differs_from_a_majority_ends() -> None:
    leader = divergence(BROKEN)
    question = asked(leader)
    leader.receive("n2", answer(divergence(SOUND), question), THREE)
    with pytest.raises(DamagedError):
        leader.receive("n3", answer(divergence(SOUND), question), THREE)


def test_rule_24_two_of_five_are_no_majority_though_nobody_else_has_answered() -> None:
    membership = genesis(("n1", "n2", "n3", "n4", "n5"))[0].membership
    leader = divergence(SOUND)
    question = asked(leader, membership=membership)
    assert leader.receive("n2", answer(divergence(SOUND), question), membership) == []
    assert leader.receive("n3", answer(divergence(BROKEN), question), membership) == []
    (verdict,) = leader.receive("n4", answer(divergence(SOUND), question), membership)
    assert verdict.to == "n3"


def test_rule_24_where_no_majority_says_who_is_right_the_leader_ends_after_a_while() -> None:
    leader = divergence(SOUND)
    for number in range(1, MAX_UNDECIDED + 2):
        question = asked(leader, now=number * EVERY_MS * MS)
        assert leader.receive("n2", DigestReply(question.slot, b"another digest"), THREE) == []
        leader.note(replace(SOUND, applied=16 * (number + 1)))
    with pytest.raises(StorageError, match="no state has a majority"):
        leader.due(THREE, (MAX_UNDECIDED + 2) * EVERY_MS * MS)


def test_rule_29_only_those_who_hold_the_state_and_vote_make_the_majority() -> None:
    membership = Membership(1, (Member("n1", ""), Member("n2", ""), Member("n3", "", MemberRole.LEARNER)))
    leader = divergence(SOUND)
    question = asked(leader, membership=membership)
    assert leader.receive("n3", answer(divergence(SOUND), question), membership) == []
    assert leader.receive("n2", answer(divergence(SOUND), question), membership) == []
    (verdict,) = leader.receive("n3", DigestReply(question.slot, b"other"), membership)
    assert verdict.to == "n3"


def test_a_slot_is_compared_once_and_not_too_often() -> None:
    leader = divergence(SOUND)
    assert leader.due(THREE, EVERY_MS * MS - 1) is None
    asked(leader)
    assert leader.due(THREE, 9 * EVERY_MS * MS) is None
    assert divergence().due(THREE, 9 * EVERY_MS * MS) is None


def test_a_replica_that_knows_no_digest_of_the_slot_says_nothing() -> None:
    late = divergence(*(replace(SOUND, applied=16 * number) for number in range(1, MAX_DIGESTS + 2)))
    assert late.receive("n2", DigestRequest(16, b""), THREE) == []
    assert late.receive("n2", DigestRequest(32, b""), THREE) != []
    assert late.receive("n2", DigestMismatch(16, b"whatever"), THREE) == []


def test_an_answer_about_another_slot_is_passed_over() -> None:
    leader = divergence(SOUND)
    asked(leader)
    assert leader.receive("n2", DigestReply(32, b"other"), THREE) == []
