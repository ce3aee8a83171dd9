"""The generator against a server of this process."""

import itertools
import threading
import time
from collections import Counter

import pytest

from bench.load.found import latency
from bench.load.generator import Generator
from bench.load.order import Mix, Order, Result, draw
from bench.load.recording import Recording
from bench.load.wire import Requests
from tests.torture.faults.history import judge
from tests.torture.load_history import LoadHistory
from tests.unit.bench.serving import Store, response, served

MIX = Mix(keys=50, reads=50, value_bytes=32, prefix="k")


def order(address: tuple[str, int], mix: Mix = MIX, rate: float | None = None, connections: int = 4) -> Order:
    return Order(mix=mix, addresses=[address], connections=connections, rate=rate, warm_up_s=0.05, seconds=0.2)


def run(asked: Order, past: LoadHistory | None = None, *, fill: bool = True) -> Result:
    generator = Generator(asked, past)
    try:
        if fill:
            generator.fill()
        return generator.run(itertools.cycle(draw(asked.mix, 0)), time.monotonic_ns()).result()
    finally:
        generator.close()


def counts(result: Result) -> tuple[int, int]:
    found = [latency([each]) for each in (result.get, result.put)]
    return tuple(0 if each is None else each.count for each in found)  # type: ignore[return-value]


def test_filling_puts_each_key_of_its_share_once() -> None:
    store = Store()
    with served(store.answer) as address:
        generator = Generator(Order(mix=MIX, addresses=[address], connections=4, worker=1, workers=3))
        generator.fill()
        generator.close()
    assert Counter(path for _, path, _ in store.seen) == {f"/kv/k{number}": 1 for number in range(1, 50, 3)}
    assert {len(body) for _, _, body in store.seen} == {32}
    assert len({body for _, _, body in store.seen}) == len(store.seen)


def test_filling_fails_when_a_key_is_not_taken() -> None:
    with served(lambda *_: response(503)) as address:
        generator = Generator(order(address))
        with pytest.raises(ConnectionError, match="503"):
            generator.fill()
        generator.close()


def test_in_a_closed_loop_every_answer_is_counted() -> None:
    store = Store()
    with served(store.answer) as address:
        result = run(order(address))
    assert result.statuses == {200: len(store.seen) - 50}
    assert (result.lost, result.unsent) == (0, 0)
    assert 0 < sum(counts(result)) <= result.statuses[200]
    assert 0 < sum(result.bins) <= result.statuses[200]
    assert all(counts(result))
    assert result.cpu_s > 0


def test_an_open_loop_sends_what_is_due_and_counts_all_of_it() -> None:
    store = Store()
    with served(store.answer) as address:
        result = run(order(address, rate=400.0))
    assert result.statuses[200] + result.unsent == 100  # a quarter of a second, warm-up included
    assert sum(counts(result)) == 80


def test_in_an_open_loop_latencies_count_from_when_requests_were_due(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    answered = Recording.answered

    def record(recording: Recording, operation: int, status: int, since_ns: int, now_ns: int) -> None:
        seen.append((since_ns - recording.start_ns, now_ns - recording.start_ns))
        answered(recording, operation, status, since_ns, now_ns)

    monkeypatch.setattr(Recording, "answered", record)
    with served(Store().answer) as address:  # one connection, far more requests than it can take
        run(order(address, rate=1_000_000.0, connections=1), fill=False)
    assert [due for due, _ in seen] == [1000 * number for number in range(len(seen))]
    assert all(now > due for due, now in seen)


def test_what_was_due_and_never_sent_is_counted_with_the_time_that_it_waited(monkeypatch: pytest.MonkeyPatch) -> None:
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
        result = run(order(address, rate=400.0, connections=1), fill=False)
    assert result.unsent == 99
    assert result.statuses == {200: 1}
    every = latency([result.get, result.put])
    assert every is not None
    assert every.count == 80  # the one that was answered was due in the warm-up
    assert every.most_ms == pytest.approx(200, rel=0.01)


def test_answers_in_pieces_and_requests_longer_than_a_buffer_arrive_whole() -> None:
    store = Store()
    mix = Mix(keys=2, reads=50, value_bytes=4_000_000, prefix="k")
    with served(store.answer, piece=70_000) as address:
        past = LoadHistory(Requests(mix, 0, ""), "k")
        result = run(order(address, mix, connections=2), past)
    assert result.statuses.keys() == {200}
    assert {len(body) for method, _, body in store.seen if method == "PUT"} == {4_000_000}
    assert judge(past.calls).illegal == []


def test_a_broken_connection_is_replaced_and_its_request_lost() -> None:
    store = Store()

    def answer(method: str, path: str, body: bytes) -> bytes:
        done = store.answer(method, path, body)
        return b"" if len(store.seen) % 20 == 19 else done

    with served(answer) as address:
        past = LoadHistory(Requests(MIX, 0, ""), "k")
        result = run(order(address), past, fill=False)
    assert result.lost > 0
    assert result.statuses[200] > result.lost
    outcomes = Counter((call.kind, call.outcome) for call in past.calls)
    assert outcomes["put", "unknown"] + outcomes["get", "refused"] == result.lost
    assert judge(past.calls).illegal == []


@pytest.mark.parametrize("rate", [None, 400.0])
def test_a_connection_that_the_server_closes_is_replaced(rate: float | None) -> None:
    store = Store()

    def answer(method: str, path: str, body: bytes) -> bytes:
        store.answer(method, path, body)
        return response(200, b"", 'ETag: "1"', *(["Connection: close"] if len(store.seen) % 7 == 0 else []))

    with served(answer) as address:
        result = run(order(address, rate=rate), fill=False)
    assert result.statuses[200] == len(store.seen) > 14
    if rate is not None:
        assert result.statuses[200] + result.lost + result.unsent == 100


def test_without_a_server_there_is_no_generator() -> None:
    with served(lambda *_: b"") as address:
        pass
    with pytest.raises(ConnectionRefusedError):
        Generator(order(address))


def test_the_history_of_an_honest_store_is_linearizable() -> None:
    store = Store()
    with served(store.answer) as address:
        past = LoadHistory(Requests(MIX, 0, ""), "k")
        run(order(address), past)
    judgement = judge(past.calls)
    assert (judgement.keys, judgement.illegal, judgement.backwards, judgement.lost) == (50, [], [], [])
    assert {call.outcome for call in past.calls} == {"answered"}


def test_the_history_of_a_store_that_forgets_is_not() -> None:
    store = Store()

    def forgetful(method: str, path: str, body: bytes) -> bytes:
        if method == "PUT" and len(store.seen) > 60:
            return response(200, b"{}", 'ETag: "1000000"')
        return store.answer(method, path, body)

    with served(forgetful) as address:
        past = LoadHistory(Requests(MIX, 0, ""), "k")
        run(order(address), past)
    assert judge(past.calls).illegal
