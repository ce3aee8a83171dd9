"""`kvstore backup`: all keys of a running cluster, as they were at one moment, in one SQLite file."""

import sys
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from kvstore.api.queries import Consistency
from kvstore.backup.file import About, BackupError, BackupWriter, MisuseError
from kvstore.backup.stream import End, Page, Start
from kvstore.cli.progress import progress_bar
from kvstore.cli.talking import DEFAULT, FAILED, REJECTED, Endpoints, end, talk
from kvstore.client import Client, Unavailable
from storage.base import Change


def backup(
    file: Annotated[Path, typer.Argument(help="The file to make.")],
    endpoints: Endpoints = DEFAULT,
    consistency: Annotated[
        Consistency,
        typer.Option(help="How current it must be; `stale` takes what a replica has, also without a majority."),
    ] = Consistency.LINEARIZABLE,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> None:
    """Write all keys, as they are at one moment, to FILE: an SQLite database. The replica serves on meanwhile.

    It holds every write that was acknowledged before. Look into it with: sqlite3 FILE "select * from readable".
    Exit status 1: FILE cannot be written, 2: it exists, 3: no replica sent all of it, and there is no FILE.
    """
    try:
        with BackupWriter(file, replace=force) as writer:
            about = talk(endpoints, lambda client: _take(client, consistency, writer))
    except MisuseError as error:
        end(error, REJECTED)
    except BackupError as error:
        end(error, FAILED)
    sys.stdout.write(
        f"{file}: {about.records:,} keys of cluster {about.cluster} at revision {about.revision:,}, from {about.node} "
        f"({decimal(file.stat().st_size)})\n"
    )


async def _take(client: Client, consistency: Consistency, writer: BackupWriter) -> About:
    start: Start | None = None
    rows, size_bytes = 0, 0
    with progress_bar() as bar:  # by keys: a state that changes meanwhile ends a little later
        task = bar.add_task("asking for the state", total=None, detail="")
        async with aclosing(client.backup(consistency)) as parts:
            async for part in parts:
                match part:
                    case Start():
                        start = part
                        bar.update(task, description=f"from {part.node}", total=max(part.keys, 1))
                    case Page(changes=changes):
                        writer.add(changes)
                        size_bytes += sum(map(_size, changes))
                        rows += len(changes)
                        bar.update(task, completed=rows, detail=decimal(size_bytes))
                    case End(progress=progress) if start is not None:
                        bar.update(task, description="checking and syncing")
                        taken_at = datetime.now(UTC).isoformat(timespec="seconds")
                        return writer.finish(
                            progress, cluster=start.cluster, node=start.node, kvstore=start.kvstore, taken_at=taken_at
                        )
    raise Unavailable("the stream has no end: take the backup again")


def _size(change: Change) -> int:
    return len(change.key) + len(change.value or b"")
