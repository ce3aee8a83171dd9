"""`kvstore backup`."""

import sys
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from kvstore.api.queries import Consistency
from kvstore.backup.file import BackupError, BackupInfo, BackupWriter, MisuseError
from kvstore.backup.stream import StreamEnd, StreamPage, StreamStart
from kvstore.cli.connect import DEFAULT, Endpoints, with_client
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.output import count_of_keys
from kvstore.cli.terminal import progress_bar
from kvstore.client import Client, Unavailable
from storage.base import Change


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to create.")],
    endpoints: Endpoints = DEFAULT,
    consistency: Annotated[
        Consistency,
        typer.Option(help="`stale` backs up the state of one replica, and needs no majority."),
    ] = Consistency.LINEARIZABLE,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> None:
    """Write all keys, as of one moment, to an SQLite file.

    The backup contains every write that was acknowledged before it began, and the replica keeps serving. To read it:
    sqlite3 FILE "select * from readable". Exit status 1: FILE cannot be written. 2: FILE exists. 3: no replica sent
    the whole state; FILE is not created.
    """
    try:
        with BackupWriter(file, replace=force) as writer:
            info = with_client(endpoints, lambda client: _take(client, consistency, writer))
    except MisuseError as error:
        fail(error, ExitStatus.USAGE)
    except BackupError as error:
        fail(error, ExitStatus.FAILED)
    sys.stdout.write(
        f"{file}: {count_of_keys(info.records)} of cluster {info.cluster} at revision {info.revision:,}, "
        f"from {info.node} ({decimal(file.stat().st_size)})\n"
    )


async def _take(client: Client, consistency: Consistency, writer: BackupWriter) -> BackupInfo:
    start: StreamStart | None = None
    rows, size_bytes = 0, 0
    with progress_bar() as bar:  # its total is approximate: the state may change meanwhile
        task = bar.add_task("waiting for the state", total=None, detail="")
        async with aclosing(client.backup(consistency)) as parts:
            async for part in parts:
                match part:
                    case StreamStart():
                        start = part
                        bar.update(task, description=f"from {part.node}", total=max(part.keys, 1))
                    case StreamPage(changes=changes):
                        writer.add(changes)
                        size_bytes += sum(map(_size, changes))
                        rows += len(changes)
                        bar.update(task, completed=rows, detail=decimal(size_bytes))
                    case StreamEnd(progress=progress) if start is not None:
                        bar.update(task, description="checking and syncing")
                        taken_at = datetime.now(UTC).isoformat(timespec="seconds")
                        return writer.finish(
                            progress, cluster=start.cluster, node=start.node, kvstore=start.kvstore, taken_at=taken_at
                        )
    raise Unavailable("the backup stream ended early: take the backup again")


def _size(change: Change) -> int:
    return len(change.key) + len(change.value or b"")
