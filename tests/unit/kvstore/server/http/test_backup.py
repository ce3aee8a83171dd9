"""`GET /backup`, up to the file that `kvstore backup` makes of it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from typer.testing import CliRunner

from kvstore import cli
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.queries import Consistency
from kvstore.backup.file import Backup
from kvstore.backup.stream import StreamEnd, StreamPage, StreamStart
from kvstore.client import Client, Unavailable
from kvstore.server.http.problems import RETRY_AFTER
from storage.base import AppliedProgress, Change, StatePage, first_of
from tests.unit.kvstore.backup.states import COMMANDS, RECORDS, applier_of
from tests.unit.kvstore.client.scripted import ScriptedReplica, serving
from tests.unit.kvstore.server.http.fake import FakeReplica, Store, request, run

LEDGER, ROWS = applier_of(*COMMANDS)
END = LEDGER.progress()
PAGES = [StatePage(ROWS[:2], 1, None), StatePage(ROWS[2:4], 1, None), StatePage(ROWS[4:], 1, END)]


def url(store: Store) -> str:
    return f"http://127.0.0.1:{store.port}"


async def parts_of(
    *urls: str, consistency: Consistency = Consistency.LINEARIZABLE
) -> list[StreamStart | StreamPage | StreamEnd]:
    async with Client(urls) as client:
        return [part async for part in client.backup(consistency)]


def test_all_pages_arrive_and_the_replica_is_told_that_it_is_over() -> None:
    async def scenario(store: Store) -> None:
        store.replica.pages = PAGES
        start, *pages, end = await parts_of(url(store))
        assert isinstance(start, StreamStart)
        assert (start.cluster, start.node, start.keys, start.revision) == ("c", "n1", 4, 9)
        assert pages == [StreamPage(0, ROWS[:2]), StreamPage(first_of(2), ROWS[2:4]), StreamPage(first_of(4), ROWS[4:])]
        assert end == StreamEnd(END)
        assert store.replica.readers == set()

    run(scenario)


def test_an_empty_state_is_one_empty_page() -> None:
    async def scenario(store: Store) -> None:
        store.replica.pages = [StatePage([], 0, AppliedProgress())]
        assert (await parts_of(url(store)))[1:] == [StreamPage(0, []), StreamEnd(AppliedProgress())]

    run(scenario)


@pytest.mark.parametrize("consistency", Consistency)
def test_it_is_as_current_as_a_read(consistency: Consistency) -> None:
    async def scenario(store: Store) -> None:
        store.replica.pages = PAGES
        await parts_of(url(store), consistency=consistency)
        assert [asked for _, asked in store.replica.reads] == [consistency]

    run(scenario)


def test_a_replica_that_answers_no_read_sends_no_backup_and_the_next_one_is_asked() -> None:
    async def scenario(store: Store) -> None:
        store.replica.fails = Refused(Reason.NO_LEADER, Outcome.FAILED)
        reply = await store.call("GET", "/backup")
        assert reply.status == 503
        assert f"Retry-After: {reply.headers['retry-after']}\r\n".encode() == RETRY_AFTER
        with pytest.raises(Unavailable, match=r"cannot connect to .*; .* answered 503"):
            await parts_of("http://127.0.0.1:1", url(store))
        store.replica.fails = None
        store.replica.pages = PAGES
        assert (await parts_of("http://127.0.0.1:1", url(store)))[-1] == StreamEnd(END)

    run(scenario)


def test_what_is_asked_wrongly_is_refused() -> None:
    async def scenario(store: Store) -> None:
        for method in ("DELETE", "PUT", "POST"):
            reply = await store.call(method, "/backup")
            assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
        assert (await store.call("GET", "/backup?x=1")).problem()["type"].endswith("invalid-query")

    run(scenario)


def test_no_more_than_two_at_once() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        store.replica.pages = PAGES
        running = [asyncio.create_task(parts_of(url(store))) for _ in range(2)]
        for _ in running:
            await store.replica.arrived.get()
        assert (await store.call("GET", "/backup")).problem()["type"].endswith("overloaded")
        store.replica.gate.set()
        for parts in await asyncio.gather(*running):
            assert parts[-1] == StreamEnd(END)
        assert (await parts_of(url(store)))[-1] == StreamEnd(END)

    run(scenario)


def test_compaction_that_could_not_wait_ends_it_with_the_reason() -> None:
    async def scenario(store: Store) -> None:
        store.replica.pages = [PAGES[0], PAGES[1]._replace(compacted=first_of(3)), PAGES[2]]
        with pytest.raises(Unavailable, match="n1 had to drop old revisions before the backup had them: take it again"):
            await parts_of(url(store))
        store.replica.pages = [
            PAGES[0],
            PAGES[1]._replace(compacted=first_of(2)),
            PAGES[2]._replace(compacted=first_of(4)),
        ]
        assert (await parts_of(url(store)))[-1] == StreamEnd(END)

    run(scenario)


def test_rows_of_a_page_that_is_compacted_less_need_their_deletions() -> None:
    """The replica installs a snapshot between two pages, whose source had compacted less, and compacts it later."""

    async def scenario(store: Store) -> None:
        store.replica.pages = [
            PAGES[0]._replace(compacted=first_of(9)),
            PAGES[1],
            PAGES[2]._replace(compacted=first_of(9)),
        ]
        with pytest.raises(Unavailable, match="n1 had to drop old revisions before the backup had them: take it again"):
            await parts_of(url(store))
        store.replica.pages = [PAGES[0]._replace(compacted=first_of(9)), PAGES[1], PAGES[2]]
        assert (await parts_of(url(store)))[-1] == StreamEnd(END)

    run(scenario)


def test_a_replica_that_shuts_down_says_so_instead_of_the_next_page() -> None:
    async def scenario(store: Store) -> None:
        store.replica.pages = PAGES
        store.replica.gate.clear()
        taking = asyncio.create_task(parts_of(url(store)))
        await store.replica.arrived.get()
        store.replica.stopping = True
        store.replica.gate.set()
        with pytest.raises(Unavailable, match="n1 is shutting down: take the backup from another replica"):
            await taking

    run(scenario)


def test_a_client_that_does_not_read_is_waited_for_with_one_page_in_memory() -> None:
    pages = 200

    async def scenario(store: Store) -> None:
        rows = [Change(revision, b"k", bytes(1 << 20), revision, 1, 0) for revision in range(1, pages + 1)]
        store.replica.pages = [StatePage([row], 0, None) for row in rows]
        wire = await store.wire()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        wire.send(request("GET", "/backup"))
        await store.replica.arrived.get()
        for _ in range(100 * pages):
            await asyncio.sleep(0)
        assert store.replica.arrived.qsize() < pages // 2
        assert len(store.replica.readers) == 1
        wire.writer.transport.abort()
        while store.replica.readers:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)

    run(scenario)


def break_off(replica: FakeReplica) -> None:
    """The third page is never read: something breaks."""
    replica.pages = PAGES
    reading = replica.read_state

    async def fail(reader: str, after: int) -> StatePage:
        if after == first_of(4):
            raise ConnectionResetError("planted")
        return await reading(reader, after)

    replica.read_state = fail  # type: ignore[method-assign]


def backup(store: Store, file: Path, *flags: str) -> tuple[int, str, str]:
    result = CliRunner(env={"TERM": "dumb", "COLUMNS": "200"}).invoke(
        cli.app, ["backup", str(file), "--endpoints", url(store), *flags]
    )
    return result.exit_code, result.stdout, result.stderr


def run_command(prepare: Callable[[FakeReplica], None], command: Callable[[Store], None]) -> None:
    """The command has an event loop of its own, in another thread."""

    async def scenario(store: Store) -> None:
        prepare(store.replica)
        await asyncio.to_thread(command, store)

    run(scenario)


def serve_pages(replica: FakeReplica) -> None:
    replica.pages = PAGES


def test_the_command_makes_a_file_and_says_what_is_in_it(tmp_path: Path) -> None:
    def command(store: Store) -> None:
        code, out, err = backup(store, tmp_path / "b.db")
        assert (code, err) == (0, "")
        assert out.startswith(f"{tmp_path}/b.db: 3 keys of cluster c at revision 6, from n1 (")
        with Backup(tmp_path / "b.db") as made:
            assert {change.key for change in made.changes()} == RECORDS.keys()
            assert made.info.progress == AppliedProgress(END.applied, END.position, END.chain, END.digest)
        assert backup(store, tmp_path / "b.db")[::2] == (
            2,
            f"kvstore: {tmp_path}/b.db exists: give another name, or --force to replace it\n",
        )
        assert backup(store, tmp_path / "b.db", "--force")[0] == 0
        assert backup(store, tmp_path / "absent" / "b.db")[0] == 1

    run_command(serve_pages, command)


def test_a_stream_that_breaks_leaves_no_file_and_the_command_says_so(tmp_path: Path) -> None:
    def command(store: Store) -> None:
        code, out, err = backup(store, tmp_path / "b.db")
        assert (code, out) == (3, "")
        assert "was interrupted" in err
        assert "take the backup again" in err
        assert list(tmp_path.iterdir()) == []

    run_command(break_off, command)


def test_a_program_that_is_no_replica_is_named() -> None:
    async def scenario() -> None:
        async with serving(ScriptedReplica(web.Response(status=404))) as urls:
            with pytest.raises(Unavailable, match=f"{urls[0]} answered 404"):
                await parts_of(urls[0])

    asyncio.run(scenario())
