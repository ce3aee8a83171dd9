"""A state on its way: the pages, the one that takes them, and the one that is asked."""

import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kvstore.api.commands import Command, Delete, Put
from kvstore.replica.applier import Applier
from kvstore.replica.snapshot_receive import END, RETRY_MS, STATE_BYTES_PER_S, IncomingSnapshot
from kvstore.replica.snapshot_send import IDLE_MS, MAX_WAIT_MS, OutgoingSnapshots, state_message
from paxos.messages import FetchSnapshot, SnapshotPage
from paxos.types import MS, NodeId
from storage.base import AppliedProgress, Change, StagedPage, StatePage, StateWrite, first_of, revision_of
from storage.memory import MemoryStorage
from tests.unit.kvstore.memberships import genesis
from tests.unit.kvstore.replica.sources import VOTERS, Source, puts

NOW = 10**12
LATER = RETRY_MS * MS
A, B, C = puts(b"a", b"b", b"c")


class SnapshotTaker:
    """A replica that is being given a state: its disk confirms at once."""

    def __init__(self, storage: MemoryStorage | None = None, *, sources: tuple[NodeId, ...] = ("n2", "n3")) -> None:
        self.storage = storage or MemoryStorage("test", "n1")
        self.sources = list(sources)
        self.incoming = IncomingSnapshot(self.storage)
        self.now = NOW
        self.applied = 0
        self.applier: Applier | None = None

    def restarted(self) -> "SnapshotTaker":
        again = SnapshotTaker(self.storage.reopen())
        again.sources, again.applied = self.sources, self.applied
        return again

    def asks(self, *, only_end: bool = False) -> tuple[NodeId, int] | None:
        """Whom, and for what behind which revision."""
        asked = self.incoming.request(self.sources, self.now, only_end=only_end)
        if asked is None:
            return None
        source, question = asked
        return source, question.after if only_end else revision_of(question.after)

    def asks_again(self) -> tuple[NodeId, int] | None:
        """After the time that a question is left to be answered."""
        self.now += LATER
        return self.asks()

    def takes(self, sender: NodeId, message: SnapshotPage) -> bool:
        """Whether the page was of use; it is stored then, and the time for the next question has come."""
        taken = self.incoming.take(sender, message, self.applied, self.now)
        if taken is None:
            return False
        staged, self.applier = taken
        assert self.asks() is None
        self.storage.write([StateWrite(staged=staged)])
        self.incoming.stored()
        self.now = max(self.now, self.incoming.next_deadline() or 0)
        return True

    def fetch(self, sources: dict[NodeId, Source], max_bytes: int) -> Applier:
        """Until the state is whole."""
        for _ in range(1000):
            asked = self.asks() or self.asks_again()
            assert asked is not None
            source, after = asked
            self.takes(source, sources[source].answer(FetchSnapshot(first_of(after)), max_bytes))
            if self.applier is not None:
                return self.applier
        raise AssertionError("it never ends")


def installed(receiver: SnapshotTaker) -> list[Change]:
    return receiver.storage.read_state(0, 1 << 20).changes


# The pages


def test_a_page_goes_over_as_it_is() -> None:
    source = Source(A, Delete(b"a"), B)
    receiver = SnapshotTaker()
    assert receiver.asks() == ("n2", 0)
    assert receiver.takes("n2", source.answer(FetchSnapshot(first_of(0))))
    assert installed(receiver) == source.storage.read_state(0, 1 << 20).changes
    assert receiver.storage.hard_state.progress == source.applier.progress()
    assert receiver.applier is not None
    assert receiver.applier.progress() == source.applier.progress()
    assert receiver.applier.machine.records == source.applier.machine.records


