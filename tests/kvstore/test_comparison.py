"""Replicas that compare what they hold (rule 24)."""

import pytest
from msgspec.structs import replace

from kvstore.comparison import EVERY_MS, KEPT, PATIENCE, Comparison
from kvstore.members import Member, MemberRole, Roster, genesis
from paxos.messages import Compare, Compared, Diverged
from paxos.types import MS
from storage.base import DamagedError, Progress, StorageError

THREE = genesis(("n1", "n2", "n3"))[0].roster
SOUND = Progress(applied=16, revision=9, digest=7)
BROKEN = replace(SOUND, digest=8)


def comparison(*states: Progress) -> Comparison:
    made = Comparison()
    for state in states:
        made.note(state)
    return made


def asked(leader: Comparison, now: int = EVERY_MS * MS, roster: Roster = THREE) -> Compare:
    question = leader.due("n1", roster, now)
    assert question is not None
    return question


def answer(replica: Comparison, question: Compare) -> Compared:
    compared = replica.answer(question)
    assert compared is not None
    return compared


def test_rule_24_replicas_that_hold_the_same_are_told_nothing() -> None:
    leader = comparison(SOUND)
    question = asked(leader)
    for peer in ("n2", "n3"):
        assert leader.answered(peer, answer(comparison(SOUND), question), THREE) == {}


def test_rule_24_a_replica_that_differs_from_a_majority_ends() -> None:
    leader, broken = comparison(SOUND), comparison(BROKEN)
    question = asked(leader)
    assert leader.answered("n2", answer(broken, question), THREE) == {}
    verdict = leader.answered("n3", answer(comparison(SOUND), question), THREE)
    assert list(verdict) == ["n2"]
    with pytest.raises(DamagedError, match="as of slot 16 is not that of a majority"):
        broken.check(verdict["n2"])
    leader.check(verdict["n2"])


def test_rule_24_a_leader_that_differs_from_a_majority_ends() -> None:
    leader = comparison(BROKEN)
    question = asked(leader)
    leader.answered("n2", answer(comparison(SOUND), question), THREE)
    verdict = leader.answered("n3", answer(comparison(SOUND), question), THREE)
    assert list(verdict) == ["n1"]
    with pytest.raises(DamagedError):
        leader.check(verdict["n1"])


def test_rule_24_where_no_majority_says_who_is_right_the_leader_ends_after_a_while() -> None:
    leader = comparison(SOUND)
    for number in range(1, PATIENCE + 2):
        question = asked(leader, now=number * EVERY_MS * MS)
        other = Compared(question.slot, b"another digest")
        assert leader.answered("n2", other, THREE) == {}
        leader.note(replace(SOUND, applied=16 * (number + 1)))
    with pytest.raises(StorageError, match="no majority says which is right"):
        leader.due("n1", THREE, (PATIENCE + 2) * EVERY_MS * MS)


def test_rule_29_only_those_who_hold_the_state_and_vote_make_the_majority() -> None:
    roster = Roster(1, (Member("n1", ""), Member("n2", ""), Member("n3", "", MemberRole.LEARNER)))
    leader = comparison(SOUND)
    question = asked(leader, roster=roster)
    assert leader.answered("n3", answer(comparison(SOUND), question), roster) == {}
    assert leader.answered("n2", answer(comparison(SOUND), question), roster) == {}
    assert list(leader.answered("n3", Compared(question.slot, b"other"), roster)) == ["n3"]


def test_a_slot_is_compared_once_and_not_too_often() -> None:
    leader = comparison(SOUND)
    assert leader.due("n1", THREE, EVERY_MS * MS - 1) is None
    asked(leader)
    assert leader.due("n1", THREE, 9 * EVERY_MS * MS) is None
    assert comparison().due("n1", THREE, 9 * EVERY_MS * MS) is None


def test_a_replica_that_knows_no_digest_of_the_slot_says_nothing() -> None:
    late = comparison(*(replace(SOUND, applied=16 * number) for number in range(1, KEPT + 2)))
    assert late.answer(Compare(16, b"")) is None
    assert late.answer(Compare(32, b"")) is not None
    late.check(Diverged(16, b"whatever"))


def test_an_answer_about_another_slot_is_passed_over() -> None:
    leader = comparison(SOUND)
    asked(leader)
    assert leader.answered("n2", Compared(32, b"other"), THREE) == {}
