"""The generator against a server of this process."""

import asyncio
import threading
from collections import Counter

import msgspec
import pytest

from bench.load import generator as generator_module
from bench.load.connection import Connection
from bench.load.generator import Generator, background_load, fill
from bench.load.options import LoadOptions, Mix
from bench.load.recording import Recording
from tests.torture.history import judge
from tests.torture.load_history import LoadHistory
from tests.unit.bench.serving import RecordingStore, response, served

MIX = Mix(keys=50, reads=50, value_bytes=32, prefix="k")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request of a test is not lost because the machine is slow."""
    monkeypatch.setattr(generator_module, "GRACE_NS", 300_000_000_000)


def options(address: tuple[str, int], mix: Mix = MIX, rate: float | None = None, connections: int = 4) -> LoadOptions:
    """A closed loop ends before its time, see `run`: a slow machine would give too few answers."""
    url = f"http://{address[0]}:{address[1]}"
    asked = LoadOptions(mix=mix, urls=[url], connections=connections, rate=rate, warm_up_s=0.05, seconds=0.2)
    return asked if rate is not None else msgspec.structs.replace(asked, warm_up_s=0.0, seconds=300.0)


class Enough:
    """Pass answers on to `history`, and stop the generator after `count` of them."""

    def __init__(self, history: LoadHistory | None, count: int) -> None:
        self._history = history
        self._left = count
        self.generator: Generator | None = None
        """The generator while it runs the load."""

    def answered(self, connection: Connection, answer: bytes, now_ns: int) -> None:
        if self._history is not None:
            self._history.answered(connection, answer, now_ns)
        if self.generator is not None:
            self._left -= 1
            if self._left == 0:
                self.generator.stop()

    def lost(self, connection: Connection, now_ns: int) -> None:
        if self._history is not None:
            self._history.lost(connection, now_ns)


def run(
    asked: LoadOptions, history: LoadHistory | None = None, *, fill_keys: bool = True, answers: int = 500
) -> Recording:
    """Run a load; a closed loop until there are so many answers."""
    enough = Enough(history, answers)
    generator = Generator(asked, enough)
    try:
        if fill_keys:
            generator.fill()
        if asked.rate is None:
            enough.generator = generator
        return generator.run()
    finally:
        generator.close()


def test_filling_puts_each_key_once() -> None:
    store = RecordingStore()
    with served(store.answer) as address:
        generator = Generator(options(address))
        generator.fill()
        generator.close()
    assert Counter(path for _, path, _ in store.seen) == {f"/kv/k{number}": 1 for number in range(50)}
    assert {len(body) for _, _, body in store.seen} == {32}
    assert len({body for _, _, body in store.seen}) == len(store.seen)


def test_many_keys_are_filled_in_transactions() -> None:
    store = RecordingStore()
    with served(store.answer) as address:
        asyncio.run(fill(f"http://{address[0]}:{address[1]}", Mix(keys=250, value_bytes=20, prefix="k")))
    assert [(method, path) for method, path, _ in store.seen] == [("POST", "/txn")] * 3
    assert sum(body.count(b'"put"') for _, _, body in store.seen) == 250


def test_filling_fails_when_a_key_is_refused() -> None:
    with served(lambda *_: response(503)) as address:
        generator = Generator(options(address))
        with pytest.raises(ConnectionError, match="503"):
            generator.fill()
        generator.close()


def test_a_closed_loop_counts_every_answer() -> None:
    store = RecordingStore()
    with served(store.answer) as address:
        recording = run(asked := options(address))
    result = recording.result(asked)
    assert result.statuses == {200: len(store.seen) - 50}
    assert (result.lost, result.unsent) == (0, 0)
    assert 0 < result.all.count <= result.statuses[200]
    assert 0 < sum(result.bins) <= result.statuses[200]
    assert result.get is not None
    assert result.put is not None
    assert result.generator_cpu > 0


def test_an_open_loop_sends_and_counts_all_that_is_due() -> None:
    store = RecordingStore()
    with served(store.answer) as address:
        recording = run(options(address, rate=400.0))
    assert recording.statuses[200] + recording.unsent == 100  # a quarter of a second, warm-up included
    latencies = recording.take_latencies()
    assert latencies is not None
    assert latencies.count == 80


def test_latencies_of_an_open_loop_count_from_when_requests_were_due(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    answered = Recording.answered

    def record(recording: Recording, operation: int, status: int, since_ns: int, now_ns: int) -> None:
        seen.append((since_ns - recording.start_ns, now_ns - recording.start_ns))
        answered(recording, operation, status, since_ns, now_ns)

    monkeypatch.setattr(Recording, "answered", record)
    with served(RecordingStore().answer) as address:  # one connection, far more requests than it can carry
        run(options(address, rate=1_000_000.0, connections=1), fill_keys=False)
    assert [due for due, _ in seen] == [1000 * number for number in range(len(seen))]
    assert all(now > due for due, now in seen)


def test_a_request_that_was_never_sent_counts_with_the_time_that_it_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    drain = Generator._drain

    def ended(generator: Generator) -> None:
        over.set()
        drain(generator)

    def slow(*_: object) -> bytes:
        over.wait()  # the only connection is busy for the whole run
        return response(200)

    monkeypatch.setattr(Generator, "_drain", ended)
    with served(slow) as address:
        asked = options(address, rate=400.0, connections=1)
        generator = Generator(asked)
        recording = generator.run()
        generator.close()
    assert recording.unsent == 99
    assert recording.statuses == {200: 1}
    every = recording.take_latencies()
    assert every is not None
    assert every.count == 80  # the one that was answered was due in the warm-up
    assert every.max_ms == pytest.approx(200, rel=0.01)


def test_a_background_load_runs_until_the_block_ends() -> None:
    store = RecordingStore()

    async def story() -> int:
        async with asyncio.timeout(300), background_load(options(address)) as load:
            while load.recording.statuses.total() < 50:  # noqa: ASYNC110 - a counter in another thread sets no event
                await asyncio.sleep(0.001)
        return load.recording.statuses.total()

    with served(store.answer) as address:
        total = asyncio.run(story())
    assert total == len(store.seen)


def test_answers_in_pieces_and_requests_longer_than_a_buffer_arrive_complete() -> None:
    store = RecordingStore()
    mix = Mix(keys=2, reads=50, value_bytes=4_000_000, prefix="k")
    with served(store.answer, piece=70_000) as address:
        history = LoadHistory(mix)
        result = run(options(address, mix, connections=2), history, answers=10)
    assert result.statuses.keys() == {200}
    assert {len(body) for method, _, body in store.seen if method == "PUT"} == {4_000_000}
    assert judge(history.calls).illegal == []


def test_a_broken_connection_is_replaced_and_its_request_lost() -> None:
    store = RecordingStore()

    def answer(method: str, path: str, body: bytes) -> bytes:
        done = store.answer(method, path, body)
        return b"" if len(store.seen) % 20 == 19 else done

    with served(answer) as address:
        history = LoadHistory(MIX)
        result = run(options(address), history, fill_keys=False)
    assert result.lost > 0
    assert result.statuses[200] > result.lost
    outcomes = Counter((call.kind, call.outcome) for call in history.calls)
    assert outcomes["put", "unknown"] + outcomes["get", "refused"] == result.lost
    assert judge(history.calls).illegal == []


@pytest.mark.parametrize("rate", [None, 400.0])
def test_a_connection_that_the_server_closes_is_replaced(rate: float | None) -> None:
    store = RecordingStore()

    def answer(method: str, path: str, body: bytes) -> bytes:
        store.answer(method, path, body)
        return response(200, b"", 'ETag: "1"', *(["Connection: close"] if len(store.seen) % 7 == 0 else []))

    with served(answer) as address:
        result = run(options(address, rate=rate), fill_keys=False)
    assert result.statuses[200] == len(store.seen)
    if rate is None:
        assert len(store.seen) > 14
    else:
        assert result.statuses[200] + result.lost + result.unsent == 100


def test_without_a_server_there_is_no_generator() -> None:
    with served(lambda *_: b"") as address:
        pass
    with pytest.raises(ConnectionRefusedError):
        Generator(options(address))


def test_the_history_of_an_honest_store_is_linearizable() -> None:
    store = RecordingStore()
    with served(store.answer) as address:
        history = LoadHistory(MIX)
        run(options(address), history)
    verdict = judge(history.calls)
    assert verdict.sound
    assert verdict.keys == 50
    assert {call.outcome for call in history.calls} == {"answered"}


def test_the_history_of_a_store_that_forgets_is_not() -> None:
    store = RecordingStore()

    def forgetful(method: str, path: str, body: bytes) -> bytes:
        if method == "PUT" and len(store.seen) > 60:
            return response(200, b"{}", 'ETag: "1000000"')
        return store.answer(method, path, body)

    with served(forgetful) as address:
        history = LoadHistory(MIX)
        run(options(address), history)
    assert judge(history.calls).illegal
