"""The data directories of a new cluster, created from a backup.

A restored directory has no promise, log or membership. Its records are staged, and become the state of the replica when
all founding members have agreed to found a cluster with them (see `kvstore.replica.founding`). All of them start with
the same records, applied slot and log hash: the state has a mark, which the founding compares. So a member that is
restored again founds no second cluster while another founding member has its data. Replicas of the old cluster are
refused, because the new one has another name.
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from kvstore.backup.file import BackupError, MisuseError
from kvstore.backup.renumbering import RestoredState
from kvstore.replica.applier import PAGE_BYTES, Applier
from paxos.types import NodeId
from storage.base import AppliedProgress, Change, StagedPage, StatePage, StateWrite
from storage.directory import sync_directory
from storage.sqlite import open_storage


def restore_node(
    state: RestoredState, directory: Path, cluster: str, node: NodeId, members: Collection[NodeId]
) -> None:
    """Create `directory` atomically with the data of `node`, one of the `members` of the new `cluster`.

    Raises BackupError and StorageError, and MisuseError if the directory exists or `cluster` is the old name.
    """
    if cluster == state.info.cluster:
        raise MisuseError(
            f"the backup is of cluster {cluster}: give the new cluster another name with --cluster, so that it refuses "
            "replicas of the old one"
        )
    refuse_used(directory)
    partial = directory.with_name(directory.name + ".partial")
    try:
        _remove(partial)
        with closing(open_storage(partial, cluster, node, members)) as storage:
            for staged in _pages(state):
                storage.write([StateWrite(staged=staged)])
            storage.write([StateWrite(restored=_progress(state))])
        partial.rename(directory)  # fails if the directory was created meanwhile
        sync_directory(directory.parent)
    except OSError as error:
        raise BackupError(f"{directory} cannot be created ({error.strerror}): give another --data") from error
    finally:
        _remove(partial)


def refuse_used(directory: Path) -> None:
    """Raise MisuseError if `directory` exists, because it may hold data with votes."""
    if directory.exists():
        raise MisuseError(f"{directory} exists and may hold data: give another --data, or move it away")


def _remove(partial: Path) -> None:
    if partial.exists():
        shutil.rmtree(partial)


def _pages(state: RestoredState) -> Iterator[StagedPage]:
    """Yield the state as pages of a snapshot without superseded revisions. The founding adds the last page, which has
    the progress."""
    compacted = state.progress.position
    after = 0
    page: list[Change] = []
    size_bytes = 0
    for change in state.changes():
        size_bytes += len(change.key) + len(change.value or b"")
        if page and size_bytes > PAGE_BYTES:
            yield StagedPage(after, StatePage(page, compacted, None))
            after, page, size_bytes = page[-1].position, [], 0
        page.append(change)
    yield StagedPage(after, StatePage(page, compacted, None))


def _progress(state: RestoredState) -> AppliedProgress:
    applier = Applier([])
    applier.restored = state.mark
    return replace(state.progress, extra=applier.progress().extra)
