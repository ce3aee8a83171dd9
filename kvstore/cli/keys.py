"""`kvstore get | put | delete`: a key, on the command line."""

import os
import sys
from typing import Annotated, NoReturn

import typer

from kvstore.api.commands import Found
from kvstore.api.json import named, record_document
from kvstore.api.key_range import Span, starting_with
from kvstore.api.queries import Consistency
from kvstore.cli.output import Json, keys_in_words, show, shown, standard_output, write_json
from kvstore.cli.talking import ABSENT, DEFAULT, REJECTED, Endpoints, end, talk
from kvstore.client import Client, FencingToken

Key = Annotated[str, typer.Argument(help="The key, 1 to 1024 bytes.")]
Revision = Annotated[int | None, typer.Option(min=1, help="As of this revision of the store.")]
IfRevision = Annotated[int | None, typer.Option(min=1, help="Only while the key is at this revision.")]
LockName = Annotated[
    str | None,
    typer.Option("--lock", metavar="NAME", envvar="KVSTORE_LOCK", help="Only while --fence holds this lock."),
]
FenceToken = Annotated[
    int | None,
    typer.Option("--fence", min=1, envvar="KVSTORE_FENCE", help="Of --lock. `kvstore lock` sets both for its command."),
]


def get(
    key: Key,
    endpoints: Endpoints = DEFAULT,
    consistency: Annotated[Consistency, typer.Option(help="How current the value must be.")] = Consistency.LINEARIZABLE,
    revision: Revision = None,
    *,
    json: Json = False,
) -> None:
    """Write the value of KEY to standard output, byte for byte; with --json also its revisions, version and lease.

    Exit status 1 when it is absent.
    """
    name = key_of(key)
    if json:
        found = talk(endpoints, lambda client: _find(client, name, consistency, revision))
        if found is None:
            _absent(name)
        write_json(record_document(found))
        return
    record = talk(endpoints, lambda client: client.get(name, consistency, revision=revision))
    if record is None:
        _absent(name)
    with standard_output() as out:
        out.write(record.value)


def put(
    key: Key,
    value: Annotated[str, typer.Argument(help="The value, or - to read it from standard input.")],
    endpoints: Endpoints = DEFAULT,
    if_revision: IfRevision = None,
    *,
    lease: Annotated[int | None, typer.Option(min=1, metavar="ID", help="The key goes with this lease.")] = None,
    ttl: Annotated[float | None, typer.Option(metavar="S", help="The key goes after so many seconds.")] = None,
    lock: LockName = None,
    fence: FenceToken = None,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Only if there is no such key.")] = False,
    json: Json = False,
) -> None:
    """Set KEY to VALUE.

    Exit status 1: there is no such lease. 3: not done, repeat it. 4: it may have been done. 5: the condition failed.
    """
    name, guard = key_of(key), _fence(lock, fence)
    content = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    result = talk(
        endpoints,
        lambda client: client.put(
            name, content, if_revision=if_revision, if_absent=if_absent, lease=lease, ttl_s=ttl, fence=guard
        ),
    )
    number = result.revision if ttl is not None else lease
    if json:
        about = {"lease": number} if number is not None else {}
        write_json({**named(name), "revision": result.revision, "version": result.version, **about})
    else:
        on_lease = f", lease {number}" if number is not None else ""
        show(f"revision {result.revision}, version {result.version}{on_lease}", soft_wrap=True)


def delete(
    key: Key,
    endpoints: Endpoints = DEFAULT,
    if_revision: IfRevision = None,
    lock: LockName = None,
    fence: FenceToken = None,
    *,
    prefix: Annotated[bool, typer.Option("--prefix", help="All keys that begin with KEY, in one revision.")] = False,
    json: Json = False,
) -> None:
    """Remove KEY.

    Exit status 1: it is absent. 3: not done, repeat it. 4: it may have been done. 5: the condition does not hold.
    """
    guard = _fence(lock, fence)
    if prefix:
        if if_revision is not None or guard is not None:
            end(
                ValueError("--prefix goes with no condition: delete the keys one by one, or by `kvstore txn`"), REJECTED
            )
        deleted = talk(endpoints, lambda client: client.delete_span(starting_with(os.fsencode(key))))
        if json:
            write_json({"revision": deleted.revision, "deleted": deleted.deleted})
        else:
            show(f"revision {deleted.revision}, deleted {keys_in_words(deleted.deleted)}", soft_wrap=True)
        return
    name = key_of(key)
    result = talk(endpoints, lambda client: client.delete(name, if_revision=if_revision, fence=guard))
    if result is None:
        _absent(name)
    if json:
        write_json({**named(name), "revision": result.revision, "version": result.version,
                    "deleted_revision": result.deleted_revision})  # fmt: skip
    else:
        show(f"revision {result.revision}, deleted version {result.version}", soft_wrap=True)


def key_of(text: str) -> bytes:
    """The bytes that were typed; there has to be one."""
    if not text:
        end(ValueError("the key is empty: give 1 to 1,024 bytes"), REJECTED)
    return os.fsencode(text)


async def _find(client: Client, key: bytes, consistency: Consistency, revision: int | None) -> Found | None:
    """A list of one key: unlike the answer to a GET it has the lease beside the record."""
    async for found in client.list(Span(key, key + b"\0"), consistency, revision=revision):
        return found
    return None


def _fence(lock: str | None, token: int | None) -> FencingToken | None:
    if lock is None and token is None:
        return None
    if lock is None or token is None:
        end(ValueError("--lock and --fence go together: give both"), REJECTED)
    return FencingToken(os.fsencode(lock), token)


def _absent(key: bytes) -> NoReturn:
    end(LookupError(f"'{shown(key)}' is absent"), ABSENT)
