"""`kvstore import`, which reads the format of `kvstore.cli.export`."""

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import msgspec
import typer

from kvstore.api.json.unique_names import RepeatedNameError, refuse_repeated_names
from kvstore.api.limits import MAX_KEY_BYTES
from kvstore.api.text_files import NotTextError, without_mark
from kvstore.cli.connect import DEFAULT, Endpoints, with_client
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.export import PrefixOption
from kvstore.cli.input import named, standard_input
from kvstore.cli.output import count_of_keys, printable, write_text
from kvstore.cli.parameters import whole_number
from kvstore.cli.terminal import progress_bar
from kvstore.client import Client, Rejected

WINDOW = 2000
"""Maximum number of keys in flight; the client groups them into transactions."""
WINDOW_BYTES = 4 * 1024 * 1024


MAX_LINE_BYTES = 128 * 1024 * 1024
"""Longest line that is read: more than a value of the greatest length takes with all its bytes escaped."""
_EXPORT_AGAIN = "give a file made by `kvstore export`"


class InvalidFileError(ValueError):
    """Error for a file, or for one of its lines, that cannot be imported. The message names the remedy."""


class ExportLine(msgspec.Struct):
    """A line of an export: a record, or the last line, which has `count` and `more` instead of a key."""

    key: str | None = None
    key_base64: bytes = b""
    value: str | None = None
    value_base64: bytes | None = None
    lease: int = 0
    count: int | None = None
    more: bool = False
    error: str = ""

    @property
    def name(self) -> bytes:
        """Bytes of the key; empty in the last line."""
        return self.key.encode() if self.key is not None else self.key_base64

    @property
    def content(self) -> bytes | None:
        """Bytes of the value, None if the line has none."""
        return self.value.encode() if self.value is not None else self.value_base64


class ImportWindow(NamedTuple):
    """Records that are written concurrently, at most one for each key, with the numbers of their lines. `last_line` is
    the number of the last line."""

    last_line: int
    size_bytes: int
    values: dict[bytes, bytes]
    leased: int
    numbers: dict[bytes, int]


class ImportProgress(msgspec.Struct):
    """Progress of an import: all lines up to `last_line` are imported, and perhaps some of the lines up to `begun`.

    `leased` counts the keys that had a lease. `trailer` is the last line of the export, once it has been read.
    """

    last_line: int
    begun: int = 0
    keys: int = 0
    leased: int = 0
    trailer: ExportLine | None = None


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="File to read; - is standard input.")],
    endpoints: Endpoints = DEFAULT,
    prefix: PrefixOption = "",
    from_line: Annotated[
        int, typer.Option(parser=whole_number(1, 10**12), metavar="N", help="Skip the lines before this one.")
    ] = 1,
) -> None:
    """Set the keys in an exported file.

    FILE was written by `kvstore export`, or is the answer to GET /kv/ as NDJSON. Other keys are unchanged, and leases
    are not imported. An import that fails prints how to continue. Exit status 1: all lines were imported, but FILE is
    cut short. 2: FILE cannot be read, or a line is invalid. 3 and 4: not all keys were imported.
    """
    done = ImportProgress(from_line - 1)
    try:
        with nullcontext(standard_input()) if file == "-" else Path(file).open("rb") as lines:
            with_client(endpoints, lambda client: _import(client, lines, prefix, done, file), exactly_once=True)
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", ExitStatus.USAGE)
    except BaseException:
        if done.begun:
            some = f", and perhaps some of the lines to {done.begun:,}" if done.begun > done.last_line else ""
            sys.stderr.write(
                f"kvstore: {count_of_keys(done.keys)} imported, up to line {done.last_line:,}{some}; continue with "
                f"--from-line {done.last_line + 1}\n"
            )
        raise
    write_text(f"{count_of_keys(done.keys)} imported from {file}")
    for warning in _warnings(done, from_line):
        sys.stderr.write(f"kvstore: warning: {warning}\n")
    if (cut := _cut(done, file)) is not None:
        fail(cut, ExitStatus.FAILED)


async def _import(client: Client, lines: BinaryIO, prefix: str, done: ImportProgress, file: str) -> None:
    size = os.fstat(lines.fileno()).st_size if file != "-" else None
    with progress_bar() as bar:
        task = bar.add_task("importing", total=size or None, detail="")
        for window in _windows(_numbered(lines, named(file), done.last_line), os.fsencode(prefix), done):
            done.begun = window.last_line
            await asyncio.gather(*(_put(client, key, value, window) for key, value in window.values.items()))
            done.last_line, done.keys = window.last_line, done.keys + len(window.values)
            done.leased += window.leased
            bar.update(task, advance=window.size_bytes, detail=count_of_keys(done.keys))


