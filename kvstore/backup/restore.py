"""The data directories of a new cluster, created from a backup.

All members start with the same records, applied slot and log hash, so that they form one cluster. They start without
promises and log, and with members that have not proved their data yet. Replicas of the old cluster are refused, because
the new one has another name. Replicas of another restore are refused, because the state has a mark, which peers compare
(see `kvstore.peers.compatibility`).
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from kvstore.api.membership import genesis
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
            for staged in _pages(state, members):
                storage.write([StateWrite(staged=staged)])
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


def _pages(state: RestoredState, members: Collection[NodeId]) -> Iterator[StagedPage]:
    """Yield the state as pages of a snapshot without superseded revisions. The last page has the progress."""
    progress = _progress(state, members)
    compacted = progress.position
    after = 0
    page: list[Change] = []
    size_bytes = 0
    for change in state.changes():
        size_bytes += len(change.key) + len(change.value or b"")
        if page and size_bytes > PAGE_BYTES:
            yield StagedPage(after, StatePage(page, compacted, None))
            after, page, size_bytes = page[-1].position, [], 0
        page.append(change)
    yield StagedPage(after, StatePage(page, compacted, progress))


def _progress(state: RestoredState, members: Collection[NodeId]) -> AppliedProgress:
    applier = Applier(genesis(members))
    applier.restored = state.mark
    return replace(state.progress, extra=applier.progress().extra)
