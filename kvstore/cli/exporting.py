"""`kvstore export`: keys as lines of JSON, a record each, as `GET /kv/` gives them as NDJSON.

    {"key":"a","value":"1","revision":3,"create_revision":1,"version":2}
    {"revision":7,"count":1,"more":false}

The last line says that this was all of it.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, BinaryIO

import orjson
import typer

from kvstore.api.json import record_document
from kvstore.api.queries import Consistency
from kvstore.cli.output import keys_in_words, standard_output
from kvstore.cli.progress import progress_bar
from kvstore.cli.spans import span_of
from kvstore.cli.talking import DEFAULT, FAILED, REJECTED, Endpoints, end, talk
from kvstore.client import Client, ClientError

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC

Prefix = Annotated[str, typer.Option("--prefix", help="Only keys that begin like that.")]


def export(
    file: Annotated[str, typer.Argument(help="The file to make, or - for standard output.")],
    endpoints: Endpoints = DEFAULT,
    prefix: Prefix = "",
    revision: Annotated[int | None, typer.Option(min=1, help="As of this revision of the store.")] = None,
    consistency: Annotated[Consistency, typer.Option(help="How current it must be.")] = Consistency.LINEARIZABLE,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> None:
    """Write all keys, as of one revision, to FILE: a line of JSON for each, as GET /kv/ gives them as NDJSON.

    Exit status 1: FILE cannot be written, 2: it exists, 3: not all of it came, and there is no FILE.
    """
    path = Path(file)
    if file != "-" and path.exists() and not force:
        end(FileExistsError(f"{path} exists: give another name, or --force to replace it"), REJECTED)
    try:
        with standard_output() if file == "-" else _made_whole(path) as out:
            count, as_of = talk(endpoints, lambda client: _export(client, out, prefix, consistency, revision))
    except OSError as error:
        end(OSError(f"{file} cannot be written: {error.strerror}"), FAILED)
    if file != "-":
        sys.stdout.write(f"{path}: {keys_in_words(count)} at revision {as_of:,}\n")


@contextmanager
def _made_whole(path: Path) -> Iterator[BinaryIO]:
    """It is written as FILE.partial, and gets its name when all is there."""
    partial = path.with_name(path.name + ".partial")
    try:
        with os.fdopen(os.open(partial, _FLAGS, 0o600), "wb") as out:  # values may be secrets
            yield out
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


async def _export(
    client: Client, out: BinaryIO, prefix: str, consistency: Consistency, revision: int | None
) -> tuple[int, int]:
    """How many keys, and as of which revision."""
    as_of = revision if revision is not None else await client.revision(consistency)
    count = 0
    with progress_bar() as bar:
        task = bar.add_task("exporting", total=None if prefix else await _keys(client), detail="")

        def told(so_far: int) -> None:
            bar.update(task, completed=so_far, detail=keys_in_words(so_far))

        if as_of:
            async for found in client.list(span_of(prefix), consistency, revision=as_of, progress=told):
                out.write(orjson.dumps(record_document(found)) + b"\n")
                count += 1
    out.write(orjson.dumps({"revision": as_of, "count": count, "more": False}) + b"\n")
    return count, as_of


async def _keys(client: Client) -> int | None:
    """How many there are, about; None when nobody says."""
    for endpoint in client.endpoints:
        with suppress(ClientError):
            return (await client.status(endpoint)).keys
    return None
