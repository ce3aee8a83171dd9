"""The comparison of watches, reads of the past, leases and locks."""

import msgspec
import pytest

from tests.torture.histories.changes import (
    AcknowledgedChange,
    ObservedChange,
    PastList,
    PastRead,
    WatchSegment,
    judge_changes,
)
from tests.torture.histories.clients import CompactedAnswer
from tests.torture.histories.leases import FencedWrite, LeaseEnding, LeaseHistory, LockHold, judge_leases
from tests.torture.histories.run import HISTORY_REVISIONS, too_early

A1 = ObservedChange(1, "a", "x", 1, 1)
B2 = ObservedChange(2, "b", "y", 1, 2)
A2 = ObservedChange(2, "a", "z", 2, 1)
GONE = ObservedChange(4, "a", None, 0, 0)
ALL = [A1, B2, A2, GONE]
SENT = {"x": "a", "y": "b", "z": "a"}
ACKNOWLEDGED = [AcknowledgedChange(each.revision, each.key, each.value) for each in ALL]
READS = [
    PastRead("n1", 1, "a", "x", 1, 1, 1),
    PastRead("n2", 3, "a", "z", 2, 2, 1),
    PastRead("n3", 4, "a", None, 0, 0, 0),
    PastRead("n1", 1, "b", None, 0, 0, 0),
]
LISTS = [PastList("n1", 2, "", [A2, B2]), PastList("n1", 4, "", [B2])]


def everything(*changes: ObservedChange) -> WatchSegment:
    return WatchSegment("plain", "", single=False, first=1, upto=4, changes=list(changes or ALL))


def single(*changes: ObservedChange) -> WatchSegment:
    return WatchSegment("single", "a", single=True, first=2, upto=4, changes=list(changes or [A2, GONE]))


def violations(
    *segments: WatchSegment,
    sent: dict[str, str] = SENT,
    reads: list[PastRead] = READS,
    lists: list[PastList] = LISTS,
) -> list[str]:
    return judge_changes(segments or [everything(), single()], ACKNOWLEDGED, sent, reads, lists).violations


def test_watches_and_reads_that_agree_are_right() -> None:
    found = judge_changes([everything(), single()], ACKNOWLEDGED, SENT, READS, LISTS)
    assert found.violations == []
    assert (found.watches, found.events, found.changes, found.reads, found.lists, found.listed) == (2, 6, 4, 4, 2, 3)


@pytest.mark.parametrize(
    ("segments", "says"),
    [
        ([everything(), single(GONE)], "but the next change is"),
        ([everything(), single(A2)], "but not"),
        ([everything(A1, B2, A2), single()], "but not"),
        ([everything(), single(A2, A2, GONE)], "but the next change is"),
        ([everything(), single(A2, GONE, GONE)], "beyond the changes"),
        ([everything(A1, B2, A2, GONE), everything(A1, A2, B2, GONE)], "but the next change is"),
        ([everything(), single(A2._replace(value="x"), GONE)], "another watcher"),
        ([everything(A1, A2, GONE)], "was acknowledged"),
        ([everything(B2, A2, GONE)], "was acknowledged"),
    ],
    ids=["lost", "end lost", "end lost by all keys", "twice", "twice at the end", "order", "value", "b", "a"],
)
def test_a_watch_that_differs_is_told(segments: list[WatchSegment], says: str) -> None:
    assert any(says in line for line in violations(*segments, reads=[], lists=[]))


def test_a_change_that_no_watcher_received_shows_in_the_next_version_of_its_key() -> None:
    later = ObservedChange(5, "a", "w", 3, 1)
    segment = msgspec.structs.replace(everything(A1, B2, A2, later), upto=5)
    assert judge_changes([segment], [], {**SENT, "w": "a"}, [], []).violations == []
    segment = msgspec.structs.replace(everything(A1, B2, later), upto=5)
    (line,) = judge_changes([segment], [], {**SENT, "w": "a"}, [], []).violations
    assert "a change between them is missing" in line
    (line,) = judge_changes([everything(A1, B2, A2, GONE, GONE._replace(revision=5))], [], SENT, [], []).violations[1:]
    assert "deletes an absent key" in line


