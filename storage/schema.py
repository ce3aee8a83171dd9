"""The tables, how an older file becomes a present one, and whose file it is.

    identity   one row: cluster, node, incarnation, boot, and the members that it began with, with commas between them
    acceptor   one row: the promise (round, node) and the chosen prefix
    log        a row for each slot: the ballot (round, node) and the value that was accepted last
    progress   one row: how far the state machine came, see `storage.base.Progress`
    bounds     one row: where the log is cut, which generation of the state is live and how far it is compacted, what
               the other one holds, see `storage.manifest`
    records_a, records_b   a row for each record, see `storage.base.Change` and `storage.state_tables`
    history_a, history_b   a row for each run of changes: the first position and the last one, and all of them, packed

Every table ends in a checksum over the row, see `storage.rows`.
"""

import secrets
import sqlite3
from collections.abc import Collection
from pathlib import Path

from msgspec.structs import astuple, replace
from sqlite_utils import Database
from sqlite_utils.db import Table

from paxos.types import ZERO, NodeId
from storage.base import StorageError, StoredIdentity
from storage.errors import damaged
from storage.hard_state import HardState
from storage.manifest import Manifest, insert_first
from storage.rows import only_row, with_checksum
from storage.state_tables import NAMES

INCARNATION_BITS = 62


def claim(
    connection: sqlite3.Connection,
    path: Path,
    cluster: str,
    node: NodeId,
    *,
    members: Collection[NodeId],
    last_boot: int,
) -> StoredIdentity:
    """Make the file at `path` ready for one more life of `node`: create or upgrade the tables and count the boot, all
    in one transaction. A new file remembers the `members` that it begins with, for an older one they are not looked at.
    Raises StorageError when the file is another's, is damaged, of a newer version, or does not know of `last_boot`:
    then some of it was lost, or an older copy has taken its place."""
    database = Database(connection, recursive_triggers=False, execute_plugins=False)
    with database.atomic():
        if upgrade(database, path) == 0:
            found = StoredIdentity(
                cluster, node, secrets.randbits(INCARNATION_BITS), boot=0, members=tuple(sorted(members))
            )
            connection.execute("INSERT INTO identity VALUES (?, ?, ?, ?, ?, ?)", _row_of(found))
        else:
            found = load_identity(connection, path)
            _refuse_other_names(path, found, cluster, node)
        if found.boot < last_boot:
            raise damaged(path, f"it has reached boot {found.boot}, but this replica had reached boot {last_boot}")
        identity = replace(found, boot=found.boot + 1)
        connection.execute(
            "UPDATE identity SET cluster = ?, node = ?, incarnation = ?, boot = ?, members = ?, checksum = ?",
            _row_of(identity),
        )
    return identity


def load_identity(connection: sqlite3.Connection, path: Path) -> StoredIdentity:
    """Whose data it is. Raises StorageError on damage."""
    cluster, node, incarnation, boot, members = only_row(connection, path, "identity")
    return StoredIdentity(cluster, node, incarnation, boot, tuple(filter(None, members.split(","))))


def _row_of(identity: StoredIdentity) -> tuple[int | str | bytes, ...]:
    *names, members = astuple(identity)
    return with_checksum(*names, ",".join(members))


def _refuse_other_names(path: Path, found: StoredIdentity, cluster: str, node: NodeId) -> None:
    if (found.cluster, found.node) != (cluster, node):
        raise StorageError(
            f"{path} holds the data of node {found.node} of cluster {found.cluster}, but this is node {node} "
            f"of cluster {cluster}: start it under the names the data belongs to, or give it its own --data"
        )


def upgrade(database: Database, path: Path) -> int:
    """Bring the tables up to date; returns the version that was found, 0 for a new file. Nothing is written when they
    are. Raises StorageError for a newer one."""
    found: int = database.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise StorageError(
            f"{path} was written by a newer version of this program (schema {found}, this one knows up to {VERSION}): "
            "start that version"
        )
    for migrate in _MIGRATIONS[found:]:
        migrate(database)
    if found < VERSION:
        database.execute(f"PRAGMA user_version = {VERSION}")
    return found


def _create_tables(database: Database) -> None:
    _create(database, "identity", {"cluster": str, "node": str, "incarnation": int, "boot": int, "members": str})
    _create(database, "acceptor", {"round": int, "node": str, "chosen": int})
    _create(database, "log", {"slot": int, "round": int, "node": str, "value": bytes}, pk="slot")
    database.execute("INSERT INTO acceptor VALUES (?, ?, ?, ?)", with_checksum(*ZERO, 0))


def _create_state(database: Database) -> None:
    """The state of what is in the log already is not known yet: whoever opens the storage replays the log."""
    _create(database, "progress", {"applied": int, "position": int, "chain": bytes, "digest": str, "extra": bytes})
    numbers = ("compacted", "compact", "staged", "staged_compacted", "staged_lowest")
    _create(database, "bounds", {"cut": int, "chain": bytes, "live": str, **dict.fromkeys(numbers, int)})
    row = {"position": int, "key": bytes, "value": bytes, "create_revision": int, "version": int, "supersedes": int}
    for name in NAMES:
        _create(database, f"records_{name}", row, pk="position", nullable="value")
        _create(database, f"history_{name}", {"first": int, "last": int, "changes": bytes}, pk="first")
    insert_first(database.conn, Manifest(HardState(), live=NAMES[0], compacted=0))


def _create(
    database: Database, name: str, columns: dict[str, type], pk: str | None = None, nullable: str | None = None
) -> Table:
    columns = {**columns, "checksum": int}
    return database.table(name).create(columns, pk=pk, not_null=columns.keys() - {pk, nullable}, strict=True)


_MIGRATIONS = (_create_tables, _create_state)
"""Each turns the schema of its index into the next. A released one is never changed."""

VERSION = len(_MIGRATIONS)
"""Of the schema. A newer one is refused."""
