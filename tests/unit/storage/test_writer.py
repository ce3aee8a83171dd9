"""The thread that owns a Storage: what it joins, in which order it reports, and how it ends."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

import pytest

from paxos.messages import Accepted
from paxos.ready import Envelope, Write
from paxos.types import Ballot, PValue, Slot
from storage.base import StatePage, StorageError
from storage.memory import MemoryStorage
from storage.writer import Writer
from tests.unit.storage.states import WriteMaker

B1 = Ballot(1, "n1")
PATIENCE_S = 300


class SteppedStorage(MemoryStorage):
    """Each transaction waits for a permit, so that a test decides what is queued meanwhile."""

    def __init__(self) -> None:
        super().__init__("test", "n1")
        self.begun: SimpleQueue[list[Write]] = SimpleQueue()
        self.permits = threading.Semaphore(0)
        self.broken: Exception | None = None
        self.closed = False
        self.on_read: Callable[[], None] = lambda: None
        self.maintained: SimpleQueue[bool] = SimpleQueue()
        self.on_tidy: Callable[[], None] = lambda: None
        self.slices = 0
        """How many times `maintain` has something to do."""

    def tidy(self) -> None:
        self.on_tidy()

    def maintain(self) -> bool:
        if self.broken:
            raise self.broken
        self.slices -= 1
        self.maintained.put(self.slices > 0)
        return self.slices > 0

    def write(self, writes: Sequence[Write]) -> None:
        self.begun.put(list(writes))
        assert self.permits.acquire(timeout=PATIENCE_S)
        if self.broken:
            raise self.broken
        super().write(writes)

    def read(self, from_slot: Slot, upto: Slot, max_bytes: int) -> list[PValue]:
        if self.broken:
            raise self.broken
        self.on_read()
        return super().read(from_slot, upto, max_bytes)

    def close(self) -> None:
        self.closed = True


class WriterHost:
    """Runs what the writer posts when a test asks for it, and remembers what was reported."""

    def __init__(self, storage: MemoryStorage) -> None:
        self.posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.durable: list[list[Write]] = []
        self.seconds: list[float] = []
        self.failures: list[Exception] = []
        self.entries: list[list[PValue]] = []
        self.writer = Writer(storage, self.posted.put, self.on_durable, self.failures.append)

    def on_durable(self, writes: list[Write], seconds: float) -> None:
        self.durable.append(writes)
        self.seconds.append(seconds)

    def run_posted(self, count: int) -> None:
        for _ in range(count):
            self.posted.get(timeout=PATIENCE_S)()


def accept(slot: Slot) -> Write:
    return Write(accepts=[PValue(slot, B1, b"value")])


def votes() -> Write:
    return Write(votes=[Envelope("n2", Accepted(B1, 1))])


@pytest.fixture
def storage() -> SteppedStorage:
    return SteppedStorage()


@pytest.fixture
def host(storage: SteppedStorage) -> Iterator[WriterHost]:
    host = WriterHost(storage)
    yield host
    storage.permits.release(100)
    host.writer.stop()


def test_nothing_is_reported_before_it_is_durable(host: WriterHost, storage: SteppedStorage) -> None:
    """Rule 1."""
    host.writer.submit(accept(1))
    storage.begun.get(timeout=PATIENCE_S)
    assert host.posted.empty()
    storage.permits.release()
    host.run_posted(1)
    assert host.durable == [[accept(1)]]
    assert host.seconds[0] > 0
    assert storage.reopen().recovered().last == 1


def test_votes_do_not_wait_for_the_work_that_their_write_made_due(host: WriterHost, storage: SteppedStorage) -> None:
    reported: SimpleQueue[bool] = SimpleQueue()
    storage.on_tidy = lambda: reported.put(not host.posted.empty())
    host.writer.submit(accept(1))
    storage.permits.release()
    assert reported.get(timeout=PATIENCE_S)


def test_what_gathers_during_a_transaction_shares_the_next_one(host: WriterHost, storage: SteppedStorage) -> None:
    first, *rest = [accept(1), votes(), accept(2), Write(chosen=1)]
    host.writer.submit(first)
    storage.begun.get(timeout=PATIENCE_S)
    for write in rest:
        host.writer.submit(write)
    storage.permits.release(2)
    host.run_posted(2)
    assert host.durable == [[first], rest]
    assert storage.begun.get(timeout=PATIENCE_S) == rest
    assert storage.begun.empty()


def test_votes_alone_wait_for_what_came_before_but_touch_no_disk(host: WriterHost, storage: SteppedStorage) -> None:
    host.writer.submit(accept(1))
    storage.begun.get(timeout=PATIENCE_S)
    host.writer.submit(votes())
    assert host.posted.empty()
    storage.permits.release()
    host.run_posted(2)
    assert host.durable == [[accept(1)], [votes()]]
    assert host.seconds[1] == 0.0
    assert storage.begun.empty()


def test_a_read_sees_all_that_was_submitted_before_it_and_nothing_else(
    host: WriterHost, storage: SteppedStorage
) -> None:
    host.writer.submit(accept(1))
    storage.begun.get(timeout=PATIENCE_S)
    host.writer.submit(accept(2))
    host.writer.read(1, 9, 1000, host.entries.append)
    host.writer.submit(accept(3))
    host.writer.read(2, 9, 1, host.entries.append)
    storage.permits.release(3)
    host.run_posted(5)
    assert host.durable == [[accept(1)], [accept(2)], [accept(3)]]
    assert host.entries == [[*accept(1).accepts, *accept(2).accepts], accept(2).accepts]


def test_a_read_of_the_state_comes_in_its_turn(host: WriterHost, storage: SteppedStorage) -> None:
    machine = WriteMaker()
    pages: list[StatePage] = []
    change = machine.put(b"key")
    host.writer.submit(machine.write(change))
    host.writer.read_state(0, 1000, pages.append)
    host.writer.submit(machine.write(machine.put(b"key")))
    host.writer.read_state(0, 1000, pages.append, staged=True)
    storage.permits.release(2)
    host.run_posted(4)
    assert [page.changes for page in pages] == [[change], []]


def test_when_idle_it_tidies_until_nothing_is_left_and_again_after_the_next_write(
    host: WriterHost, storage: SteppedStorage
) -> None:
    assert storage.maintained.get(timeout=PATIENCE_S) is False
    for slices in (3, 1):
        storage.slices = slices
        storage.permits.release()
        host.writer.submit(accept(1))
        host.run_posted(1)
        assert [storage.maintained.get(timeout=PATIENCE_S) for _ in range(slices)] == [True] * (slices - 1) + [False]
        assert host.writer._queue.empty()
    assert storage.maintained.empty()


def test_what_is_queued_comes_before_tidying(host: WriterHost, storage: SteppedStorage) -> None:
    host.writer.submit(accept(1))
    storage.begun.get(timeout=PATIENCE_S)
    tidied = storage.maintained.qsize()
    at_read: list[int] = []
    storage.on_read = lambda: at_read.append(storage.maintained.qsize())
    for slot in range(2, 50):
        host.writer.submit(accept(slot))
        host.writer.read(1, 9, 1000, host.entries.append)
    storage.permits.release(100)
    host.run_posted(1 + 2 * 48)
    assert at_read == [tidied] * 48


def test_tidying_that_fails_is_a_failure(storage: SteppedStorage) -> None:
    """Rule 4."""
    storage.broken = StorageError("the disk failed")
    host = WriterHost(storage)
    host.run_posted(1)
    assert [str(error) for error in host.failures] == ["the disk failed"]
    host.writer.stop()
    assert not storage.closed


def test_stop_finishes_what_is_queued_and_closes(host: WriterHost, storage: SteppedStorage) -> None:
    storage.permits.release(10)
    for slot in (1, 2, 3):
        host.writer.submit(accept(slot))
    host.writer.read(1, 9, 1000, host.entries.append)
    host.writer.stop()
    host.writer.submit(accept(4))
    host.run_posted(host.posted.qsize())
    assert [write for group in host.durable for write in group] == [accept(1), accept(2), accept(3)]
    assert len(host.entries[0]) == 3
    assert storage.closed
    assert storage.recovered().last == 0
    assert storage.reopen().recovered().last == 3


def test_after_a_failure_nothing_is_stored_reported_or_closed(host: WriterHost, storage: SteppedStorage) -> None:
    """Rule 4."""
    storage.broken = StorageError("the disk failed")
    host.writer.submit(accept(1))
    storage.begun.get(timeout=PATIENCE_S)
    host.writer.submit(accept(2))
    host.writer.read(1, 9, 1000, host.entries.append)
    storage.permits.release(10)
    host.run_posted(1)
    storage.broken = None
    host.writer.submit(accept(3))
    host.writer.stop()
    assert [str(error) for error in host.failures] == ["the disk failed"]
    assert host.posted.empty()
    assert (host.durable, host.entries) == ([], [])
    assert storage.begun.empty()
    assert not storage.closed


def lose_files(storage: SteppedStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every check of the files fail from now on."""

    def fail() -> None:
        raise StorageError("gone")

    monkeypatch.setattr(storage, "verify_files", fail)


