"""The table of the log: one row for each accepted entry."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from paxos.types import Ballot, PValue, Slot
from storage.errors import damaged
from storage.rows import BatchInsert, checksum

_INSERT = BatchInsert("INSERT OR REPLACE INTO log", columns=5)


def store_entries(connection: sqlite3.Connection, entries: Iterable[PValue]) -> None:
    """Store accepted entries in this order. A later entry of a slot replaces an earlier one."""
    _INSERT.store(
        connection,
        [
            (slot, round_, node, value, checksum(f"{slot} {round_} {node}", value))
            for slot, (round_, node), value in entries
        ],
    )


def load_extent(connection: sqlite3.Connection, truncated: Slot) -> tuple[Slot, int]:
    """Return the last slot of the log after `truncated` (0 if it is empty) and the bytes of its values."""
    found: tuple[Slot, int] = connection.execute(
        "SELECT coalesce(max(slot), 0), coalesce(sum(length(value)), 0) FROM log WHERE slot > ?", (truncated,)
    ).fetchone()
    return found


def load_entries(
    connection: sqlite3.Connection, path: Path, from_slot: Slot, upto: Slot, max_bytes: int, *, chosen: Slot
) -> list[PValue]:
    """Return a page of entries, see `Storage.read`. `from_slot` must not be truncated. Raises DamagedError if a row
    fails its checksum, or a slot of the chosen prefix, which ends at `chosen`, is missing."""
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
                raise damaged(path, f"the row of slot {slot} in table log fails its checksum")
            max_bytes -= len(value)
            if page and max_bytes < 0:
                return page
            page.append(PValue(slot, Ballot(round_, node), value))
            expected = slot + 1
    if expected <= min(upto, chosen):
        raise damaged(path, f"table log lacks the row of slot {expected}, which is known to be chosen")
    return page
