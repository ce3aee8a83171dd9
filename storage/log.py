"""Every entry that the acceptor accepted, as a row."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from paxos.types import Ballot, PValue, Slot
from storage.errors import damaged
from storage.rows import BatchInsert, checksum

_INSERT = BatchInsert("INSERT OR REPLACE INTO log", columns=5)


def store_entries(connection: sqlite3.Connection, entries: Iterable[PValue]) -> None:
    """Store accepted entries in this order; a later one of a slot replaces the earlier."""
    _INSERT.store(
        connection,
        [
            (slot, round_, node, value, checksum(f"{slot} {round_} {node}", value))
            for slot, (round_, node), value in entries
        ],
    )


def load_extent(connection: sqlite3.Connection, cut: Slot) -> tuple[Slot, int]:
    """The last slot of the log and the sum of its values, behind `cut`."""
    found: tuple[Slot, int] = connection.execute(
        "SELECT coalesce(max(slot), 0), coalesce(sum(length(value)), 0) FROM log WHERE slot > ?", (cut,)
    ).fetchone()
    return found


def load_entries(
    connection: sqlite3.Connection, path: Path, from_slot: Slot, upto: Slot, max_bytes: int, *, chosen: Slot
) -> list[PValue]:
    """See `Storage.read`; `from_slot` is not cut. `chosen` is the chosen prefix: a slot of it that is absent is damage,
    too."""
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
