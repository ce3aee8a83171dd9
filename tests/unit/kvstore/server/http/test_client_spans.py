"""The client and the command line at a front end: conditions, transactions, lists, watches."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kvstore import cli
from kvstore.api.commands import (
    Compare,
    Delete,
    DeleteResult,
    DeleteSpan,
    DeleteSpanResult,
    Get,
    KeyState,
    List,
    ListedKeys,
    Put,
    PutResult,
    Record,
    Relation,
    Target,
    Transact,
    TransactResult,
)
from kvstore.api.json.transaction_packing import pack_transaction
from kvstore.api.json.transaction_parsing import transaction_of
from kvstore.api.key_range import EVERY_KEY, Span, starting_with
from kvstore.client import Client, Compacted, ConditionFailed, Rejected, Unavailable, WatchEvent
from kvstore.server.http import event_pages
from kvstore.server.http.event_pages import EventPage, EventPages
from kvstore.state_machine.history import History
from storage.base import first_of
from tests.unit.kvstore.server.http.fake import Store, run


def client_of(store: Store, timeout_ms: int = 10_000) -> Client:
    return Client([f"http://127.0.0.1:{store.port}"], timeout_ms=timeout_ms, exactly_once=False)


def test_conditions() -> None:
    async def scenario(store: Store) -> None:
        async with client_of(store) as client:
            assert await client.put("a", b"1", if_absent=True) == PutResult(1, 1)
            with pytest.raises(ConditionFailed) as failed:
                await client.put("a", b"2", if_absent=True)
            assert failed.value.revision == 1
            assert await client.put("a", b"2", if_revision=1) == PutResult(2, 2)
            with pytest.raises(ConditionFailed, match="revision 2"):
                await client.delete("a", if_revision=1)
            with pytest.raises(ConditionFailed) as failed:
                await client.put("b", b"", if_revision=7)
            assert failed.value.revision is None
            deleted = await client.delete("a", if_revision=2)
            assert deleted is not None
            assert deleted.deleted_revision == 2

    run(scenario)


def test_a_transaction_there_and_back() -> None:
    async def scenario(store: Store) -> None:
        async with client_of(store) as client:
            await client.put(b"\xff", b"\xfe")
            inner = Transact([Compare(b"x", Target.EXISTS, Relation.EQUAL, 1)], [], [Get(b"none")])
            result = await client.txn(
                Transact(
                    [
                        Compare(b"\xff", Target.VALUE, Relation.EQUAL, b"\xfe"),
                        Compare(EVERY_KEY, Target.VERSION, Relation.LESS, 2),
                    ],
                    [Put(b"a", b"\0"), Get(b"\xff"), List(EVERY_KEY, 1), inner, Delete(b"a"), DeleteSpan(EVERY_KEY)],
                    [],
                )
            )
            assert result == TransactResult(
                True,
                2,
                [
                    PutResult(2, 1),
                    KeyState(b"\xff", Record(b"\xfe", 1, 1, 1)),
                    ListedKeys([KeyState(b"a", Record(b"\0", 2, 2, 1))], more=True),
                    TransactResult(False, 2, [KeyState(b"none", None)]),
                    DeleteResult(2, 1, 2),
                    DeleteSpanResult(2, 1),
                ],
            )

    run(scenario)


def test_what_is_sent_of_a_transaction_is_what_was_meant() -> None:
    transaction = Transact(
        [
            Compare(Span(b"a", b"\xff"), Target.EXISTS, Relation.EQUAL, 0),
            *[
                Compare(b"k", target, relation, 7)
                for target in (Target.VERSION, Target.REVISION, Target.CREATE_REVISION)
                for relation in Relation
            ],
            *[Compare(b"\xff", Target.VALUE, relation, b"text") for relation in Relation],
            Compare(b"k", Target.EXISTS, Relation.EQUAL, 1),
        ],
        [Put(b"a", b""), Delete(b"b"), DeleteSpan(Span(b"", b"c")), List(Span(b"d", None), 9)],
        [Transact([], [Get("é".encode())], [])],
    )
    assert transaction_of(pack_transaction(transaction)) == transaction
    absent = transaction_of(pack_transaction(Transact([Compare(b"k", Target.EXISTS, Relation.NOT_EQUAL, 1)], [], [])))
    assert absent.compares == [Compare(b"k", Target.EXISTS, Relation.EQUAL, 0)]
    with pytest.raises(ValueError, match="by eq or ne"):
        pack_transaction(Transact([Compare(b"k", Target.EXISTS, Relation.LESS, 1)], [], []))


def test_a_list_goes_through_all_pages() -> None:
    async def scenario(store: Store) -> None:
        async with client_of(store) as client:
            for number in range(7):
                await client.put(f"k{number}", b"%d" % number)
            await client.put(b"\xff", b"")
            found = [each async for each in client.list(page=2)]
            assert [each.key for each in found] == [*(b"k%d" % number for number in range(7)), b"\xff"]
            assert found[3].record == Record(b"3", 4, 4, 1)
            back = [each.key async for each in client.list(starting_with(b"k"), reverse=True, keys_only=True, page=3)]
            assert back == [b"k%d" % number for number in range(6, -1, -1)]
            old = [each.key async for each in client.list(Span(b"k1", b"k9"), revision=3)]
            assert old == [b"k1", b"k2"]
            assert await client.get("k0", revision=2) == Record(b"0", 1, 1, 1)
            store.replica.machine.forget(first_of(4))
            with pytest.raises(Compacted) as caught:
                await client.get("k0", revision=2)
            assert caught.value.oldest == 4

    run(scenario)


async def take(client: Client, count: int, *spans: Span, from_revision: int | None = None) -> list[WatchEvent]:
    taken: list[WatchEvent] = []
    async for happened in client.watch(*spans, from_revision=from_revision):
        taken.append(happened)
        if len(taken) == count:
            return taken
    raise AssertionError("it has ended")


def test_a_watch_hands_on_what_happens() -> None:
    async def scenario(store: Store) -> None:
        async with client_of(store) as client:
            await client.put(b"\xff", b"\xfe")
            await client.delete(b"\xff")
            await client.put("other", b"")
            taken = await take(client, 2, Span(b"\xff", None), from_revision=1)
            assert taken == [WatchEvent(1, b"\xff", Record(b"\xfe", 1, 1, 1)), WatchEvent(2, b"\xff", None)]

    run(scenario)


def test_a_watch_goes_on_where_it_was_when_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the midst of a revision: what came of that comes again, and is handed on once."""

    async def scenario(store: Store) -> None:
        whole, breaks = event_pages.encode_page, [True]

        def cut(history: History, head: int, span: Span, start: int) -> EventPage:
            page = whole(history, head, span, start)
            events = b"".join(page.frames)
            if events.count(b"event: ") < 3 or not breaks:
                return page
            breaks.clear()
            asyncio.get_running_loop().call_later(0.05, disconnect)
            return EventPage(page.end, (events[: events.index(b"\n\n") + 2],), page.is_open)

        def disconnect() -> None:
            for connection in list(store.frontend._connections):
                connection.abort()

        monkeypatch.setattr(event_pages, "encode_page", cut)
        async with client_of(store) as client:
            watching = asyncio.create_task(take(client, 4, from_revision=1))
            await client.put("a", b"")
            await client.txn(Transact([], [Put(b"b", b""), Put(b"c", b""), Put(b"d", b"")], []))
            taken = await watching
            assert [(happened.revision, happened.key) for happened in taken] == [
                (1, b"a"),
                (2, b"b"),
                (2, b"c"),
                (2, b"d"),
            ]
            assert not breaks

    run(scenario)