def test_an_idle_thread_notices_that_the_files_are_gone(
    host: WriterHost, storage: SteppedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_files(storage, monkeypatch)
    host.run_posted(1)
    assert [str(error) for error in host.failures] == ["gone"]


def test_a_busy_thread_notices_that_the_files_are_gone(
    host: WriterHost, storage: SteppedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_files(storage, monkeypatch)
    storage.slices = 10**9  # no check for lack of work
    host.writer._verified_at = -1e9
    host.writer.submit(accept(1))
    storage.permits.release()
    host.run_posted(2)
    assert len(host.durable) == 1
    assert [str(error) for error in host.failures] == ["gone"]


def test_a_thread_that_is_busy_with_reads_notices_that_the_files_are_gone(
    host: WriterHost, storage: SteppedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads for a backup or a peer come more often than an idle thread checks."""
    lose_files(storage, monkeypatch)
    storage.slices = 10**9  # no check for lack of work
    host.writer._verified_at = -1e9
    host.writer.read(1, 9, 1000, host.entries.append)
    host.run_posted(2)
    assert [str(error) for error in host.failures] == ["gone"]


def test_a_read_that_finds_damage_is_a_failure(host: WriterHost, storage: SteppedStorage) -> None:
    storage.broken = StorageError("damaged")
    host.writer.read(1, 9, 1000, host.entries.append)
    host.run_posted(1)
    assert [str(error) for error in host.failures] == ["damaged"]
    assert host.entries == []


def test_an_event_loop_hears_of_it_in_its_own_thread() -> None:
    async def main() -> tuple[list[Write], threading.Thread]:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[tuple[list[Write], threading.Thread]] = loop.create_future()
        writer = Writer(
            MemoryStorage("test", "n1"),
            loop.call_soon_threadsafe,
            lambda writes, _: result.set_result((writes, threading.current_thread())),
            result.set_exception,
        )
        writer.submit(accept(1))
        try:
            return await asyncio.wait_for(result, PATIENCE_S)
        finally:
            writer.stop()

    assert asyncio.run(main()) == ([accept(1)], threading.current_thread())