async def _put(client: Client, key: bytes, value: bytes, window: ImportWindow) -> None:
    try:
        await client.put(key, value)
    except Rejected as error:
        raise Rejected(f"line {window.numbers[key]}, key '{printable(key, 60)}': {error}") from error


def _numbered(lines: BinaryIO, file: str, skipped: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines after the first `skipped` with their numbers. Raises InvalidFileError."""
    number = 0
    while text := lines.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            try:
                text = without_mark(text)
            except NotTextError as error:
                raise InvalidFileError(f"{file} {error}") from None
        if len(text) > MAX_LINE_BYTES:
            raise InvalidFileError(f"line {number} has more than {MAX_LINE_BYTES:,} bytes: {_EXPORT_AGAIN}")
        if number > skipped:
            yield number, text
    if not number:
        raise InvalidFileError(f"{file} is empty: {_EXPORT_AGAIN}")
    if number < skipped:
        raise InvalidFileError(f"{file} has only {number:,} lines: correct --from-line {skipped + 1}")


def _windows(lines: Iterable[tuple[int, bytes]], prefix: bytes, done: ImportProgress) -> Iterator[ImportWindow]:
    last_line, size_bytes, leased = done.last_line, 0, 0
    values: dict[bytes, bytes] = {}
    numbers: dict[bytes, int] = {}
    for number, text in lines:
        line = _parsed(number, text)
        if line is None:
            continue
        key, value = line.name, line.content
        if not key:
            done.trailer = line
            continue
        if value is None:
            raise InvalidFileError(
                f"line {number} has a key without a value: export again, without keys_only=true in the query"
            )
        if key in values or len(values) == WINDOW or size_bytes >= WINDOW_BYTES:
            yield ImportWindow(last_line, size_bytes, values, leased, numbers)
            size_bytes, leased, values, numbers = 0, 0, {}, {}
        if key.startswith(prefix):
            values[key], numbers[key] = value, number
            leased += bool(line.lease)
        last_line, size_bytes = number, size_bytes + len(text)
    yield ImportWindow(last_line, size_bytes, values, leased, numbers)


def _parsed(number: int, text: bytes) -> ExportLine | None:
    """Return the decoded line, or None for an empty one."""
    if not text.strip():
        return None
    try:
        line = msgspec.json.decode(text, type=ExportLine)
        refuse_repeated_names(text)
        key = line.name
    except (msgspec.MsgspecError, UnicodeError, RecursionError, RepeatedNameError) as error:
        if not text.endswith(b"\n") and text.startswith(b"{") and not text.endswith(b"}"):
            raise InvalidFileError(f"line {number} is cut short: export again, or copy the whole file") from None
        raise InvalidFileError(f"line {number} is not a record ({error}): {_EXPORT_AGAIN}") from None
    if not key and line.count is None:
        raise InvalidFileError(f"line {number} has no key: {_EXPORT_AGAIN}")
    if len(key) > MAX_KEY_BYTES or key.startswith(b"\0"):
        raise InvalidFileError(f"line {number} has a key that no store takes, with {len(key):,} bytes: {_EXPORT_AGAIN}")
    return line


def _warnings(done: ImportProgress, from_line: int) -> Iterator[str]:
    trailer = done.trailer
    if trailer is not None and trailer.more:
        yield "the export is incomplete (it had a limit): export again"
    elif trailer is not None and not trailer.error and from_line == 1 and trailer.count != done.last_line:
        counted = count_of_keys(trailer.count or 0)
        yield f"the last line counts {counted}, but {done.last_line:,} lines precede it: export again"
    if done.leased:
        yield f"{count_of_keys(done.leased)} had a lease: leases are not imported"


def _cut(done: ImportProgress, file: str) -> str | None:
    """Return the reason why keys may be missing in the file, with the remedy; None for a file that has its end."""
    if done.trailer is None:
        end = f'{{"count":{done.last_line}}}'
        return (
            f"{named(file)} does not end with the line of an export that has the count of keys, so it may be cut "
            f"short: export again, and import that file. If it has all keys, as a file of another program, add the "
            f"line {end} to its end"
        )
    if done.trailer.error:
        return f"the export in {named(file)} broke off ({done.trailer.error}): export again, and import that file"
    return None