def test_a_watch_of_what_is_forgotten_ends() -> None:
    async def scenario(store: Store) -> None:
        async with client_of(store) as client:
            for _ in range(3):
                await client.put("a", b"")
            store.replica.machine.forget(first_of(2))
            with pytest.raises(Compacted) as caught:
                await take(client, 1, from_revision=1)
            assert caught.value.oldest == 3

    run(scenario)


def test_a_quiet_watch_does_not_end_when_its_connection_breaks_once() -> None:
    """The timeout counts from the first failure, and not from the last change."""

    async def scenario(store: Store) -> None:
        async with client_of(store, timeout_ms=1) as client:
            watching = client.watch()
            first = asyncio.create_task(anext(watching))
            while not first.done():
                await store.call("PUT", "/kv/a", b"")
            for connection in list(store.frontend._connections):
                connection.abort()
            await store.call("PUT", "/kv/b", b"")
            missing = store.replica.machine.revision - (await first).revision
            assert [(await anext(watching)).key for _ in range(missing)][-1] == b"b"
            await watching.aclose()

    run(scenario)


def test_a_watch_that_nobody_serves_ends_with_the_reasons() -> None:
    async def scenario() -> None:
        async with Client(["http://127.0.0.1:9"], timeout_ms=1) as client:
            with pytest.raises(Unavailable, match=r"cannot connect to http://127\.0\.0\.1:9:"):
                await take(client, 1)

    asyncio.run(scenario())


def test_what_nobody_will_take() -> None:
    async def scenario(store: Store) -> None:
        async with client_of(store) as client:
            with pytest.raises(Rejected, match="Split it into"):
                await client.txn(Transact([], [Put(b"a", bytes(2_000_000))], []))

    run(scenario)


# The command line