@pytest.mark.parametrize("max_bytes", [1, 3, 4, 5, 8, 100])
def test_pages_of_any_size_make_the_same_state(max_bytes: int) -> None:
    source = Source(*puts(b"aa", b"b", b"aa", b"cccc"), Delete(b"b"), *puts(b"b", b"d"))
    applier = SnapshotTaker(sources=("n2",)).fetch({"n2": source}, max_bytes)
    assert applier.progress() == source.applier.progress()
    assert applier.machine.records == source.applier.machine.records


def test_the_page_behind_every_revision_says_as_of_when_the_state_is_and_holds_no_row() -> None:
    source = Source(A, B)
    receiver = SnapshotTaker()
    assert receiver.asks(only_end=True) == ("n2", END)
    message = source.answer(FetchSnapshot(END))
    assert receiver.incoming.take_end("n3", message) is None
    assert receiver.incoming.take_end("n2", source.answer(FetchSnapshot(first_of(0)))) is None
    assert receiver.incoming.take_end("n2", replace(message, checksum=1)) is None
    assert receiver.incoming.take_end("n2", message) == source.applier.progress()
    assert receiver.asks() is None
    receiver.incoming.request_at_once()
    assert receiver.asks() == ("n2", 0)


# Asking


def test_one_question_at_a_time_and_after_a_while_the_next_source() -> None:
    receiver = SnapshotTaker()
    assert receiver.incoming.next_deadline() is None
    assert receiver.asks() == ("n2", 0)
    assert receiver.incoming.next_deadline() == NOW + LATER
    receiver.now += LATER - 1
    assert receiver.asks() is None
    receiver.now += 1
    assert receiver.asks() == ("n3", 0)
    assert receiver.asks() is None
    assert receiver.asks_again() == ("n2", 0)


def test_whoever_answers_is_asked_on_as_long_as_it_is_there() -> None:
    source = Source(A, B, C)
    receiver = SnapshotTaker(sources=("n2", "n3", "n4"))
    assert receiver.asks() == ("n2", 0)
    assert receiver.asks_again() == ("n3", 0)
    assert receiver.takes("n3", source.answer(FetchSnapshot(first_of(0)), 2))
    assert receiver.asks() == ("n3", 1)
    assert receiver.takes("n3", source.answer(FetchSnapshot(first_of(1)), 2))
    receiver.sources = ["n4", "n2"]
    assert receiver.asks() == ("n4", 2)


def test_rule_26_nothing_is_asked_before_the_last_page_is_stored() -> None:
    receiver = SnapshotTaker()
    receiver.asks()
    message = Source(A, B).answer(FetchSnapshot(first_of(0)), 2)
    assert receiver.incoming.take("n2", message, 0, NOW) is not None
    assert receiver.asks_again() is None
    assert receiver.incoming.take("n2", message, 0, NOW) is None
    receiver.incoming.stored()
    assert receiver.asks() == ("n2", 1)