def test_a_value_that_was_not_sent_for_the_key_is_told() -> None:
    assert any("was sent for b" in line for line in violations(sent={**SENT, "x": "b"}))


@pytest.mark.parametrize("read", READS)
def test_a_read_of_the_past_that_differs_is_told(read: PastRead) -> None:
    other = read._replace(value="q" if read.value is None else None)
    (line,) = violations(reads=[other])
    assert f"as of revision {read.revision}" in line


@pytest.mark.parametrize("records", [[A2], [A2, B2, ObservedChange(1, "c", "x", 1, 1)], [A1, B2], []])
def test_a_list_of_the_past_that_differs_is_told(records: list[ObservedChange]) -> None:
    assert len(violations(lists=[PastList("n1", 2, "", records)])) == 1


def test_a_watcher_that_began_later_owes_nothing_before() -> None:
    segment = msgspec.structs.replace(single(), first=3, changes=[GONE])
    assert violations(everything(), segment) == []


def test_only_a_revision_that_is_old_enough_may_be_compacted() -> None:
    kept = HISTORY_REVISIONS // 2
    assert too_early([CompactedAnswer("n1", 5, 2000 - kept, 2000), CompactedAnswer("n1", 5, 0, 10)]) == []
    (line,) = too_early([CompactedAnswer("n1", 1600, 2001 - kept, 2000)])
    assert "had no revision 1600" in line


def test_a_lease_that_ends_after_the_last_renewal_ran_out_is_right() -> None:
    lease = LeaseHistory(7, [100, 300])
    ended = [LeaseEnding(7, 300, "event"), LeaseEnding(8, 1, "of nobody")]
    found = judge_leases([lease], ended, [], [], [])
    assert (found.leases, found.renewals, found.endings, found.violations) == (1, 1, 2, [])
    (line,) = judge_leases([lease], [LeaseEnding(7, 299, "event")], [], [], []).violations
    assert "lease 7 ended 0.0 ms early: event" in line
    revoked = msgspec.structs.replace(lease, revoked_ns=200)
    assert judge_leases([revoked], [LeaseEnding(7, 250, "event")], [], [], []).violations == []
    assert judge_leases([revoked], [LeaseEnding(7, 150, "event")], [], [], []).violations


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (LockHold("l", 4, 6, 99, 200), "was held for"),
        (LockHold("l", 4, 3, 100, 200), "had the fencing token 3 after 5"),
        (LockHold("l", 4, 5, 100, 200), "had the fencing token 5 after 5"),
        (LockHold("m", 4, 5, 50, 200), "5 was given to"),
    ],
)
def test_two_holders_and_tokens_that_do_not_increase_are_told(after: LockHold, says: str) -> None:
    before = LockHold("l", 2, 5, 10, 100)
    assert any(says in line for line in judge_leases([], [], [before, after], [], []).violations)
    assert judge_leases([], [], [before, LockHold("l", 4, 6, 100, 200)], [], []).violations == []


def test_a_number_that_is_given_out_twice_is_told() -> None:
    lease = LeaseHistory(7, [100])
    assert len(judge_leases([lease, lease], [], [], [], []).violations) == 1
    assert len(judge_leases([lease], [], [], [], [7]).violations) == 1


def test_a_write_under_an_earlier_token_after_one_under_a_later_token_is_told() -> None:
    writes = [FencedWrite("l", 5, 10), FencedWrite("l", 9, 20), FencedWrite("m", 6, 25)]
    assert judge_leases([], [], [], writes, []).violations == []
    assert len(judge_leases([], [], [], [*writes, FencedWrite("l", 5, 30)], []).violations) == 1
