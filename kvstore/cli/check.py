"""`kvstore check`: what a data directory holds, and whether it is sound, without changing a byte of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from kvstore.api.membership import MemberRole
from kvstore.cli.output import write_json
from kvstore.cli.talking import end
from storage.base import StorageError
from storage.directory import DATA_FILE, lock_holder

if TYPE_CHECKING:
    from kvstore.backup.check import MemberFound, Owner, Report, State

_NEXT = (
    "[bold]next[/bold]     start the replica: it sets this data aside, and its peers give it a place and the state "
    "anew. The only one of a cluster has nobody to ask: make a new one of a backup with `kvstore restore`."
)

DAMAGED = 1
USAGE = 2
IN_USE = 3


def check(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The data directory of a replica that is stopped.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="All that was found, as JSON.")] = False,
) -> None:
    """Say what the data of a replica holds and whether it is sound. Nothing in DIR is changed.

    Where the replica did not stop in order it looks into a copy, in TMPDIR. Exit status: 0 sound, 1 damaged, 2 there is
    no data of a replica, or of a newer release, 3 a replica is using it.
    """
    from kvstore.backup.check import check as verify  # noqa: PLC0415 - as in `serve`

    try:
        _refuse_used(directory)
        report = verify(directory)
        _refuse_used(directory)  # it may have been started meanwhile, and then what was found means nothing
    except StorageError as error:
        end(error, USAGE)
    except OSError as error:
        end(OSError(f"{directory} cannot be read ({error.strerror}): {error.filename}"), USAGE)
    if json:
        document = {"sound": report.sound, **msgspec.to_builtins(report)}
        write_json(document)
    else:
        console = Console(soft_wrap=True, highlight=False)
        console.print(_table(report))
        for what in report.damage:
            console.print(f"[red]damaged[/red]  {escape(what)}")
        if not report.sound:
            console.print(_NEXT)
    if not report.sound:
        raise typer.Exit(DAMAGED)


def _refuse_used(directory: Path) -> None:
    holder = lock_holder(directory)
    if holder is not None:
        text = f"{directory} is in use by {holder}: ask it with `kvstore status`, or stop it and check again"
        end(StorageError(text), IN_USE)
    found = [path.parent for path in sorted(directory.glob(f"*/{DATA_FILE}"))]
    nodes = [node for node in found if not node.name.startswith("damaged-")]
    if nodes and not (directory / DATA_FILE).exists():
        text = f"{directory} holds the data of several replicas: check {', '.join(map(str, nodes))}, one at a time"
        end(StorageError(text), USAGE)


def _table(report: "Report") -> Table:
    verdict = "[green]sound[/green]" if report.sound else "[red]damaged[/red]"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row(f"[bold]{escape(report.directory)}[/bold]", verdict)
    for name, text in _rows(report):
        table.add_row(name, text)
    return table


def _rows(report: "Report") -> Iterator[tuple[str, str]]:
    if report.owner is not None:
        yield "node", _owner(report.owner)
    if report.members is not None:
        yield (
            "members",
            f"{', '.join(map(_member, report.members)) or 'not known yet'}; version {report.members_version}",
        )
    if report.promised is not None:
        yield "promise", report.promised
    log = report.log
    if log is not None:
        what = f"slots {log.cut + 1:,} to {log.last:,}" if log.entries else f"none behind slot {log.cut:,}"
        yield "log", f"{what}, {log.entries:,} entries, {decimal(log.bytes)}; checksums verified"
        yield "", f"chosen up to {log.chosen:,}, applied up to {log.applied:,}; chain verified up to there"
    if report.state is not None:
        yield "state", _state(report.state)
        yield "history", _history(report.state)
        if report.state.staged:
            yield "staged", f"a state of a peer, up to revision {report.state.staged:,}; it is not whole"
    files = report.files
    if files is not None:
        yield "files", f"{DATA_FILE} {decimal(files.database_bytes)}, schema {files.schema or 'not known'}"
        in_use = f"{decimal(files.wal_bytes)} of {decimal(files.wal_file_bytes)} in use"
        yield "", f"write-ahead log {in_use if files.wal_bytes else 'empty: it was stopped in order'}"
        if files.set_aside:
            yield "set aside", f"{', '.join(files.set_aside)}: damaged data of before; remove it when you have seen it"


def _owner(owner: "Owner") -> str:
    began = f"began with {', '.join(owner.began_with)}" if owner.began_with else "joined"
    return f"{owner.node} of cluster {owner.cluster}, incarnation {owner.incarnation}, boot {owner.boot}, {began}"


def _member(member: "MemberFound") -> str:
    return member.name if member.role is MemberRole.VOTER else f"{member.name} ({member.role})"


def _state(state: "State") -> str:
    if state.witness:
        return "none: it is a witness"
    counted = f"{state.keys:,} keys, {decimal(state.bytes)}, at revision {state.revision:,}"
    return f"{counted}; checksums and digest verified"


def _history(state: "State") -> str:
    if state.compacted >= state.revision:
        return "none: only what is there now"
    return f"every revision from {state.compacted + 1:,} to {state.revision:,}"
