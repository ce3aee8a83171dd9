"""`kvstore get | put | delete | list`."""

import os
import sys
from typing import Annotated, NoReturn

import msgspec
import typer

from kvstore.api.commands import MAX_KEYS, DeleteSpanResult, KeyState
from kvstore.api.json.documents import (
    KeyDeletedDocument,
    KeyPutDocument,
    RangeDeletedDocument,
    record_document,
    text_or_base64,
)
from kvstore.api.key_range import Span, starting_with
from kvstore.api.queries import Consistency
from kvstore.cli.connect import DEFAULT, Endpoints, Subject, with_client
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.input import standard_input
from kvstore.cli.output import Json, count_of_keys, printable, standard_output, write_json, write_text
from kvstore.cli.parameters import revision_number, ttl_seconds, whole_number
from kvstore.client import Client, FencingToken

VALUE_CHARS = 60
"""Width at which values are truncated in output for people."""

Key = Annotated[str, typer.Argument(metavar="KEY", help="Key of 1 to 1,024 bytes.")]
Prefix = Annotated[str, typer.Argument(metavar="PREFIX", help="Prefix of the keys; all keys if it is omitted.")]
ReadConsistency = Annotated[
    Consistency,
    typer.Option(help="`quorum` asks a majority for each read; `stale` reads one replica, and needs no majority."),
]
Revision = Annotated[
    int | None, typer.Option(parser=revision_number, metavar="N", help="Read as of this revision of the store.")
]
IfRevision = Annotated[
    int | None, typer.Option(parser=revision_number, metavar="N", help="Only if the key is at this revision.")
]
LockName = Annotated[
    str | None,
    typer.Option("--lock", metavar="NAME", envvar="KVSTORE_LOCK", help="Only while --fence holds this lock."),
]
FenceToken = Annotated[
    int | None,
    typer.Option(
        "--fence",
        parser=revision_number,
        metavar="N",
        envvar="KVSTORE_FENCE",
        help="Fencing token of --lock. The command that `kvstore lock` runs has both in its environment.",
    ),
]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object on each line.")]


def get(
    key: Key,
    endpoints: Endpoints = DEFAULT,
    consistency: ReadConsistency = Consistency.LINEARIZABLE,
    revision: Revision = None,
    *,
    json: Json = False,
) -> None:
    """Write the value of a key to standard output.

    The bytes are written as they are. --json adds the revisions, the version and the lease of the key. Exit status 1:
    the key does not exist.
    """
    name = _key_of(key)
    if json:
        found = with_client(endpoints, lambda client: _find(client, name, consistency, revision))
        if found is None:
            _no_such_key(name)
        write_json(record_document(found))
        return
    record = with_client(endpoints, lambda client: client.get(name, consistency, revision=revision))
    if record is None:
        _no_such_key(name)
    with standard_output() as out:
        out.write(record.value)


def put(
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Value; - is standard input.")],
    endpoints: Endpoints = DEFAULT,
    if_revision: IfRevision = None,
    *,
    lease: Annotated[
        int | None,
        typer.Option(parser=revision_number, metavar="ID", help="Attach the key to this lease, whose end deletes it."),
    ] = None,
    ttl: Annotated[
        float | None,
        typer.Option(parser=ttl_seconds, metavar="S", help="Attach the key to a new lease of this many seconds."),
    ] = None,
    lock: LockName = None,
    fence: FenceToken = None,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Only if the key does not exist.")] = False,
    json: Json = False,
) -> None:
    """Set a key.

    Exit status 1: the lease does not exist. 3: not done, safe to repeat. 4: it may have been done. 5: the condition
    does not hold.
    """
    name, guard = _key_of(key), _fence(lock, fence)
    content = standard_input().read() if value == "-" else os.fsencode(value)
    result = with_client(
        endpoints,
        lambda client: client.put(
            name, content, if_revision=if_revision, if_absent=if_absent, lease=lease, ttl_s=ttl, fence=guard
        ),
        subject=Subject(name, lease, guard),
    )
    lease_id = result.revision if ttl is not None else lease
    if json:
        text, blob = text_or_base64(name)
        document = KeyPutDocument(
            key=text,
            key_base64=blob,
            revision=result.revision,
            version=result.version,
            lease=lease_id if lease_id is not None else msgspec.UNSET,
        )
        write_json(document)
    else:
        on_lease = f", lease {lease_id}" if lease_id is not None else ""
        write_text(f"revision {result.revision}, version {result.version}{on_lease}")


