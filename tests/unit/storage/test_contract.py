"""What every Storage owes to a replica; the same tests for the one on disk and for the reference."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paxos.messages import Accepted
from paxos.ready import Envelope, Write
from paxos.types import NOOP, ZERO, Ballot, PValue
from storage.base import Storage, StorageError, scan
from storage.memory import MemoryStorage
from storage.sqlite import open_storage
from tests.unit.storage.numbered_writes import MEMBERS

B1 = Ballot(1, "n1")
B2 = Ballot(2, "n3")
Reopen = Callable[[], Storage]
"""Opens the storage under test, for the first time or again after closing it."""


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    opened: list[Storage] = []

    def memory() -> Storage:
        last = opened[-1] if opened else None
        return last.reopen() if isinstance(last, MemoryStorage) else MemoryStorage("test", "n1")

    def sqlite() -> Storage:
        if opened:
            opened[-1].close()
        return open_storage(tmp_path / "data", "test", "n1", MEMBERS)

    def again() -> Storage:
        opened.append(memory() if request.param == "memory" else sqlite())
        return opened[-1]

    yield again
    if opened:
        opened[-1].close()


def entries(*slots: int, ballot: Ballot = B1, size: int = 3) -> list[PValue]:
    return [PValue(slot, ballot, bytes([slot % 256]) * size) for slot in slots]


def test_a_new_storage_is_empty(reopen: Reopen) -> None:
    recovered = reopen().recovered()
    assert (recovered.promised, recovered.chosen, recovered.last) == (ZERO, 0, 0)
    assert (recovered.identity.cluster, recovered.identity.node, recovered.identity.boot) == ("test", "n1", 1)


def test_everything_written_is_there_after_the_next_opening(reopen: Reopen) -> None:
    reopen().write([Write(promise=B1, accepts=entries(1, 2)), Write(accepts=entries(4), chosen=2)])
    storage = reopen()
    recovered = storage.recovered()
    assert (recovered.promised, recovered.chosen, recovered.last) == (B1, 2, 4)
    assert storage.read(1, 9, 1000) == entries(1, 2, 4)


def test_each_opening_counts_and_the_incarnation_stays(reopen: Reopen) -> None:
    lives = [reopen().recovered().identity for _ in range(3)]
    assert [life.boot for life in lives] == [1, 2, 3]
    assert len({life.incarnation for life in lives}) == 1
    assert 0 <= lives[0].incarnation < 2**62


def test_recovered_tells_of_the_opening_not_of_what_came_after(reopen: Reopen) -> None:
    storage = reopen()
    storage.write([Write(promise=B1)])
    assert storage.recovered().promised == ZERO


def test_a_later_accept_of_a_slot_replaces_the_earlier(reopen: Reopen) -> None:
    storage = reopen()
    storage.write([Write(accepts=[*entries(1), *entries(1, ballot=B2)]), Write(accepts=entries(2))])
    storage.write([Write(accepts=entries(2, ballot=B2, size=9))])
    assert storage.read(1, 2, 1000) == [*entries(1, ballot=B2), *entries(2, ballot=B2, size=9)]


@pytest.mark.parametrize("value", [NOOP, b"\0", bytes(range(256)), b"x" * (3 << 20)])
def test_a_value_comes_back_byte_for_byte(reopen: Reopen, value: bytes) -> None:
    entry = PValue(2**62, Ballot(2**62, "n" * 32), value)
    reopen().write([Write(promise=entry.ballot, accepts=[entry])])
    storage = reopen()
    assert storage.recovered().promised == entry.ballot
    assert storage.read(2**62, 2**62, 1) == [entry]


def test_a_read_keeps_to_its_slots_in_order(reopen: Reopen) -> None:
    storage = reopen()
    storage.write([Write(accepts=entries(7, 3, 5, 1))])
    assert storage.read(2, 5, 1000) == entries(3, 5)
    assert storage.read(4, 4, 1000) == []
    assert storage.read(8, 99, 1000) == []
    assert storage.read(5, 3, 1000) == []


def test_a_read_keeps_to_its_bytes_but_gives_at_least_one_entry(reopen: Reopen) -> None:
    storage = reopen()
    storage.write([Write(accepts=entries(1, 2, 3, size=10))])
    assert storage.read(1, 3, 20) == entries(1, 2, size=10)
    assert storage.read(1, 3, 19) == entries(1, size=10)
    assert storage.read(2, 3, 0) == entries(2, size=10)


def test_a_scan_gives_everything_page_by_page(reopen: Reopen) -> None:
    storage = reopen()
    storage.write([Write(accepts=entries(*range(1, 50), 60, size=10))])
    assert list(scan(storage, 2, 60, page_bytes=35)) == entries(*range(2, 50), 60, size=10)


def test_a_promise_and_a_prefix_may_be_repeated(reopen: Reopen) -> None:
    storage = reopen()
    for _ in range(2):
        storage.write([Write(promise=B1, accepts=entries(1), chosen=1), Write(promise=B1, chosen=1)])
    assert reopen().recovered().promised == B1


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Write(promise=Ballot(2, "n2")), r"promise would go down from 2\.n3 to 2\.n2"),
        (Write(chosen=1), "chosen prefix would go down from 2 to 1"),
        (Write(chosen=10), "exceed the end of the log, 9"),
    ],
)
def test_a_write_that_breaks_the_contract_is_refused_whole(reopen: Reopen, bad: Write, says: str) -> None:
    """Rules 8 and 25: a promise is never lowered; and all or nothing."""
    storage = reopen()
    storage.write([Write(promise=B2, accepts=entries(1, 2, 3), chosen=2)])
    with pytest.raises(StorageError, match=says):
        storage.write([Write(promise=Ballot(3, "n1"), accepts=entries(9)) if bad.promise is None else Write(), bad])
    storage = reopen()
    recovered = storage.recovered()
    assert (recovered.promised, recovered.chosen, recovered.last) == (B2, 2, 3)
    assert storage.read(1, 99, 1000) == entries(1, 2, 3)


def test_a_write_is_refused_for_what_comes_before_it_in_the_same_call(reopen: Reopen) -> None:
    storage = reopen()
    with pytest.raises(StorageError, match=r"promise would go down from 2\.n3 to 1\.n1"):
        storage.write([Write(promise=B2), Write(promise=B1)])
    assert reopen().recovered().promised == ZERO


def test_votes_alone_store_nothing(reopen: Reopen) -> None:
    storage = reopen()
    storage.write([])
    storage.write([Write(votes=[Envelope("n2", Accepted(B1, 1))])])
    recovered = reopen().recovered()
    assert (recovered.promised, recovered.chosen, recovered.last) == (ZERO, 0, 0)
