"""The data directories of a new cluster, out of a backup.

Each node begins with the records, the applied slot and the hash of the log that the backup has, so that all of them
are one cluster; and with no promise, no log, no memory of requests, and members that nobody has seen yet. It has
another name than the cluster of the backup: the replicas of the two refuse each other, whatever they are dialled by.
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from kvstore.api.membership import genesis
from kvstore.backup.file import About, Backup, BackupError, MisuseError
from kvstore.replica.applier import PAGE_BYTES, Applier
from paxos.types import NodeId
from storage.base import AppliedProgress, Change, StagedPage, StatePage, StateWrite
from storage.directory import sync_directory
from storage.sqlite import open_storage


def restore_node(backup: Backup, directory: Path, cluster: str, node: NodeId, members: Collection[NodeId]) -> None:
    """Make `directory` the data of `node`, one of the `members` of the new `cluster`: whole, or not at all. Raises
    MisuseError when the directory is there or the name is the old one, BackupError and StorageError."""
    about = backup.about
    if cluster == about.cluster:
        raise MisuseError(
            f"the backup is of a cluster that is called {cluster} too: give the new one another name with --cluster, "
            "so that replicas of the old one, should any come back, are refused"
        )
    refuse_used(directory)
    partial = directory.with_name(directory.name + ".partial")
    try:
        _remove(partial)
        with closing(open_storage(partial, cluster, node, members)) as storage:
            for staged in _pages(backup, members):
                storage.write([StateWrite(staged=staged)])
        partial.rename(directory)  # fails when somebody has put something there meanwhile
        sync_directory(directory.parent)
    except OSError as error:
        raise BackupError(f"{directory} cannot be made ({error.strerror}): give another --data") from error
    finally:
        _remove(partial)


def refuse_used(directory: Path) -> None:
    """Raises MisuseError when there is something at `directory`: it may be data, with votes."""
    if directory.exists():
        raise MisuseError(
            f"{directory} exists, and nothing is restored over what may be data: give another --data, or move it away"
        )


def _remove(partial: Path) -> None:
    if partial.exists():
        shutil.rmtree(partial)


def _pages(backup: Backup, members: Collection[NodeId]) -> Iterator[StagedPage]:
    """The state as another replica would send it, the last page with the progress. All that was superseded up to its
    revision is gone."""
    about = backup.about
    after = 0
    page: list[Change] = []
    size_bytes = 0
    for change in backup.changes():
        size_bytes += len(change.key) + len(change.value or b"")
        if page and size_bytes > PAGE_BYTES:
            yield StagedPage(after, StatePage(page, about.progress.position, None))
            after, page, size_bytes = page[-1].position, [], 0
        page.append(change)
    yield StagedPage(after, StatePage(page, about.progress.position, _progress(about, members)))


def _progress(about: About, members: Collection[NodeId]) -> AppliedProgress:
    return replace(about.progress, extra=Applier(genesis(members)).progress().extra)
