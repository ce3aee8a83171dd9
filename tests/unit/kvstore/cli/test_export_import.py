"""`kvstore export` and `kvstore import`."""

import gzip
import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from kvstore.api.commands import KeyState, PutResult, Record
from kvstore.cli import import_
from kvstore.client import Client, Rejected, Unavailable, UnknownOutcome
from tests.unit.kvstore.cli.command_line import run

FOUND = [
    KeyState(b"a", Record("ü".encode(), 3, 1, 2)),
    KeyState(b"b/\xff", Record(b"\xfe\x00", 4, 4, 1), lease=2),
    KeyState(b"c", Record(b"", 5, 5, 1)),
]
LINES = [
    {"key": "a", "value": "ü", "revision": 3, "create_revision": 1, "version": 2},
    {"key_base64": "Yi//", "value_base64": "/gA=", "revision": 4, "create_revision": 4, "version": 1, "lease": 2},
    {"key": "c", "value": "", "revision": 5, "create_revision": 5, "version": 1},
    {"revision": 7, "count": 3, "more": False},
]


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A store with FOUND at revision 7; the arguments of each call of its list."""
    asked: list[dict[str, Any]] = []

    async def revision(*_: object) -> int:
        return 7

    async def keys(_: Client, *arguments: object, progress: Any, **named: object) -> AsyncGenerator[KeyState, None]:
        asked.append(named)
        progress(len(FOUND))
        for found in FOUND:
            yield found

    monkeypatch.setattr(Client, "revision", revision)
    monkeypatch.setattr(Client, "list", keys)
    monkeypatch.setattr(Client, "status", unavailable)
    return asked


async def unavailable(*_: object) -> None:
    raise Unavailable("down: start it")


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """Keys and values that were put, in order."""
    done: list[tuple[bytes, bytes]] = []

    async def call(_: Client, key: bytes, value: bytes) -> PutResult:
        done.append((key, value))
        return PutResult(1, 1)

    monkeypatch.setattr(Client, "put", call)
    return done


def lines(*documents: object) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def test_an_export_is_of_one_revision_and_ends_with_its_count(stored: list[dict[str, Any]]) -> None:
    code, out, err = run("export", "-")
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == LINES
    assert stored == [{"revision": 7}]
    assert run("export", "-", "--revision", "5")[0] == 0
    assert stored[1] == {"revision": 5}


def test_an_export_is_imported_byte_for_byte(
    stored: list[dict[str, Any]], put: list[tuple[bytes, bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "all.ndjson"
    assert run("export", str(file)) == (0, f"{file}: 3 keys at revision 7\n", "")
    assert file.stat().st_mode & 0o777 == 0o600
    code, out, err = run("import", str(file))
    assert (code, out) == (0, f"3 keys imported from {file}\n")
    assert err == "kvstore: warning: 1 key had a lease: leases are not imported\n"
    assert put == [(found.key, found.record.value) for found in FOUND if found.record]


def test_a_failed_export_creates_no_file_and_overwrites_none(
    monkeypatch: pytest.MonkeyPatch, stored: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "all.ndjson"
    file.write_text("precious")
    code, _, err = run("export", str(file))
    assert (code, "--force" in err, file.read_text()) == (2, True, "precious")
    monkeypatch.setattr(Client, "revision", unavailable)
    assert run("export", str(file), "--force") == (3, "", "kvstore: down: start it\n")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.read_text() == "precious"


def test_a_prefix_restricts_an_import(put: list[tuple[bytes, bytes]]) -> None:
    assert run("import", "-", "--prefix", "b/", stdin=lines(*LINES))[0] == 0
    assert put == [(b"b/\xff", b"\xfe\x00")]


@pytest.mark.parametrize(
    ("documents", "warning"),
    [
        ([LINES[0], LINES[3]], "counts 3 keys"),
        ([LINES[0], {"revision": 7, "count": 1, "more": True}], "export again"),
        ([{"revision": 0, "count": 0, "more": False}], ""),
    ],
)
def test_an_incomplete_export_causes_a_warning(
    put: list[tuple[bytes, bytes]], documents: list[object], warning: str
) -> None:
    code, _, err = run("import", "-", stdin=lines(*documents))
    assert code == 0
    assert warning in err
    assert bool(err) == bool(warning) or "a lease" in err


@pytest.mark.parametrize(
    ("documents", "why"),
    [
        (LINES[:1], "standard input does not end with the line of an export"),
        ([LINES[0], {"error": "the replica is shutting down", "count": 1}], "broke off (the replica is shutting down)"),
    ],
)
def test_a_file_that_is_cut_between_two_lines_is_imported_and_ends_with_a_failure(
    put: list[tuple[bytes, bytes]], documents: list[object], why: str
) -> None:
    code, out, err = run("import", "-", stdin=lines(*documents))
    assert (code, out) == (1, "1 key imported from -\n")
    assert why in err
    assert "export again, and import that file" in err
    assert put == [(b"a", "ü".encode())]


def test_a_file_of_another_program_is_complete_with_the_line_that_the_message_names(
    put: list[tuple[bytes, bytes]],
) -> None:
    written = [{"key": "k", "value": "1"}, {"key": "l", "value": "2"}]
    code, _, err = run("import", "-", stdin=lines(*written))
    assert (code, '{"count":2}' in err) == (1, True)
    assert run("import", "-", stdin=lines(*written, {"count": 2})) == (0, "2 keys imported from -\n", "")
    assert len(put) == 4


@pytest.mark.parametrize("line", [b"junk\n", b'{"x":1}\n', b'{"key":"k","revision":1}\n', b'{"key":7}\n', b"\xff\n"])
def test_an_invalid_line_is_named(put: list[tuple[bytes, bytes]], line: bytes) -> None:
    code, out, err = run("import", "-", stdin=lines(LINES[0]) + line)
    assert (code, out) == (2, "")
    assert err.startswith("kvstore: line 2 ")


def test_two_lines_of_a_key_are_imported_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, put: list[tuple[bytes, bytes]]
) -> None:
    twice = [{"key": "k", "value": "1"}, {"key": "l", "value": "1"}, {"key": "k", "value": "2"}]
    windows = [
        list(window.values)
        for window in import_._windows(enumerate(lines(*twice).splitlines(), 1), b"", import_.ImportProgress(0))
    ]
    assert windows == [[b"k", b"l"], [b"k"]]
    run("import", "-", stdin=lines(*twice))
    assert put == [(b"k", b"1"), (b"l", b"1"), (b"k", b"2")]


def test_an_import_that_breaks_off_says_how_to_continue(
    monkeypatch: pytest.MonkeyPatch, put: list[tuple[bytes, bytes]]
) -> None:
    monkeypatch.setattr(import_, "WINDOW", 2)
    take = Client.put

    async def refuse(client: Client, key: bytes, value: bytes) -> PutResult:
        if key == b"c":
            raise UnknownOutcome("perhaps: look")
        return await take(client, key, value)

    monkeypatch.setattr(Client, "put", refuse)
    code, _, err = run("import", "-", stdin=lines(*LINES))
    progress = "2 keys imported, up to line 2, and perhaps some of the lines to 3; continue with --from-line 3"
    assert (code, err) == (4, f"kvstore: perhaps: look\nkvstore: {progress}\n")
    monkeypatch.setattr(Client, "put", take)
    assert run("import", "-", "--from-line", "3", stdin=lines(*LINES))[0] == 0
    assert put[2:] == [(b"c", b"")]


TAKEN = {
    "a byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "line ends of Windows": lambda content: content.replace(b"\n", b"\r\n"),
    "no line end at the end": lambda content: content[:-1],
    "empty lines": lambda content: content.replace(b"\n", b"\n\n", 1),
}
REFUSED = {
    "UTF-16 of PowerShell": (lambda content: content.decode().encode("utf-16"), "is UTF-16"),
    "UTF-16 without a mark": (lambda content: content.decode().encode("utf-16-le"), "bytes of value 0"),
    "gzip": (gzip.compress, "is compressed with gzip: decompress it with `gunzip` first"),
    "a spreadsheet": (lambda _: b"PK\x03\x04...", "a ZIP archive or a spreadsheet"),
    "a backup": (lambda _: b"SQLite format 3\0", "`kvstore restore` reads"),
    "CSV": (lambda _: b"sep=;\r\nkey;value\r\na;1\r\n", "line 1 is not a record"),
    "an array": (lambda _: b"[" + lines(LINES[0]) + b"]", "line 1 is not a record"),
    "nothing": (lambda _: b"", "standard input is empty"),
    "cut in a line": (lambda content: content[: content.index(b"Yi//")], "line 2 is cut short"),
    "another encoding": (lambda _: '{"key":"ü","value":""}\n'.encode("latin-1"), "line 1 is not a record"),
    "a long key": (lambda _: lines({"key": "k" * 1025, "value": ""}), "line 1 has a key that no store takes"),
    "a reserved key": (lambda _: lines({"key": "\0k", "value": ""}), "line 1 has a key that no store takes"),
    "a name twice": (lambda _: b'{"key":"a","value":"1","value":"2"}\n', "'value' twice"),
    "half a character": (lambda _: b'{"key":"\\ud800","value":""}\n', "line 1 is not a record"),
    "a float for a count": (lambda content: content.replace(b'"count": 3', b'"count": 3.0'), "line 4 is not a record"),
}


@pytest.mark.parametrize("form", TAKEN.values(), ids=TAKEN)
def test_a_file_from_another_system_is_imported(put: list[tuple[bytes, bytes]], form: Callable[[bytes], bytes]) -> None:
    code, out, _ = run("import", "-", stdin=form(lines(*LINES)))
    assert (code, out) == (0, "3 keys imported from -\n")
    assert put == [(b"a", "ü".encode()), (b"b/\xff", b"\xfe\0"), (b"c", b"")]


@pytest.mark.parametrize(("form", "why"), REFUSED.values(), ids=REFUSED)
def test_another_file_is_refused_with_its_kind(
    put: list[tuple[bytes, bytes]], form: Callable[[bytes], bytes], why: str
) -> None:
    code, out, err = run("import", "-", stdin=form(lines(*LINES)))
    assert (code, out) == (2, "")
    assert why in err
    assert put == []


def test_a_line_without_an_end_is_not_read_into_memory(
    monkeypatch: pytest.MonkeyPatch, put: list[tuple[bytes, bytes]]
) -> None:
    monkeypatch.setattr(import_, "MAX_LINE_BYTES", 1000)
    code, _, err = run("import", "-", stdin=b"a" * 1001)
    assert code == 2
    assert "line 1 has more than 1,000 bytes" in err


def test_a_first_line_behind_the_end_is_refused(put: list[tuple[bytes, bytes]]) -> None:
    code, _, err = run("import", "-", "--from-line", "6", stdin=lines(*LINES))
    assert code == 2
    assert "has only 4 lines: correct --from-line 6" in err


def test_a_record_that_the_store_rejects_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reject(*_: object) -> PutResult:
        raise Rejected("the value is too large")

    monkeypatch.setattr(Client, "put", reject)
    code, _, err = run("import", "-", stdin=lines(LINES[1]))
    assert code == 2
    assert "line 1, key 'b/\\xff': the value is too large" in err