def at(prepare: Callable[[Store], None], command: Callable[[Callable[..., tuple[int, str, str]]], None]) -> None:
    """Run `command` with a function that runs `kvstore` with its arguments; it has an event loop of its own."""

    async def scenario(store: Store) -> None:
        prepare(store)

        def kvstore(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
            environment = {"COLUMNS": "100", "TERM": "dumb", "KVSTORE_ENDPOINTS": f"http://127.0.0.1:{store.port}"}
            result = CliRunner(env=environment).invoke(cli.app, arguments, input=stdin)
            return result.exit_code, result.stdout, result.stderr

        await asyncio.to_thread(command, kvstore)

    run(scenario)


def filled(store: Store) -> None:
    for key, value in ((b"a/1", b"one"), (b"a/2", b"\x1b[31m\n\xff"), (b"b", b"x" * 100)):
        store.replica.write(Put(key, value), lambda _: None)


def test_the_list_is_a_table_for_people_and_lines_for_programs() -> None:
    def command(kvstore: Callable[..., tuple[int, str, str]]) -> None:
        code, out, _ = kvstore("list")
        assert code == 0
        lines = [" ".join(line.split()) for line in out.splitlines() if line.strip()]
        assert lines[0] == "key value revision version"
        assert lines[2:] == [
            "a/1 one 1 1",
            r"a/2 \x1b[31m\n\xff 2 1",
            f"b {'x' * 59}… 3 1",
        ]
        code, out, _ = kvstore("list", "a/", "--json", "--revision", "1")
        assert json.loads(out) == {"key": "a/1", "value": "one", "revision": 1, "create_revision": 1, "version": 1}
        code, out, err = kvstore("list", "--limit", "2")
        assert (code, "b " in out) == (0, False)
        assert "more than 2 keys: raise --limit" in err

    at(filled, command)


def test_conditions_have_an_exit_status_of_their_own() -> None:
    def command(kvstore: Callable[..., tuple[int, str, str]]) -> None:
        assert kvstore("put", "c", "1", "--if-absent")[:2] == (0, "revision 4, version 1\n")
        code, _, err = kvstore("put", "c", "1", "--if-absent")
        assert code == 5
        assert "is at revision 4" in err
        assert kvstore("put", "c", "2", "--if-revision", "4")[0] == 0
        assert kvstore("delete", "c", "--if-revision", "4")[0] == 5
        assert kvstore("get", "c", "--revision", "4")[1] == "1"
        assert kvstore("delete", "a/", "--prefix")[:2] == (0, "revision 6, deleted 2 keys\n")

    at(filled, command)


def test_a_transaction_from_a_file_or_from_standard_input(tmp_path: Path) -> None:
    def command(kvstore: Callable[..., tuple[int, str, str]]) -> None:
        body = json.dumps({"then": [{"put": {"key": "c", "value": "1"}}, {"get": {"key": "a/1"}}]})
        (tmp_path / "txn.json").write_text(body)
        code, out, _ = kvstore("txn", str(tmp_path / "txn.json"))
        assert code == 0
        document = json.loads(out)
        assert (document["succeeded"], document["revision"]) == (True, 4)
        assert document["results"][1]["get"]["value"] == "one"
        assert json.loads(kvstore("txn", "-", stdin=body.encode())[1])["revision"] == 5
        code, _, err = kvstore("txn", "-", stdin=b'{"then": [{}]}')
        assert (code, "$.then[0] is not one of" in err) == (2, True)
        assert kvstore("txn", str(tmp_path / "none"))[0] == 2

    at(filled, command)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_watch_tells_each_change(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    """It ends here because what comes next is forgotten."""

    def command(kvstore: Callable[..., tuple[int, str, str]]) -> None:
        code, out, err = kvstore("watch", "a/", "--from-revision", "1", *(["--json"] if as_json else []))
        assert code == 2
        assert "compacted" in err
        lines = out.splitlines()
        if as_json:
            assert [json.loads(line)["event"] for line in lines] == ["put", "put", "delete"]
            assert json.loads(lines[2]) == {"event": "delete", "key": "a/1", "revision": 4}
        else:
            assert [line.split() for line in lines] == [
                ["1", "put", "a/1", "one"],
                ["2", "put", "a/2", r"\x1b[31m\n\xff"],
                ["4", "delete", "a/1"],
            ]

    def prepare(store: Store) -> None:
        filled(store)
        store.replica.write(Delete(b"a/1"), lambda _: None)
        after = EventPages.after
        pages: list[EventPage] = []

        def once(self: EventPages, span: Span, position: int) -> EventPage | None:
            page = after(self, span, position)
            if pages or page is None:
                return None
            pages.append(EventPage(page.end, page.frames, False))
            return pages[-1]

        monkeypatch.setattr(EventPages, "after", once)

    at(prepare, command)