def test_rule_26_a_state_is_asked_for_no_faster_than_its_share_of_disk_and_cores_allows() -> None:
    value = bytes(STATE_BYTES_PER_S // 100)
    source = Source(*(Put(b"%d" % number, value) for number in range(5)))
    receiver = SnapshotTaker()
    asked_at = []
    for after in range(4):
        assert receiver.asks() == ("n2", after)
        asked_at.append(receiver.now)
        receiver.now += MS  # what the answer takes
        assert receiver.takes("n2", source.answer(FetchSnapshot(first_of(after)), 2))
        receiver.now -= 1
        assert receiver.asks() is None
        receiver.now += 1
    between = [later - earlier for earlier, later in pairwise(asked_at)]
    assert all(10 * MS <= pause <= 10.1 * MS for pause in between), between


def test_whoever_has_nobody_to_ask_waits_for_nothing() -> None:
    receiver = SnapshotTaker(sources=())
    assert receiver.asks() is None
    assert receiver.incoming.next_deadline() is None
    receiver.sources = ["n3"]
    assert receiver.asks() == ("n3", 0)
    receiver.sources = []
    assert receiver.asks_again() is None
    assert receiver.incoming.next_deadline() is None


def test_rule_25_a_page_of_another_question_or_of_nobody_who_was_asked_is_not_taken() -> None:
    source = Source(A, B, C)
    receiver = SnapshotTaker()
    assert not receiver.takes("n2", source.answer(FetchSnapshot(first_of(0)), 2))
    receiver.asks()
    assert not receiver.takes("n3", source.answer(FetchSnapshot(first_of(0)), 2))
    assert not receiver.takes("n2", source.answer(FetchSnapshot(first_of(1)), 2))
    assert receiver.takes("n2", source.answer(FetchSnapshot(first_of(0)), 2))
    receiver.asks()
    assert not receiver.takes("n2", source.answer(FetchSnapshot(first_of(0)), 2))
    assert not receiver.takes("n2", source.answer(FetchSnapshot(first_of(2)), 2))
    assert receiver.takes("n2", source.answer(FetchSnapshot(first_of(1)), 2))


def test_rule_5_a_page_that_is_not_what_was_sent_is_asked_for_again() -> None:
    source = Source(A, B)
    sound = source.answer(FetchSnapshot(first_of(0)), 2)
    bad = [
        replace(sound, checksum=sound.checksum ^ 1),
        replace(sound, rows=sound.rows[:-1] + b"\x07"),
        replace(sound, rows=b"no rows", checksum=zlib.crc32(b"no rows")),
        replace(sound, end=b"no progress"),
    ]
    receiver = SnapshotTaker()
    receiver.asks()
    for message in bad:
        assert not receiver.takes("n2", message)
    assert receiver.asks_again() == ("n3", 0)
    assert receiver.takes("n3", sound)


# Restarts and other sources


def test_a_receiver_that_restarts_goes_on_where_it_was() -> None:
    source = Source(*puts(b"a", b"b", b"c", b"d"))
    receiver = SnapshotTaker()
    for after in (0, 1):
        receiver.asks()
        assert receiver.takes("n2", source.answer(FetchSnapshot(first_of(after)), 2))
    again = receiver.restarted()
    assert again.asks() == ("n2", 2)
    applier = again.fetch({"n2": source, "n3": source}, 2)
    assert applier.progress() == source.applier.progress()
    assert installed(again) == source.storage.read_state(0, 1 << 20).changes


def test_a_page_that_was_not_stored_before_a_restart_is_asked_for_again() -> None:
    source = Source(A, B, C)
    receiver = SnapshotTaker()
    receiver.asks()
    assert receiver.takes("n2", source.answer(FetchSnapshot(first_of(0)), 2))
    receiver.asks()
    assert receiver.incoming.take("n2", source.answer(FetchSnapshot(first_of(1)), 2), 0, NOW) is not None
    again = receiver.restarted()
    assert again.asks() == ("n2", 1)


def test_a_receiver_that_finished_before_a_restart_begins_anew_the_next_time() -> None:
    source = Source(A, B)
    receiver = SnapshotTaker()
    receiver.fetch({"n2": source}, 2)
    assert receiver.restarted().asks() == ("n2", 0)
    assert receiver.asks() == ("n2", 0)


def test_another_source_goes_on_where_the_first_one_stopped() -> None:
    source, other = Source(A, B, C), Source(A, B, C, Put(b"d", b"4"))
    receiver = SnapshotTaker()
    receiver.asks()
    assert receiver.takes("n2", source.answer(FetchSnapshot(first_of(0)), 2))
    receiver.asks()
    assert receiver.asks_again() == ("n3", 1)
    assert receiver.takes("n3", other.answer(FetchSnapshot(first_of(1))))
    assert receiver.applier is not None
    assert receiver.applier.machine.records == other.applier.machine.records


def test_rule_25_a_source_that_has_compacted_behind_what_is_here_lacks_deletions_so_all_begins_anew() -> None:
    """`a` is in the first page; that it was deleted is compacted before the second one."""
    source = Source(A, B, Delete(b"a"), C)
    receiver = SnapshotTaker()
    receiver.asks()
    assert receiver.takes("n2", source.answer(FetchSnapshot(first_of(0)), 2))
    receiver.asks()
    source.compact(3)
    assert not receiver.takes("n2", source.answer(FetchSnapshot(first_of(1))))
    assert receiver.asks() is None
    assert receiver.asks_again() == ("n3", 0)
    assert receiver.takes("n3", source.answer(FetchSnapshot(first_of(0))))
    assert receiver.applier is not None
    assert receiver.applier.machine.get(b"a") is None


def test_what_was_compacted_up_to_where_the_pages_are_changes_nothing_for_those_that_follow() -> None:
    source = Source(A, Put(b"a", b"2"), B, C)
    receiver = SnapshotTaker()
    receiver.asks()
    assert receiver.takes("n2", source.answer(FetchSnapshot(first_of(0)), 4))
    receiver.asks()
    source.compact(2)
    assert receiver.takes("n2", source.answer(FetchSnapshot(first_of(2))))
    assert receiver.applier is not None
    assert receiver.applier.machine.superseded_bytes == source.applier.machine.superseded_bytes


def sparse(*, compact: int, more: tuple[Command, ...] = ()) -> Source:
    """Revisions 1 to 8, of which 1, 3 and 8 and so on are alive."""
    source = Source(A, B, C, Put(b"b", b"2"), Put(b"b", b"3"), Delete(b"b"), Put(b"d", b"4"), Put(b"e", b"5"), *more)
    source.compact(compact)
    return source


def test_the_pages_of_a_compacted_state_follow_each_other_before_they_reach_what_it_is_compacted_to() -> None:
    source = sparse(compact=7)
    receiver = SnapshotTaker(sources=("n2",))
    applier = receiver.fetch({"n2": source}, 2)
    assert applier.machine.records == source.applier.machine.records
    assert installed(receiver) == source.storage.read_state(0, 1 << 20).changes
    assert [revision_of(change.position) for change in installed(receiver)] == [1, 3, 7, 8]


def test_they_do_so_over_a_restart() -> None:
    source = sparse(compact=7)
    receiver = SnapshotTaker(sources=("n2",))
    receiver.asks()
    assert receiver.takes("n2", source.answer(FetchSnapshot(first_of(0)), 2))
    applier = receiver.restarted().fetch({"n2": source}, 2)
    assert applier.machine.records == source.applier.machine.records


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("compact", [2, 5, 6])
def test_rule_25_a_source_that_has_compacted_less_far_and_beyond_what_is_here_is_begun_with_anew(
    compact: int, restart: bool
) -> None:
    """Storage would refuse the page, and the process would end."""
    first, other = sparse(compact=7), sparse(compact=compact)
    receiver = SnapshotTaker()
    receiver.asks()
    assert receiver.takes("n2", first.answer(FetchSnapshot(first_of(0)), 2))
    if restart:
        receiver = receiver.restarted()
    receiver.asks()
    receiver.asks_again()
    assert not receiver.takes(receiver.incoming._source, other.answer(FetchSnapshot(first_of(1)), 2))
    assert receiver.fetch({"n2": other, "n3": other}, 2).machine.records == other.applier.machine.records


@pytest.mark.parametrize("restart", [False, True])
def test_rule_25_between_pages_of_a_compacted_state_one_that_is_not_so_stays_no_secret(restart: bool) -> None:
    """The first source again, after a page of one that has compacted nothing: a deletion could be missing between."""
    first, other = sparse(compact=7), sparse(compact=0)
    receiver = SnapshotTaker()
    receiver.asks()
    assert receiver.takes("n2", first.answer(FetchSnapshot(first_of(0)), 2))
    receiver.asks()
    receiver.asks_again()
    assert receiver.takes("n3", other.answer(FetchSnapshot(first_of(1)), 2))
    if restart:
        receiver = receiver.restarted()
        receiver.asks()
    else:
        receiver.asks()
        receiver.asks_again()
    assert not receiver.takes("n2", first.answer(FetchSnapshot(first_of(2)), 2))
    assert receiver.asks_again() == ("n3", 0)


@pytest.mark.parametrize("restart", [False, True])
def test_rule_25_a_state_that_ends_before_what_its_first_page_left_out_is_not_taken(restart: bool) -> None:
    """Of what the lagging source holds nothing is missing; but it cannot be compacted beyond its end."""
    commands = [A, B, C]
    first, lagging = Source(*commands, *puts(b"d", b"e")), Source(*commands)
    first.compact(5)
    receiver = SnapshotTaker()
    receiver.asks()
    assert receiver.takes("n2", first.answer(FetchSnapshot(first_of(0)), 2))
    if restart:
        receiver = receiver.restarted()
    receiver.asks()
    receiver.asks_again()
    assert not receiver.takes(receiver.incoming._source, lagging.answer(FetchSnapshot(first_of(1))))
    assert receiver.applier is None
    assert receiver.fetch({"n2": first, "n3": first}, 2).progress() == first.applier.progress()


@pytest.mark.parametrize("restart", [False, True])
def test_rule_25_a_received_state_has_no_history_before_the_one_that_its_first_page_left_out(restart: bool) -> None:
    """The second source still has superseded rows that the first one has compacted. The first page lacks some of
    them."""
    commands = puts(b"a", b"b", b"c", b"a", b"d", b"a", b"e", b"f")
    sources = {"n2": Source(*commands), "n3": Source(*commands, node="n3")}
    sources["n2"].compact(5)
    sources["n3"].compact(3)
    receiver = SnapshotTaker()
    assert receiver.asks() == ("n2", 0)
    assert receiver.takes("n2", sources["n2"].answer(FetchSnapshot(0), 6))
    receiver.sources = ["n3"]
    while receiver.applier is None:
        asked = receiver.asks() or receiver.asks_again()
        assert asked is not None
        assert receiver.takes("n3", sources["n3"].answer(FetchSnapshot(first_of(asked[1])), 6))
        if restart and receiver.applier is None:
            receiver = receiver.restarted()
    assert receiver.applier.machine.history.oldest == 5


def test_rule_25_a_source_that_lags_behind_what_is_applied_here_is_of_no_use() -> None:
    source = Source(A, B)
    receiver = SnapshotTaker()
    receiver.applied = 2
    receiver.asks()
    assert not receiver.takes("n2", source.answer(FetchSnapshot(first_of(0))))
    assert receiver.asks() is None
    assert receiver.asks_again() == ("n3", 0)
    source.apply(C)
    assert receiver.takes("n3", source.answer(FetchSnapshot(first_of(0))))


def test_rule_5_a_state_without_its_digest_is_not_taken_and_another_source_is_asked() -> None:
    source = Source(A, B)
    page = source.storage.read_state(0, 1 << 20)
    assert page.progress is not None
    for wrong in (
        page._replace(changes=page.changes[1:]),
        page._replace(changes=[page.changes[0]._replace(value=b"other"), page.changes[1]]),
        page._replace(progress=replace(page.progress, digest=page.progress.digest + 1)),
        page._replace(progress=replace(page.progress, position=first_of(1))),
    ):
        receiver = SnapshotTaker()
        receiver.asks()
        assert not receiver.takes("n2", state_message(0, wrong))
        assert receiver.storage.hard_state.progress == AppliedProgress()
        assert receiver.asks_again() == ("n3", 0)


steps = st.tuples(
    st.sampled_from(["n2", "n3"]), st.integers(0, 12), st.integers(0, 12), st.integers(1, 6), st.booleans()
)
changes: st.SearchStrategy[Command] = st.one_of(
    st.builds(Put, st.sampled_from([b"a", b"b", b"c"]), st.binary(max_size=2)),
    st.builds(Delete, st.sampled_from([b"a", b"b", b"c"])),
)


@settings(max_examples=200)
@given(st.lists(changes, min_size=3, max_size=12), st.lists(steps, max_size=12))
def test_rule_25_whatever_is_compacted_whoever_lags_or_restarts_the_state_is_that_of_some_slot(
    commands: list[Command], run: list[tuple[NodeId, int, int, int, bool]]
) -> None:
    """Two sources that apply the same, each as far as it is, and compact as they like. Storage verifies each page."""
    sources = {"n2": Source(), "n3": Source()}
    receiver = SnapshotTaker()
    for name, apply, compact, max_bytes, restart in run:
        source = sources[name]
        source.apply(*commands[source.applier.applied : max(apply, source.applier.applied)])
        source.compact(
            max(revision_of(source.storage.hard_state.compact), min(compact, source.applier.machine.revision))
        )
        if restart:
            receiver = receiver.restarted()
        asked = receiver.asks() or receiver.asks_again()
        assert asked is not None
        peer, after = asked
        receiver.takes(peer, sources[peer].answer(FetchSnapshot(first_of(after)), max_bytes))
        if receiver.applier is not None:
            expected = Source(*commands[: receiver.applier.applied])
            assert receiver.applier.progress() == expected.applier.progress()
            assert receiver.applier.machine.records == expected.applier.machine.records
            receiver = receiver.restarted()
            receiver.applied = receiver.storage.hard_state.progress.applied


# Whoever is asked


def test_rule_26_compaction_waits_for_whoever_fetches_and_for_nobody_else() -> None:
    outgoing = OutgoingSnapshots()
    assert not outgoing.defer_compaction(NOW)
    outgoing.requested("n2", FetchSnapshot(first_of(0)), NOW)
    outgoing.requested("n3", FetchSnapshot(first_of(0)), NOW)
    assert outgoing.defer_compaction(NOW)
    outgoing.ended("n2")
    outgoing.ended("n2")
    assert outgoing.defer_compaction(NOW)
    outgoing.ended("n3")
    assert not outgoing.defer_compaction(NOW)


def test_rule_26_compaction_waits_no_longer_for_one_that_fell_silent() -> None:
    outgoing = OutgoingSnapshots()
    outgoing.requested("n2", FetchSnapshot(first_of(0)), NOW)
    assert outgoing.defer_compaction(NOW + IDLE_MS * MS - 1)
    assert not outgoing.defer_compaction(NOW + IDLE_MS * MS)
    outgoing.requested("n2", FetchSnapshot(first_of(5)), NOW + IDLE_MS * MS)
    assert outgoing.defer_compaction(NOW + IDLE_MS * MS)


def test_rule_26_compaction_waits_for_nobody_for_ever() -> None:
    outgoing = OutgoingSnapshots()
    outgoing.requested("n2", FetchSnapshot(first_of(0)), NOW)
    now = NOW
    while now < NOW + MAX_WAIT_MS * MS:
        assert outgoing.defer_compaction(now)
        now += IDLE_MS * MS // 2
        outgoing.requested("n2", FetchSnapshot(first_of(7)), now)
    assert not outgoing.defer_compaction(now)
    outgoing.requested("n2", FetchSnapshot(first_of(0)), now)
    assert outgoing.defer_compaction(now)


def test_an_empty_state_is_a_state() -> None:
    receiver = SnapshotTaker()
    receiver.asks()
    page = StatePage([], 0, Applier(genesis(VOTERS)).progress())
    assert not receiver.takes("n2", state_message(0, page))
    receiver.applied = -1
    receiver.asks_again()
    assert receiver.takes("n3", state_message(0, page))
    assert StagedPage(0, page).page.changes == []
