"""`kvstore export`: a line of JSON for each record, in the NDJSON format of `GET /kv/`.

    {"key":"a","value":"1","revision":3,"create_revision":1,"version":2}
    {"revision":7,"count":1,"more":false}

The last line confirms that the export is complete.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import typer

from kvstore.api.json.documents import RecordStreamEndDocument, record_document
from kvstore.api.queries import Consistency
from kvstore.cli.connect import DEFAULT, Endpoints, with_client
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.keys import ReadConsistency, Revision, span_of
from kvstore.cli.output import count_of_keys, standard_output, write_text
from kvstore.cli.terminal import progress_bar
from kvstore.client import Client, ClientError

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC

PrefixOption = Annotated[str, typer.Option("--prefix", help="Only keys that begin with this text.")]


def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="File to create; - is standard output.")],
    endpoints: Endpoints = DEFAULT,
    prefix: PrefixOption = "",
    revision: Revision = None,
    consistency: ReadConsistency = Consistency.LINEARIZABLE,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> None:
    """Write keys to a file, one line of JSON for each.

    All keys are as of one revision, in the NDJSON format of GET /kv/. Exit status 1: FILE cannot be written. 2: FILE
    exists. 3: the cluster did not send all keys; FILE is not created.
    """
    path = Path(file)
    if file != "-" and path.exists() and not force:
        fail(f"{path} exists: give another name, or --force to replace it", ExitStatus.USAGE)
    try:
        with standard_output() if file == "-" else _complete_file(path) as out:
            count, as_of = with_client(endpoints, lambda client: _export(client, out, prefix, consistency, revision))
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}", ExitStatus.FAILED)
    if file != "-":
        write_text(f"{path}: {count_of_keys(count)} at revision {as_of:,}")


@contextmanager
def _complete_file(path: Path) -> Iterator[BinaryIO]:
    """Provide a file that is written as `path`.partial, and renamed to `path` once it is complete."""
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
    """Write the keys to `out`, and return their number and the revision of the export."""
    as_of = revision if revision is not None else await client.revision(consistency)
    count = 0
    with progress_bar() as bar:
        task = bar.add_task("exporting", total=None if prefix else await _key_count(client), detail="")

        def report(so_far: int) -> None:
            bar.update(task, completed=so_far, detail=count_of_keys(so_far))

        if as_of:
            async for found in client.list(span_of(prefix), consistency, revision=as_of, progress=report):
                out.write(msgspec.json.encode(record_document(found)) + b"\n")
                count += 1
    out.write(msgspec.json.encode(RecordStreamEndDocument(revision=as_of, count=count, more=False)) + b"\n")
    return count, as_of


async def _key_count(client: Client) -> int | None:
    """Return the approximate number of keys in the store; None if no replica answers."""
    for endpoint in client.endpoints:
        with suppress(ClientError):
            return (await client.status(endpoint)).keys
    return None
