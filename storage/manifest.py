"""The hard_state as rows, one in each of three tables: written when they moved, verified when they are loaded."""

import sqlite3
from pathlib import Path
from typing import NamedTuple

from paxos.types import Ballot
from storage.base import AppliedProgress, Truncation
from storage.errors import damaged
from storage.hard_state import HardState, Staging
from storage.log import load_extent
from storage.rows import only_row, with_checksum


class Manifest(NamedTuple):
    """The hard_state, and where the state is: in the generation `live`, whose base is `compacted`."""

    hard_state: HardState
    live: str
    compacted: int


def store_manifest(connection: sqlite3.Connection, before: Manifest, after: Manifest) -> None:
    """Store what is not as it was."""
    old, new = before.hard_state, after.hard_state
    if (new.promised, new.chosen) != (old.promised, old.chosen):
        connection.execute(
            "UPDATE acceptor SET round = ?, node = ?, chosen = ?, checksum = ?",
            with_checksum(*new.promised, new.chosen),
        )
    if new.progress is not old.progress:
        applied, position, chain, digest, extra = progress_fields(new.progress)
        connection.execute(
            "UPDATE progress SET applied = ?, position = ?, chain = ?, digest = ?, extra = ?, checksum = ?",
            with_checksum(applied, position, chain, digest, extra),
        )
    if _manifest_fields(after) != _manifest_fields(before):
        connection.execute(
            "UPDATE bounds SET cut = ?, chain = ?, live = ?, compacted = ?, compact = ?, "
            "staged = ?, staged_compacted = ?, staged_lowest = ?, checksum = ?",
            with_checksum(*_manifest_fields(after)),
        )


def insert_first(connection: sqlite3.Connection, first: Manifest) -> None:
    """Fill the tables progress and bounds of a replica that has applied nothing."""
    connection.execute(
        "INSERT INTO progress VALUES (?, ?, ?, ?, ?, ?)", with_checksum(*progress_fields(first.hard_state.progress))
    )
    connection.execute("INSERT INTO bounds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", with_checksum(*_manifest_fields(first)))


def load_manifest(connection: sqlite3.Connection, path: Path) -> tuple[Manifest, int]:
    """What is stored, and the bytes of the log. Raises StorageError when it is damaged."""
    round_, node, chosen = only_row(connection, path, "acceptor")
    applied, position, chain, digest, extra = only_row(connection, path, "progress")
    slot, cut_chain, live, compacted, compact, *staging = only_row(connection, path, "bounds")
    end, log_bytes = load_extent(connection, slot)
    last = max(end, slot)
    if chosen > last:
        raise damaged(path, f"the log ends at slot {last}, but slots up to {chosen} are known to be chosen")
    if applied > chosen:
        raise damaged(path, f"slots up to {applied} are applied, but only those up to {chosen} are known to be chosen")
    hard_state = HardState(
        Ballot(round_, node),
        chosen,
        last,
        Truncation(slot, cut_chain),
        AppliedProgress(applied, position, chain, int(digest), extra),
        compact,
        Staging(*staging),
    )
    return Manifest(hard_state, live, compacted), log_bytes


def progress_fields(progress: AppliedProgress) -> tuple[int, int, bytes, str, bytes]:
    """A digest may be too big for an integer of SQLite."""
    return progress.applied, progress.position, progress.chain, str(progress.digest), progress.extra


def _manifest_fields(bounds: Manifest) -> tuple[int | str | bytes, ...]:
    hard_state = bounds.hard_state
    return (*hard_state.truncation, bounds.live, bounds.compacted, hard_state.compact, *hard_state.staging)
