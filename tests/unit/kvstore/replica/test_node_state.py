"""A node whose state is stored along with its log, cut, fetched and bounded."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from kvstore.api.commands import Command, Delete, DeleteResult, NotFound, Put, PutResult
from kvstore.api.errors import Outcome, Reason
from kvstore.replica.divergence import EVERY_MS, EVERY_SLOTS
from kvstore.replica.retention import RetentionLimits
from kvstore.replica.snapshot_receive import RETRY_MS
from kvstore.replica.snapshot_send import IDLE_MS, MAX_WAIT_MS
from kvstore.state_machine.digest import RECORD_BYTES
from paxos.messages import (
    Accept,
    AnyMessage,
    Chosen,
    DigestMismatch,
    DigestReply,
    DigestRequest,
    Fetch,
    FetchSnapshot,
    Heartbeat,
    Learn,
    SnapshotPage,
)
from paxos.options import Options
from paxos.ready import Envelope, ServeFetch, ServeSnapshot, Write
from paxos.types import MS, NOOP, Ballot, pack
from storage.base import DamagedError, StateWrite, first_of
from storage.memory import MemoryStorage
from tests.unit.kvstore.replica.host import B1, STALE, NodeHost, refusal, seen, value

NEW = Ballot(9, "n2")
SHORT = RetentionLimits(log_slots=2)
SMALL_PAGES = Options(page_bytes=4)


def put_all(host: NodeHost, *commands: Command) -> None:
    """A slot for each."""
    for command in commands:
        answers = host.write(command)
        host.settle()
        assert len(answers) == 1


def puts(count: int, start: int = 0) -> list[Command]:
    return [Put(b"k%02d" % number, b"v") for number in range(start, start + count)]


def state_writes(host: NodeHost) -> list[StateWrite]:
    return [write for write in host.writes if isinstance(write, StateWrite)]


# Along with the log


def test_rule_6_what_a_follower_applied_is_stored_along_with_what_it_accepts_next() -> None:
    host = NodeHost()
    host.receive("n2", Accept(B1, 1, value(Put(b"k", b"v")), 0), Chosen(B1, 1))
    host.step()
    (write,) = state_writes(host)
    assert ([change.key for change in write.changes], write.chosen) == ([b"k"], 1)
    assert write.progress is not None
    assert (write.progress.applied, write.progress.position) == (1, first_of(1))
    host.sync()
    host.receive("n2", Chosen(B1, 1))
    host.step()
    assert host.writes == []
    host.receive("n2", Accept(B1, 2, NOOP, 1))
    host.step()
    (plain,) = host.writes
    assert type(plain) is Write


def test_rule_6_chosen_alone_is_stored_with_the_next_record() -> None:
    host = NodeHost()
    host.receive("n2", Accept(B1, 1, value(Put(b"k", b"v")), 0))
    host.step()
    host.sync()
    host.receive("n2", Chosen(B1, 1))
    host.step()
    assert host.writes == []
    assert seen(host.read(b"k", STALE)) == [b"v"]
    host.receive("n2", Accept(B1, 2, NOOP, 1))
    host.step()
    (write,) = state_writes(host)
    assert [change.key for change in write.changes] == [b"k"]


def test_rule_6_a_restart_has_the_state_that_was_stored_and_what_was_chosen_behind_it() -> None:
    host = NodeHost()
    host.lead()
    put_all(host, *puts(3), Delete(b"k00"), Put(b"k01", b"w"))
    assert host.storage.hard_state.progress.applied < host.node.applied
    again = NodeHost(host.storage.reopen())
    assert again.node.applied == host.storage.hard_state.chosen
    again.receive("n2", Heartbeat(NEW, 1, 0))
    again.step()
    put = again.write(Put(b"k09", b"x"))
    (propose,) = [one.message for one in again.step() if type(one.message).__name__ == "Propose"]
    tail = [host.storage.read(slot, slot, 1)[0].value for slot in range(again.node.applied + 1, host.node.applied + 1)]
    first = again.node.applied + 1
    values = [*tail, pack(propose.payloads)]  # type: ignore[union-attr]
    again.receive("n2", *[Accept(NEW, slot, each, 0) for slot, each in enumerate(values, first)])
    again.receive("n2", Chosen(NEW, first + len(values) - 1))
    again.step()
    assert put == [PutResult(6, 1)]
    assert again.node.machine.get(b"k00") is None
    assert again.node.machine.records.keys() == {b"k01", b"k02", b"k09"}


@pytest.mark.parametrize("what", ["log", "record"])
def test_rule_5_a_node_does_not_start_on_a_log_or_a_record_that_is_another(what: str) -> None:
    host = NodeHost()
    host.lead()
    put_all(host, *puts(3), Delete(b"k02"))
    storage = host.storage.reopen()
    applied = storage.hard_state.progress.applied
    if what == "log":
        storage._log[applied] = storage._log[applied]._replace(value=value(Put(b"k02", b"x"), origin="n9"))
    else:
        storage._state[first_of(1)] = storage._state[first_of(1)]._replace(value=b"x")
    with pytest.raises(DamagedError):
        NodeHost(storage)


# The quota


def test_above_the_quota_nothing_is_taken_that_makes_the_state_larger() -> None:
    host = NodeHost(quota_bytes=2 * (RECORD_BYTES + 4))
    host.lead()
    put_all(host, Put(b"k1", b"aa"), Put(b"k2", b"bb"))
    assert refusal(host.write(Put(b"k3", b""))) == (Reason.FULL, Outcome.FAILED)
    assert refusal(host.write(Put(b"k1", b"aaa"))) == (Reason.FULL, Outcome.FAILED)
    same, smaller = host.write(Put(b"k1", b"cc")), host.write(Put(b"k2", b""))
    host.settle()
    assert (same, smaller) == ([PutResult(3, 2)], [PutResult(4, 2)])
    assert host.node.waiting == 0


def test_deleting_ends_it() -> None:
    host = NodeHost(quota_bytes=RECORD_BYTES + 4)
    host.lead()
    put_all(host, Put(b"k1", b"aa"))
    assert refusal(host.write(Put(b"k2", b"bb"))) == (Reason.FULL, Outcome.FAILED)
    deleted = host.write(Delete(b"k1"))
    host.settle()
    assert deleted == [DeleteResult(2, 1, 1)]
    again = host.write(Put(b"k2", b"bb"))
    absent = host.write(Delete(b"k9"))
    host.settle()
    assert (again, absent) == ([PutResult(3, 1)], [NotFound(3)])


def test_what_is_in_the_log_is_applied_above_the_quota_all_the_same() -> None:
    """The quota is of those who take requests, and not of the state machine: it need not be the same everywhere."""
    host = NodeHost(quota_bytes=0)
    host.receive("n2", Accept(B1, 1, value(Put(b"k", b"v")), 0), Chosen(B1, 1))
    host.step()
    assert seen(host.read(b"k", STALE)) == [b"v"]


# A log that is cut


def led(*commands: Command, limits: RetentionLimits = SHORT, options: Options | None = None) -> NodeHost:
    """A leader that has applied these, and has stored it."""
    host = NodeHost(limits=limits, options=options)
    host.lead()
    put_all(host, *commands, Put(b"last", b""))
    return host


def test_rule_11_whoever_fetches_what_is_cut_is_told_so_at_once_and_without_a_look_at_storage() -> None:
    host = led(*puts(5))
    cut, chosen = host.storage.hard_state.truncation.slot, host.node.applied
    assert 1 < cut < chosen
    host.receive("n3", Fetch(1), Fetch(cut))
    assert [one for one in host.step() if one.to == "n3"] == [Envelope("n3", Learn((), chosen, cut))] * 2
    assert host.fetches == []
    host.receive("n3", Fetch(cut + 1))
    assert [one for one in host.step() if one.to == "n3"] == []
    assert host.fetches == [ServeFetch("n3", cut + 1, chosen)]
    host.serve()
    (page,) = [one.message for one in host.step() if one.to == "n3"]
    assert isinstance(page, Learn)
    assert ([entry.slot for entry in page.entries], page.truncated) == (list(range(cut + 1, chosen + 1)), cut)


def test_rule_25_no_slot_is_cut_that_is_not_stored_as_applied() -> None:
    host = NodeHost(limits=RetentionLimits(log_slots=0))
    host.lead()
    for command in puts(5):
        host.write(command)
        for write in state_writes(host):
            assert write.truncate is not None
            assert write.progress is not None
            assert write.truncate.slot <= write.progress.applied
        host.settle()
        assert host.storage.hard_state.truncation.slot <= host.storage.hard_state.progress.applied


def test_after_a_restart_it_goes_on_behind_the_cut() -> None:
    host = led(*puts(5))
    again = NodeHost(host.storage.reopen(), limits=SHORT)
    assert again.node.machine.records.keys() >= {b"k00", b"k04"}
    cut = host.storage.hard_state.truncation.slot
    again.receive("n3", Fetch(cut))
    assert again.step() == [Envelope("n3", Learn((), again.node.applied, cut))]


# A state that is fetched


class NodeCluster:
    """A leader n1, and n3 that lags behind its cut; n2 answers the leader everything, and n3 nothing."""

    def __init__(self, *commands: Command, options: Options = SMALL_PAGES, limits: RetentionLimits = SHORT) -> None:
        self.leader = led(*commands, limits=limits, options=options)
        self.learner = NodeHost(MemoryStorage("test", "n3"))
        self.questions: list[FetchSnapshot] = []
        self.answers: list[SnapshotPage] = []

    def beat(self) -> None:
        """The leader is heard: n3 learns how far it lags."""
        host = self.leader
        host.ring()
        for message in host.settle():
            if isinstance(message, Heartbeat):
                self.learner.receive("n1", message)

    def exchange(self, spoil: Callable[[AnyMessage], AnyMessage | None] = lambda message: message) -> None:
        """Until nobody has anything to say any more. What n3 is sent goes through `spoil`; None is lost."""
        for _ in range(1000):
            learner, leader = self.learner, self.leader
            if learner.node.next_deadline() < learner.now + MS:  # the pause between two pages
                learner.ring()
            to_leader = [one.message for one in learner.step() if one.to == "n1"]
            stored = bool(learner.writes)
            learner.sync()
            self.questions += [message for message in to_leader if isinstance(message, FetchSnapshot)]
            leader.receive("n3", *to_leader)
            to_learner = [one.message for one in leader.step() if one.to == "n3"]
            leader.sync()
            leader.serve()
            to_learner += [one.message for one in leader.step() if one.to == "n3"]
            leader.sync()
            self.answers += [message for message in to_learner if isinstance(message, SnapshotPage)]
            if not to_leader and not to_learner and not stored:
                return
            learner.receive("n1", *[spoilt for one in to_learner if (spoilt := spoil(one)) is not None])
        raise AssertionError("they never come to an end")

    @property
    def equal(self) -> bool:
        first, second = self.leader.node, self.learner.node
        same = first.machine.records == second.machine.records
        return same and (first.applied, first.machine.digest) == (second.applied, second.machine.digest)


def pages_lost_behind(after: int) -> Callable[[AnyMessage], AnyMessage | None]:
    return lambda message: None if isinstance(message, SnapshotPage) and message.after >= first_of(after) else message


def test_rule_26_whoever_lags_behind_the_cut_is_sent_the_state_page_by_page_and_the_log_behind_it() -> None:
    cluster = NodeCluster(*puts(8), Delete(b"k03"))
    cluster.beat()
    cluster.exchange()
    assert cluster.equal
    assert [question.after for question in cluster.questions] == [answer.after for answer in cluster.answers]
    assert len(cluster.answers) >= 8
    assert [bool(answer.end) for answer in cluster.answers] == [False] * (len(cluster.answers) - 1) + [True]
    assert cluster.learner.node.stats.snapshots_installed == 1
    assert seen(cluster.learner.read(b"k03", STALE)) == [None]
    assert seen(cluster.learner.read(b"k04", STALE)) == [b"v"]


def test_rule_25_until_the_last_page_is_there_the_state_is_the_old_one() -> None:
    cluster = NodeCluster(*puts(5))
    cluster.beat()
    cluster.exchange(pages_lost_behind(3))
    learner = cluster.learner
    assert (learner.node.applied, learner.node.machine.revision) == (0, 0)
    assert learner.storage.hard_state.staging.position == first_of(3)
    again = NodeHost(learner.storage.reopen())
    assert (again.node.applied, seen(again.read(b"k00", STALE))) == (0, [None])


def test_a_receiver_that_restarts_asks_for_the_next_page_and_not_for_the_first() -> None:
    cluster = NodeCluster(*puts(5))
    cluster.beat()
    cluster.exchange(pages_lost_behind(3))
    cluster.learner = NodeHost(cluster.learner.storage.reopen())
    cluster.questions.clear()
    cluster.beat()
    cluster.exchange()
    assert cluster.questions[0].after == first_of(3)
    assert cluster.equal


def test_rule_5_a_page_with_a_wrong_checksum_is_asked_for_again_after_a_while() -> None:
    cluster = NodeCluster(*puts(3))
    cluster.beat()
    cluster.exchange(lambda message: replace(message, checksum=0) if isinstance(message, SnapshotPage) else message)
    assert [question.after for question in cluster.questions] == [0]
    cluster.learner.later(RETRY_MS - 1)
    cluster.exchange()
    assert len(cluster.questions) == 1
    assert cluster.learner.node.next_deadline() == cluster.learner.now + MS
    cluster.beat()
    cluster.learner.later(1)
    cluster.exchange()
    assert [question.after for question in cluster.questions][:3] == [0, 0, first_of(1)]
    assert cluster.equal


def test_rule_25_a_source_that_compacts_in_between_is_asked_from_the_beginning() -> None:
    """The hold is over, because it lasted too long: the deletion of k00 goes, and n3 holds k00."""
    cluster = NodeCluster(*puts(4), limits=RetentionLimits(log_slots=2, history_revisions=0))
    leader = cluster.leader
    cluster.beat()
    cluster.exchange(pages_lost_behind(2))
    assert cluster.learner.storage.hard_state.staging.position == first_of(2)
    leader.later(MAX_WAIT_MS)
    leader.lead()
    put_all(leader, Delete(b"k00"), *puts(2, start=20))
    assert leader.storage.hard_state.compact > 2
    for _ in range(2):  # it is asked for the next page, and after that for the first
        cluster.learner.later(RETRY_MS)
        cluster.beat()
        cluster.exchange()
    assert [question.after for question in cluster.questions].count(0) == 2
    assert cluster.equal
    assert seen(cluster.learner.read(b"k00", STALE)) == [None]


def test_rule_26_compaction_is_held_for_whoever_fetches_until_the_last_page_and_not_without_bounds() -> None:
    cluster = NodeCluster(*puts(4), limits=RetentionLimits(log_slots=2, history_revisions=0))
    leader = cluster.leader
    cluster.beat()
    cluster.exchange(pages_lost_behind(2))
    compacted = leader.storage.hard_state.compact
    put_all(leader, Put(b"k01", b"w"), Put(b"k01", b"x"), Put(b"k01", b"y"))
    assert leader.storage.hard_state.compact == compacted
    leader.later(IDLE_MS)
    leader.lead()
    put_all(leader, Put(b"k01", b"z"), Put(b"k01", b"a"))
    assert leader.storage.hard_state.compact > compacted
    leader.receive("n3", FetchSnapshot(0))
    leader.step()
    leader.serve()
    compacted = leader.storage.hard_state.compact
    put_all(leader, Put(b"k01", b"b"), Put(b"k01", b"c"))
    assert leader.storage.hard_state.compact == compacted
    leader.receive("n3", FetchSnapshot(leader.storage.hard_state.progress.position))
    leader.step()
    leader.serve()
    put_all(leader, Put(b"k01", b"d"), Put(b"k01", b"e"))
    assert leader.storage.hard_state.compact > compacted


def test_a_source_that_lags_itself_is_of_no_use_and_another_one_is_asked() -> None:
    """n2 has cut the log, too, but the state that it sends is older than what n3 has chosen."""
    cluster = NodeCluster(*puts(5), options=Options())
    learner = cluster.learner
    lagging = cluster.leader.storage.read_state(0, 1 << 20)
    assert lagging.progress is not None
    slots = range(1, lagging.progress.applied + 1)
    learner.receive("n1", *[Accept(Ballot(1, "n1"), slot, NOOP, 0) for slot in slots])
    learner.receive("n1", Chosen(Ballot(1, "n1"), slots[-1]))
    learner.step()
    learner.sync()
    assert learner.node.applied == lagging.progress.applied
    learner.receive("n1", Learn((), slots[-1] + 9, slots[-1] + 5))
    assert learner.node.replica.snapshot_source == "n1"
    cluster.exchange()
    assert learner.node.replica.snapshot_source == "n1"
    assert learner.node.stats.snapshots_installed == 0
    learner.receive("n2", Heartbeat(NEW, 1, 0))
    learner.later(RETRY_MS)
    asked = [one for one in learner.step() if isinstance(one.message, FetchSnapshot)]
    assert asked == [Envelope("n2", FetchSnapshot(0))]


def test_a_replica_asks_for_a_state_only_of_those_that_it_heard_lately() -> None:
    learner = NodeHost(MemoryStorage("test", "n3"))
    learner.receive("n1", Learn((), 9, 5))
    learner.receive("n2", Heartbeat(B1, 1, 0))
    asked = [one for one in learner.step() if isinstance(one.message, FetchSnapshot)]
    assert asked == [Envelope("n1", FetchSnapshot(0))]
    learner.later(RETRY_MS)
    assert [one.to for one in learner.step() if isinstance(one.message, FetchSnapshot)] == ["n2"]
    learner.later(1001)
    assert [one.to for one in learner.step() if isinstance(one.message, FetchSnapshot)] == ["n1"]
    learner.later(RETRY_MS)
    assert [one.to for one in learner.step() if isinstance(one.message, FetchSnapshot)] == ["n1"]


def test_a_state_that_nobody_wants_any_more_is_not_taken() -> None:
    cluster = NodeCluster(*puts(3), options=Options())
    cluster.beat()
    cluster.exchange(lambda message: None if isinstance(message, SnapshotPage) else message)
    (answer,) = cluster.answers
    learner, last = cluster.learner, cluster.leader.node.applied
    learner.receive("n1", *[Accept(Ballot(1, "n1"), slot, NOOP, 0) for slot in range(1, last + 1)])
    learner.receive("n1", Chosen(Ballot(1, "n1"), last), answer)
    learner.step()
    assert learner.node.stats.snapshots_installed == 0
    assert learner.node.machine.revision == 0


def test_a_page_is_read_from_storage_within_bounds() -> None:
    host = led(*puts(3), options=Options())
    host.receive("n3", FetchSnapshot(first_of(2)))
    host.step()
    assert host.fetches == [ServeSnapshot("n3", first_of(2), 64 * 1024)]
    small = led(*puts(3), options=SMALL_PAGES)
    small.receive("n3", FetchSnapshot(0))
    small.step()
    assert small.fetches == [ServeSnapshot("n3", 0, 4)]


def test_a_replica_that_is_joining_has_no_state_to_give() -> None:
    host = NodeHost(joins=True)
    host.receive("n3", FetchSnapshot(0))
    host.step()
    assert host.fetches == []


def test_rule_12_what_was_chosen_before_the_state_came_is_not_applied_to_it() -> None:
    """In one turn: a slot is chosen by the log, then the state takes the place of the old one."""
    cluster = NodeCluster(*puts(5), options=Options())
    cluster.beat()
    cluster.exchange(lambda message: None if isinstance(message, SnapshotPage) else message)
    (answer,) = cluster.answers
    learner = cluster.learner
    learner.receive("n1", Accept(Ballot(1, "n1"), 1, value(Put(b"k", b"v"), origin="n9"), 0))
    learner.receive("n1", Chosen(Ballot(1, "n1"), 1))
    learner.receive("n1", answer)
    learner.step()
    learner.sync()
    assert learner.node.machine.get(b"k") is None
    for _ in range(2):  # the slot behind the state is asked for of n2 first
        learner.later(RETRY_MS)
        cluster.beat()
        cluster.exchange()
    assert cluster.equal


# Rule 24


def noted(host: NodeHost) -> int:
    """The last slot whose digest is compared."""
    return host.node.applied // EVERY_SLOTS * EVERY_SLOTS


def test_rule_24_a_leader_asks_all_others_what_they_hold_and_they_answer() -> None:
    host = led(*puts(EVERY_SLOTS + 2), limits=RetentionLimits())
    host.later(EVERY_MS)
    questions = [one for one in host.step() if isinstance(one.message, DigestRequest)]
    assert [one.to for one in questions] == ["n2", "n3"]
    question = questions[0].message
    assert isinstance(question, DigestRequest)
    assert question.slot == noted(host)
    other = NodeHost(MemoryStorage("test", "n3"))
    slots = host.storage.read(1, host.node.applied, 1 << 20)
    other.receive("n1", Learn(tuple(slots), host.node.applied, 0))
    other.step()
    other.receive("n1", question)
    (answer,) = [one.message for one in other.step() if isinstance(one.message, DigestReply)]
    assert answer == DigestReply(question.slot, question.digest)


def test_rule_24_a_replica_in_the_minority_ends() -> None:
    host = led(*puts(EVERY_SLOTS + 2), limits=RetentionLimits())
    with pytest.raises(DamagedError, match="differs from that of a majority"):
        host.receive("n2", DigestMismatch(noted(host), b"another digest"))


def test_rule_24_the_members_and_the_request_ids_are_compared_too() -> None:
    one, other = NodeHost(), NodeHost(MemoryStorage("test", "n3"))
    for host, origin in ((one, "n8"), (other, "n9")):
        values = [value(Put(b"k", b"v"), origin=origin, sequence=number) for number in range(1, EVERY_SLOTS + 1)]
        host.receive("n2", *[Accept(B1, slot, each, 0) for slot, each in enumerate(values, 1)])
        host.receive("n2", Chosen(B1, EVERY_SLOTS))
        host.step()
        host.receive("n2", DigestRequest(EVERY_SLOTS, b""))
    answers = [
        [envelope.message for envelope in host.step() if isinstance(envelope.message, DigestReply)]
        for host in (one, other)
    ]
    assert one.node.machine.records == other.node.machine.records
    assert answers[0] != answers[1]