def delete(
    key: Key,
    endpoints: Endpoints = DEFAULT,
    if_revision: IfRevision = None,
    lock: LockName = None,
    fence: FenceToken = None,
    *,
    prefix: Annotated[
        bool,
        typer.Option("--prefix", help=f"Delete all keys that begin with KEY, up to {MAX_KEYS:,} in each revision."),
    ] = False,
    json: Json = False,
) -> None:
    """Delete a key, or all keys with a prefix.

    Exit status 1: the key does not exist. 3: not done, safe to repeat. 4: it may have been done. 5: the condition does
    not hold.
    """
    guard = _fence(lock, fence)
    if prefix:
        if if_revision is not None or guard is not None:
            fail("--prefix takes no condition: delete the keys one by one, or with `kvstore txn`", ExitStatus.USAGE)
        deleted = with_client(endpoints, lambda client: _delete_span(client, span_of(key)))
        if json:
            write_json(RangeDeletedDocument(revision=deleted.revision, deleted=deleted.deleted))
        else:
            write_text(f"revision {deleted.revision}, deleted {count_of_keys(deleted.deleted)}")
        return
    name = _key_of(key)
    result = with_client(
        endpoints,
        lambda client: client.delete(name, if_revision=if_revision, fence=guard),
        subject=Subject(name, fence=guard),
    )
    if result is None:
        _no_such_key(name)
    if json:
        text, blob = text_or_base64(name)
        document = KeyDeletedDocument(
            key=text,
            key_base64=blob,
            revision=result.revision,
            deleted_revision=result.deleted_revision,
            version=result.version,
        )
        write_json(document)
    else:
        write_text(f"revision {result.revision}, deleted version {result.version}")


async def _delete_span(client: Client, span: Span) -> DeleteSpanResult:
    """Delete all keys of `span`, up to MAX_KEYS in each revision, and say so if that takes several."""
    count = 0
    while True:
        deleted = await client.delete_span(span, limit=MAX_KEYS)
        count += deleted.deleted
        if not deleted.more:
            return DeleteSpanResult(deleted.revision, count)
        sys.stderr.write(
            f"kvstore: revision {deleted.revision}, deleted {count_of_keys(count)} so far; the rest follows, because a "
            f"revision deletes at most {MAX_KEYS:,}\n"
        )


def list_(
    prefix: Prefix = "",
    endpoints: Endpoints = DEFAULT,
    consistency: ReadConsistency = Consistency.LINEARIZABLE,
    revision: Revision = None,
    limit: Annotated[
        int,
        typer.Option(
            parser=whole_number(1, 10**12), metavar="N", help="Print at most this many keys; --json prints all."
        ),
    ] = 1000,
    *,
    json: JsonLines = False,
) -> None:
    """List keys and their values.

    All keys are read as of one revision, even while they change.
    """

    async def write(client: Client) -> None:
        with standard_output() as out:
            async for found in client.list(span_of(prefix), consistency, revision=revision):
                out.write(msgspec.json.encode(record_document(found)) + b"\n")

    if json:
        with_client(endpoints, write)
    elif with_client(endpoints, lambda client: _show(client, prefix, consistency, revision, limit)):
        sys.stderr.write(f"kvstore: there are more than {limit:,} keys: raise --limit, or use --json\n")


async def _show(client: Client, prefix: str, consistency: Consistency, revision: int | None, limit: int) -> bool:
    """Print at most `limit` keys, and return whether there are more."""
    from rich.text import Text  # noqa: PLC0415 - without it the other commands start in half the time

    from kvstore.cli.terminal import show, table  # noqa: PLC0415 - as above

    more = False
    rows = table("key", "value", "revision", "version")
    async for found in client.list(span_of(prefix), consistency, revision=revision):
        if rows.row_count == limit:
            more = True
            break
        record = found.record
        if record is None:
            raise TypeError(f"{found.key!r} was listed without a record")
        key, value = Text(printable(found.key)), Text(printable(record.value, VALUE_CHARS))
        rows.add_row(key, value, str(record.revision), str(record.version))
    show(rows)
    return more


def span_of(prefix: str) -> Span:
    """Return the span of the keys that begin with the command-line argument `prefix`."""
    return starting_with(os.fsencode(prefix))


def _key_of(text: str) -> bytes:
    if not text:
        fail("the key is empty: give 1 to 1,024 bytes", ExitStatus.USAGE)
    return os.fsencode(text)


async def _find(client: Client, key: bytes, consistency: Consistency, revision: int | None) -> KeyState | None:
    """Return `key` with its record and lease. It is read from a list of one key: the answer to a GET has no lease."""
    async for found in client.list(Span(key, key + b"\0"), consistency, revision=revision):
        return found
    return None


def _fence(lock: str | None, token: int | None) -> FencingToken | None:
    if lock is None and token is None:
        return None
    if lock is None or token is None:
        fail("--lock and --fence go together: give both, or neither", ExitStatus.USAGE)
    return FencingToken(os.fsencode(lock), token)


def _no_such_key(key: bytes) -> NoReturn:
    fail(f"key '{printable(key)}' does not exist", ExitStatus.FAILED)
