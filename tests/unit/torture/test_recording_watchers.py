"""What a watcher of a history run records, against a server that sends scripted streams."""

import asyncio
from random import Random

import msgspec
import pytest

from tests.torture.histories.changes import ObservedChange
from tests.torture.histories.watchers import RecordingWatcher

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
COMPACTED = b"HTTP/1.1 410 Gone\r\nKV-Oldest-Revision: 7\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
LOST = b'event: lost\ndata: {"oldest_revision":7,"detail":"x"}\n\n'


def change(number: int, revision: int = 2) -> ObservedChange:
    return ObservedChange(revision, f"k{number}", f"v{number}", 1, revision)


def event(number: int, revision: int = 2, *, last: bool = False) -> bytes:
    document = {
        "key": f"k{number}",
        "value": f"v{number}",
        "revision": revision,
        "create_revision": revision,
        "version": 1,
    }
    data = b"event: put\ndata: " + msgspec.json.encode(document) + b"\n\n"
    return (b"id: %d\n" % revision if last else b"") + data


def begun(first: int) -> bytes:
    return HEAD + b"retry: 1000\nid: %d\n\n" % (first - 1)


def watched(*streams: bytes, upto: int, **kind: bool) -> tuple[RecordingWatcher, list[str], list[tuple[str, int, int]]]:
    """Return the watcher after it has received `streams`, one from each connection, and what it asked for."""
    asked: list[str] = []
    lost: list[tuple[str, int, int]] = []

    async def scenario() -> RecordingWatcher:
        remaining = list(streams)
        done = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0]
            if remaining:
                asked.append(line.decode().partition("from_revision=")[2].split()[0])
                writer.write(remaining.pop(0))
            writer.close()

        def changed(seen: ObservedChange) -> None:
            if seen.revision >= upto:
                done.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            watcher = RecordingWatcher(
                lambda: {"n1": url},
                Random(1),
                "",
                on_change=changed,
                on_lost=lambda *what: lost.append(what),
                **kind,
            )
            running = asyncio.create_task(watcher.run())
            await done.wait()
            running.cancel()
        return watcher

    return asyncio.run(scenario()), asked, lost


def test_a_watcher_continues_after_the_last_complete_revision() -> None:
    first = begun(1) + event(0, 1, last=True) + event(1) + event(2)
    watcher, asked, _ = watched(first, begun(2) + event(1) + event(2) + event(3, last=True), upto=2)
    assert asked == ["1", "2"]
    assert watcher.segment.changes == [change(0, 1), change(1), change(2), change(3)]
    assert (watcher.segment.upto, watcher.contradictions) == (2, [])


def test_a_tearing_watcher_leaves_within_a_revision_and_compares_what_comes_again() -> None:
    long = b"".join(event(number) for number in range(30))
    whole = begun(1) + long + event(30, last=True)
    watcher, asked, _ = watched(whole, whole, upto=2, tearing=True)
    assert (asked, watcher.torn, watcher.contradictions) == (["1", "1"], 1, [])
    assert len(watcher.segment.changes) == 31


@pytest.mark.parametrize(
    ("again", "says"),
    [
        (b"".join(event(number + 1) for number in range(30)) + event(99, last=True), "came again as"),
        (event(0, last=True) + event(1, 3, last=True), "did not come again"),
        (event(1, 3, last=True), "did not come again"),
    ],
    ids=["another", "shorter", "none"],
)
def test_a_revision_that_comes_again_with_other_changes_is_told(again: bytes, says: str) -> None:
    whole = begun(1) + b"".join(event(number) for number in range(30)) + event(30, last=True)
    watcher, _, _ = watched(whole, begun(1) + again, upto=2, tearing=True)
    assert says in watcher.contradictions[0]


@pytest.mark.parametrize("answer", [COMPACTED, begun(1) + LOST], ids=["410", "lost"])
def test_a_watcher_whose_changes_are_gone_begins_again_at_the_oldest_revision(answer: bytes) -> None:
    watcher, asked, lost = watched(answer, begun(7) + event(1, 7, last=True), upto=7)
    assert (asked, lost) == (["1", "7"], [("n1", 1, 7)])
    assert [segment.first for segment in watcher.segments] == [1, 7]
    assert watcher.segment.changes == [change(1, 7)]


def test_a_change_that_comes_after_the_id_of_its_revision_is_told() -> None:
    """A client that had left after the id would never receive it."""
    watcher, _, _ = watched(begun(1) + event(0, last=True) + event(1) + event(2, 3, last=True), upto=3)
    assert watcher.contradictions == [f"{change(1)} came after the id 2"]
