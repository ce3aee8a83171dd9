"""The tables, their migrations, and the check that a file holds the data of this node and cluster.

    identity   one row: cluster, node, incarnation, boot, and the first members, separated by commas
    acceptor   one row: the promise (round, node) and the chosen prefix
    log        one row for each slot: the ballot (round, node) and the value accepted last
    progress   one row: see `storage.base.AppliedProgress`
    bounds     one row: the truncation point of the log (`cut`, `chain`), the live tables of the state and the position
               up to which they are compacted, and the extent of a staged snapshot; see `storage.manifest`
    founding   one row: see `storage.base.Founding`, as JSON; null before the replica has agreed to a founding
    restored   one row: the progress of a restored state whose rows are staged until the cluster is founded, as JSON;
               null for none
    granted    one row: the settings of the longest leader lease that may still be granted
    lineage    one row: the random numbers of the starts on this data, see `storage.lineage`
    seen       one row: the newest start on the data of each peer, see `storage.base.SeenStart`, as JSON
    records_a, records_b   one row for each record, see `storage.base.Change` and `storage.state_tables`
    history_a, history_b   one row for each run of changes: the first and the last position, and all changes, packed

The last column of every table is a checksum over the row, see `storage.rows`.
"""

import secrets
import sqlite3
from collections.abc import Collection
from pathlib import Path

from msgspec.structs import astuple, replace
from sqlite_utils import Database
from sqlite_utils.db import Table

from paxos.types import ZERO, GrantTerms, NodeId
from storage.base import DamagedError, Founding, StorageError, StoredIdentity
from storage.errors import damaged
from storage.hard_state import HardState
from storage.lineage import LIFE_BITS, Lineage
from storage.manifest import Manifest, insert_first, pack_founding, pack_restored, pack_seen
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
) -> tuple[StoredIdentity, Lineage]:
    """Create or upgrade the tables for `node` and count the boot, all in one transaction. Return the identity, and the
    lineage with this start.

    `members` are stored in a new file and ignored for an existing one. Raises StorageError if the file belongs to
    another node or cluster or has a newer version. Raises DamagedError if the file is damaged, or has not reached
    `last_boot` because data was lost or the file was replaced by an older copy (rule 28).
    """
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
            raise older_copy(path, found.boot, last_boot)
        identity = replace(found, boot=found.boot + 1)
        connection.execute(
            "UPDATE identity SET cluster = ?, node = ?, incarnation = ?, boot = ?, members = ?, checksum = ?",
            _row_of(identity),
        )
        lineage = load_lineage(connection, path).after(identity.boot, secrets.randbits(LIFE_BITS))
        connection.execute("UPDATE lineage SET first = ?, lives = ?, checksum = ?", with_checksum(*lineage))
    return identity, lineage


def older_copy(path: Path, found: int, expected: int) -> DamagedError:
    """Return the error for data that has reached only boot `found`, while the lock record says `expected`."""
    return damaged(path, f"the data has reached boot {found}, but this replica had reached boot {expected}")


def load_identity(connection: sqlite3.Connection, path: Path) -> StoredIdentity:
    """Return the identity of the data. Raises DamagedError."""
    cluster, node, incarnation, boot, members = only_row(connection, path, "identity")
    return StoredIdentity(cluster, node, incarnation, boot, tuple(filter(None, members.split(","))))


def load_lineage(connection: sqlite3.Connection, path: Path) -> Lineage:
    """Return the starts on the data. Raises DamagedError."""
    return Lineage(*only_row(connection, path, "lineage"))


def _row_of(identity: StoredIdentity) -> tuple[int | str | bytes, ...]:
    *names, members = astuple(identity)
    return with_checksum(*names, ",".join(members))


def _refuse_other_names(path: Path, found: StoredIdentity, cluster: str, node: NodeId) -> None:
    if (found.cluster, found.node) != (cluster, node):
        raise StorageError(
            f"{path} holds the data of node {found.node} of cluster {found.cluster}, but this is node {node} of "
            f"cluster {cluster}: start it with the --node and --cluster of the data, or with another --data"
        )


def upgrade(database: Database, path: Path) -> int:
    """Migrate the tables to the current version and return the version before, 0 for a new file. Writes nothing if the
    version is current. Raises StorageError if the version is newer."""
    found: int = database.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise StorageError(
            f"{path} was written by a newer version of this program (schema {found}, this version knows up to "
            f"{VERSION}): start that version"
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
    """Create the tables of the state, empty. A replica that has a log already replays it when it starts."""
    _create(database, "progress", {"applied": int, "position": int, "chain": bytes, "digest": str, "extra": bytes})
    numbers = ("compacted", "compact", "staged", "staged_compacted", "staged_lowest")
    _create(database, "bounds", {"cut": int, "chain": bytes, "live": str, **dict.fromkeys(numbers, int)})
    row = {"position": int, "key": bytes, "value": bytes, "create_revision": int, "version": int, "supersedes": int}
    for name in NAMES:
        _create(database, f"records_{name}", row, pk="position", nullable="value")
        _create(database, f"history_{name}", {"first": int, "last": int, "changes": bytes}, pk="first")
    insert_first(database.conn, Manifest(HardState(), live=NAMES[0], compacted=0))


def _create_founding(database: Database) -> None:
    """Create the table of the founding. Earlier data began with members whose incarnations nobody recorded."""
    _create(database, "founding", {"founding": str})
    (names,) = database.execute("SELECT members FROM identity").fetchone() or ("",)
    members = tuple((name, 0) for name in names.split(",") if name)
    founding = Founding(members, complete=True) if members else None
    database.execute("INSERT INTO founding VALUES (?, ?)", with_checksum(pack_founding(founding)))


def _create_restored(database: Database) -> None:
    """Create the table of the restored state. Earlier data was restored together with its membership."""
    _create(database, "restored", {"progress": str})
    database.execute("INSERT INTO restored VALUES (?, ?)", with_checksum(pack_restored(None)))


def _create_granted(database: Database) -> None:
    """Create the table of the granted leases. Earlier data was used with the settings of its next start."""
    _create(database, "granted", {"lease_ms": int, "clock_drift_ppm": int})
    database.execute("INSERT INTO granted VALUES (?, ?, ?)", with_checksum(*GrantTerms()))


def _create_starts(database: Database) -> None:
    """Create the tables of the starts on this data and on that of the peers. Earlier data recorded none."""
    _create(database, "lineage", {"first": int, "lives": bytes})
    _create(database, "seen", {"starts": str})
    database.execute("INSERT INTO lineage VALUES (?, ?, ?)", with_checksum(*Lineage()))
    database.execute("INSERT INTO seen VALUES (?, ?)", with_checksum(pack_seen(())))


def _create(
    database: Database, name: str, columns: dict[str, type], pk: str | None = None, nullable: str | None = None
) -> Table:
    columns = {**columns, "checksum": int}
    return database.table(name).create(columns, pk=pk, not_null=columns.keys() - {pk, nullable}, strict=True)


_MIGRATIONS = (_create_tables, _create_state, _create_founding, _create_restored, _create_granted, _create_starts)
"""The migrations, by the schema version that each turns into the next one. A released migration never changes."""

VERSION = len(_MIGRATIONS)
"""Current version of the schema. A file of a newer version is refused."""
