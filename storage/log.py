"""What an acceptor must not forget, as rows: the promise, the chosen prefix, and every accepted entry."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from paxos.types import Ballot, PValue, Slot
from storage.errors import damaged
from storage.marks import Marks
from storage.rows import checksum, only_row, with_checksum


def store_entries(connection: sqlite3.Connection, entries: Iterable[PValue]) -> None:
    """Store accepted entries in this order; a later one of a slot replaces the earlier."""
    connection.executemany(
        "INSERT OR REPLACE INTO log (slot, round, node, value, checksum) VALUES (?, ?, ?, ?, ?)",
        [
            (slot, round_, node, value, checksum(f"{slot} {round_} {node}", value))
            for slot, (round_, node), value in entries
        ],
    )


def store_marks(connection: sqlite3.Connection, marks: Marks) -> None:
    """Store the promise and the chosen prefix."""
    connection.execute(
        "UPDATE acceptor SET round = ?, node = ?, chosen = ?, checksum = ?",
        with_checksum(*marks.promised, marks.chosen),
    )


def load_marks(connection: sqlite3.Connection, path: Path) -> Marks:
    """The promise, the chosen prefix and the end of the log. Raises StorageError when they are damaged."""
    round_, node, chosen = only_row(connection, path, "acceptor")
    last: Slot = connection.execute("SELECT coalesce(max(slot), 0) FROM log").fetchone()[0]
    if chosen > last:
        raise damaged(path, f"the log ends at slot {last}, but slots up to {chosen} are known to be chosen")
    return Marks(Ballot(round_, node), chosen, last)


def load_entries(
    connection: sqlite3.Connection, path: Path, from_slot: Slot, upto: Slot, max_bytes: int, *, chosen: Slot
) -> list[PValue]:
    """See `Storage.read`. `chosen` is the chosen prefix: a slot of it that is absent is damage, too."""
    page: list[PValue] = []
    expected = max(from_slot, 1)
    with closing(
        connection.execute(
            "SELECT slot, round, node, value, checksum FROM log WHERE slot BETWEEN ? AND ? ORDER BY slot",
            (from_slot, upto),
        )
    ) as rows:
        for slot, round_, node, value, stored in rows:
            if slot > expected and expected <= chosen:
                break
            if not isinstance(value, bytes) or checksum(f"{slot} {round_} {node}", value) != stored:
                raise damaged(path, f"the row of slot {slot} in table log does not have its checksum")
            max_bytes -= len(value)
            if page and max_bytes < 0:
                return page
            page.append(PValue(slot, Ballot(round_, node), value))
            expected = slot + 1
    if expected <= min(upto, chosen):
        raise damaged(path, f"table log has no row for slot {expected}, which is known to be chosen")
    return page
