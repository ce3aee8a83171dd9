"""`kvstore import`: sets the keys of an export, see `kvstore.cli.exporting`, or of what `GET /kv/` gave as NDJSON."""

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import msgspec
import typer

from kvstore.cli.exporting import Prefix
from kvstore.cli.output import keys_in_words
from kvstore.cli.progress import progress_bar
from kvstore.cli.talking import DEFAULT, REJECTED, Endpoints, end, talk
from kvstore.client import Client

WINDOW = 2000
"""So many keys are under way at once, at most: the client gathers them into transactions."""
WINDOW_BYTES = 4 * 1024 * 1024


class InvalidLineError(ValueError):
    """A line is none of an export. The message says which, and what to do."""


class _Line(msgspec.Struct):
    """A record, or the last line."""

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
        """The key's bytes, none in the last line."""
        return self.key.encode() if self.key is not None else self.key_base64

    @property
    def content(self) -> bytes | None:
        """The value's bytes."""
        return self.value.encode() if self.value is not None else self.value_base64


class _Window(NamedTuple):
    """Keys that are set together, each only once; `upto` is the number of the last line of them."""

    upto: int
    size_bytes: int
    values: dict[bytes, bytes]
    leased: int


class _Progress(msgspec.Struct):
    """`upto`: all lines up to this one are done. `leased` keys were on a lease. `last` is what the last line said."""

    upto: int
    keys: int = 0
    leased: int = 0
    last: _Line | None = None


def import_(
    file: Annotated[str, typer.Argument(help="The file, or - for standard input.")],
    endpoints: Endpoints = DEFAULT,
    prefix: Prefix = "",
    from_line: Annotated[int, typer.Option(min=1, help="Skip the lines before this one, which were done.")] = 1,
) -> None:
    """Set all keys that FILE has, by `kvstore export` or GET /kv/ as NDJSON. Others stay as they are.

    When it breaks off it says how to go on. To import twice sets the same values twice. Exit status 2: FILE cannot be
    read or a line of it not be used, 3 and 4: the cluster did not take all of it.
    """
    done = _Progress(from_line - 1)
    try:
        with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as lines:
            talk(endpoints, lambda client: _import(client, lines, os.fsencode(prefix), done, file), exactly_once=True)
    except OSError as error:
        end(OSError(f"{file} cannot be read: {error.strerror}"), REJECTED)
    except BaseException:
        if done.keys:
            sys.stderr.write(f"kvstore: {keys_in_words(done.keys)} imported; go on with --from-line {done.upto + 1}\n")
        raise
    sys.stdout.write(f"{keys_in_words(done.keys)} imported from {file}\n")
    _doubt(done, from_line)


async def _import(client: Client, lines: BinaryIO, prefix: bytes, done: _Progress, file: str) -> None:
    size = os.fstat(lines.fileno()).st_size if file != "-" else None
    with progress_bar() as bar:
        task = bar.add_task("importing", total=size or None, detail="")
        for window in _windows(lines, prefix, done):
            await asyncio.gather(*(client.put(key, value) for key, value in window.values.items()))
            done.upto, done.keys = window.upto, done.keys + len(window.values)
            done.leased += window.leased
            bar.update(task, advance=window.size_bytes, detail=keys_in_words(done.keys))


def _windows(lines: Iterable[bytes], prefix: bytes, done: _Progress) -> Iterator[_Window]:
    upto, size_bytes, leased = done.upto, 0, 0
    values: dict[bytes, bytes] = {}
    for number, text in islice(enumerate(lines, 1), done.upto, None):
        line = _parsed(number, text)
        if line is None:
            continue
        key, value = line.name, line.content
        if not key:
            done.last = line
            continue
        if value is None:
            raise InvalidLineError(f"line {number} has a key without a value: export without keys_only")
        if key in values or len(values) == WINDOW or size_bytes >= WINDOW_BYTES:
            yield _Window(upto, size_bytes, values, leased)
            size_bytes, leased, values = 0, 0, {}
        if key.startswith(prefix):
            values[key] = value
            leased += bool(line.lease)
        upto, size_bytes = number, size_bytes + len(text)
    yield _Window(upto, size_bytes, values, leased)


def _parsed(number: int, text: bytes) -> _Line | None:
    """None for an empty line."""
    if not text.strip():
        return None
    try:
        line = msgspec.json.decode(text, type=_Line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidLineError(f"line {number} is no record ({error}): take what `kvstore export` makes") from None
    if not line.name and line.count is None:
        raise InvalidLineError(f"line {number} has no key: take what `kvstore export` makes")
    return line


def _doubt(done: _Progress, from_line: int) -> None:
    """What may not be as it was meant."""
    last = done.last
    if last is None:
        say = "there is no last line with a count, as an export has: it may be cut off"
    elif last.error or last.more:
        say = f"it is not all of what there was ({last.error or 'there was a limit'}): export it again"
    elif from_line == 1 and last.count != done.upto:
        say = f"the last line says {keys_in_words(last.count or 0)}: lines before it are missing, or were added"
    else:
        say = ""
    for what in (say, f"{keys_in_words(done.leased)} had a lease, which is not imported" if done.leased else ""):
        if what:
            sys.stderr.write(f"kvstore: warning: {what}\n")
