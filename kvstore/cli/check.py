"""`kvstore check`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kvstore.api.membership import MemberRole
from kvstore.backup import check as verification
from kvstore.backup.check import CheckReport, LogReport, MemberReport, OwnerReport, StateReport
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.output import count_of_keys, write_json
from kvstore.cli.terminal import show
from storage.base import StorageError
from storage.directory import DATA_FILE, lock_holder

_NEXT = (
    "[bold]next[/bold]     start the replica: it sets this data aside, and the other members send it their state. The "
    "only replica of a cluster has no other members: create a new cluster from a backup with `kvstore restore`."
)

DAMAGED = 1
IN_USE = 3


def check(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Data directory of a stopped replica.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Verify the data directory of a stopped replica.

    DIR is not changed; after a crash, a copy of the data in TMPDIR is read. Exit status 0: the data is sound. 1: it is
    damaged. 2: DIR has no data, or data of a newer release. 3: a replica is using DIR.
    """
    try:
        _refuse_used(directory)
        report = verification.check(directory)
        _refuse_used(directory)  # a replica that started meanwhile would invalidate the report
    except StorageError as error:
        fail(error, ExitStatus.USAGE)
    except OSError as error:
        fail(f"{directory} cannot be read ({error.strerror}): {error.filename}", ExitStatus.USAGE)
    if json:
        document = {"sound": report.sound, **msgspec.to_builtins(report)}
        write_json(document)
    else:
        show(_table(report))
        for damage in report.damage:
            show(Text.assemble(("damaged", "red"), f"  {damage}"), soft_wrap=True)
        if not report.sound:
            show(_NEXT, soft_wrap=True)
    if not report.sound:
        raise typer.Exit(DAMAGED)


def _refuse_used(directory: Path) -> None:
    holder = lock_holder(directory)
    if holder is not None:
        fail(
            f"{directory} is in use by {holder}: see its state with `kvstore status`, or stop it and check again",
            IN_USE,
        )
    found = [path.parent for path in sorted(directory.glob(f"*/{DATA_FILE}"))]
    nodes = [str(node) for node in found if not node.name.startswith("damaged-")]
    if nodes and not (directory / DATA_FILE).exists():
        fail(
            f"{directory} holds the data of several replicas: check one of {', '.join(nodes)}",
            ExitStatus.USAGE,
        )


def _table(report: CheckReport) -> Table:
    verdict = "[green]sound[/green]" if report.sound else "[red]damaged[/red]"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row(f"[bold]{escape(report.directory)}[/bold]", verdict)
    for name, text in _rows(report):
        table.add_row(name, text)
    return table


def _rows(report: CheckReport) -> Iterator[tuple[str, str]]:
    if report.owner is not None:
        yield "node", _owner(report.owner)
    if report.members is not None:
        members = ", ".join(map(_member, report.members)) or "not known yet"
        yield "members", f"{members}; membership version {report.members_version}"
    if report.promised is not None:
        yield "promise", "none" if report.promised.startswith("0.") else f"ballot {report.promised}"
    if report.log is not None:
        yield from _log(report.log)
    if report.state is not None:
        yield from _state(report.state)
    files = report.files
    if files is not None:
        yield "files", f"{DATA_FILE} {decimal(files.database_bytes)}, schema {files.schema or 'not known'}"
        in_use = f"{decimal(files.wal_bytes)} of {decimal(files.wal_file_bytes)} in use"
        empty = "empty: the replica was shut down cleanly" if report.sound else "empty"
        yield "", f"write-ahead log {in_use if files.wal_bytes else empty}"
        if files.set_aside:
            yield "set aside", f"{', '.join(files.set_aside)}: earlier damaged data, which may be deleted"


def _owner(owner: OwnerReport) -> str:
    origin = f"founded with {', '.join(owner.began_with)}" if owner.began_with else "joined"
    return f"{owner.node} of cluster {owner.cluster}, incarnation {owner.incarnation}, boot {owner.boot}, {origin}"


def _member(member: MemberReport) -> str:
    return member.name if member.role is MemberRole.VOTER else f"{member.name} ({member.role})"


def _log(log: LogReport) -> Iterator[tuple[str, str]]:
    slots = f"slots {log.truncated + 1:,} to {log.last:,}" if log.entries else f"empty after slot {log.truncated:,}"
    yield "log", f"{slots}, {log.entries:,} entries, {decimal(log.bytes)}; checksums verified"
    yield "", f"chosen up to slot {log.chosen:,}, applied and hash chain verified up to slot {log.applied:,}"


def _state(state: StateReport) -> Iterator[tuple[str, str]]:
    if state.witness:
        yield "state", "none: this replica is a witness"
    else:
        size = f"{count_of_keys(state.keys)}, {decimal(state.bytes)}, at revision {state.revision:,}"
        yield "state", f"{size}; checksums and digest verified"
    if state.restored:
        yield "", "restored from a backup; its cluster is founded when all founding members run"
    if state.compacted >= state.revision:
        yield "history", "none: only the latest revision of each key"
    else:
        yield "history", f"every revision from {state.compacted + 1:,} to {state.revision:,}"
    if state.staged:
        yield "staged", f"part of a peer's snapshot, up to revision {state.staged:,}"
