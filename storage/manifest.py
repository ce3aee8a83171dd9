"""The manifest: the hard state and the location of the state's rows, in seven one-row tables of the database.

A row is written when its content has changed, and verified when it is loaded.
"""

import sqlite3
from pathlib import Path
from typing import NamedTuple

import msgspec

from paxos.types import Ballot, GrantTerms
from storage.base import AppliedProgress, Founding, SeenStart, Truncation
from storage.errors import damaged
from storage.hard_state import HardState, Staging
from storage.log import load_extent
from storage.rows import only_row, with_checksum


class Manifest(NamedTuple):
    """The hard state, and where the rows of the state are."""

    hard_state: HardState
    live: str
    """Name of the live state tables, one of `storage.state_tables.NAMES`."""
    compacted: int
    """Base of the live state tables: the position up to which they are compacted."""


def store_manifest(connection: sqlite3.Connection, before: Manifest, after: Manifest) -> None:
    """Write the rows that differ between `before`, which is stored, and `after`."""
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
    if new.founding != old.founding:
        connection.execute("UPDATE founding SET founding = ?, checksum = ?", with_checksum(pack_founding(new.founding)))
    if new.restored != old.restored:
        connection.execute("UPDATE restored SET progress = ?, checksum = ?", with_checksum(pack_restored(new.restored)))
    if new.granted != old.granted:
        connection.execute(
            "UPDATE granted SET lease_ms = ?, clock_drift_ppm = ?, checksum = ?", with_checksum(*new.granted)
        )
    if new.seen != old.seen:
        connection.execute("UPDATE seen SET starts = ?, checksum = ?", with_checksum(pack_seen(new.seen)))
    if _bounds_row(after) != _bounds_row(before):
        connection.execute(
            "UPDATE bounds SET cut = ?, chain = ?, live = ?, compacted = ?, compact = ?, "
            "staged = ?, staged_compacted = ?, staged_lowest = ?, checksum = ?",
            with_checksum(*_bounds_row(after)),
        )


def insert_first(connection: sqlite3.Connection, first: Manifest) -> None:
    """Insert the first rows of the tables progress and bounds."""
    connection.execute(
        "INSERT INTO progress VALUES (?, ?, ?, ?, ?, ?)", with_checksum(*progress_fields(first.hard_state.progress))
    )
    connection.execute("INSERT INTO bounds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", with_checksum(*_bounds_row(first)))


def load_manifest(connection: sqlite3.Connection, path: Path) -> tuple[Manifest, int]:
    """Return the stored manifest, and the bytes of the values in the log. Raises DamagedError."""
    round_, node, chosen = only_row(connection, path, "acceptor")
    applied, position, chain, digest, extra = only_row(connection, path, "progress")
    truncated, log_chain, live, compacted, compact, *staging = only_row(connection, path, "bounds")
    (founding,) = only_row(connection, path, "founding")
    (restored,) = only_row(connection, path, "restored")
    granted = GrantTerms(*only_row(connection, path, "granted"))
    (seen,) = only_row(connection, path, "seen")
    end, log_bytes = load_extent(connection, truncated)
    last = max(end, truncated)
    if chosen > last:
        raise damaged(path, f"the log ends at slot {last}, but slots up to {chosen} are known to be chosen")
    if applied > chosen:
        raise damaged(path, f"slots up to {applied} are applied, but only slots up to {chosen} are known to be chosen")
    hard_state = HardState(
        Ballot(round_, node),
        chosen,
        last,
        Truncation(truncated, log_chain),
        AppliedProgress(applied, position, chain, int(digest), extra),
        compact,
        Staging(*staging),
        msgspec.json.decode(founding, type=Founding | None),
        msgspec.json.decode(restored, type=AppliedProgress | None),
        granted,
        msgspec.json.decode(seen, type=tuple[SeenStart, ...]),
    )
    return Manifest(hard_state, live, compacted), log_bytes


def progress_fields(progress: AppliedProgress) -> tuple[int, int, bytes, str, bytes]:
    """Return the columns of table progress. The digest is text, because it may exceed SQLite's largest integer."""
    return progress.applied, progress.position, progress.chain, str(progress.digest), progress.extra


def pack_founding(founding: Founding | None) -> str:
    """Return the column of table founding."""
    return msgspec.json.encode(founding).decode()


def pack_restored(progress: AppliedProgress | None) -> str:
    """Return the column of table restored."""
    return msgspec.json.encode(progress).decode()


def pack_seen(starts: tuple[SeenStart, ...]) -> str:
    """Return the column of table seen."""
    return msgspec.json.encode(starts).decode()


def _bounds_row(manifest: Manifest) -> tuple[int | str | bytes, ...]:
    hard_state = manifest.hard_state
    return (*hard_state.truncation, manifest.live, manifest.compacted, hard_state.compact, *hard_state.staging)
