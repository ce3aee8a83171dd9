"""Reads of more than the present record of a key: spans of keys, and the past."""

from kvstore.commands import Found
from kvstore.requests import SCAN_BYTES, Lookup, NotThen, ReadAnswer, Scan, ScanAnswer
from kvstore.state_machine import StateMachine


def look_up(
    query: Lookup | Scan, machine: StateMachine, applied: int, age_ms: float | None
) -> ReadAnswer | ScanAnswer | NotThen:
    """The answer out of a state that has applied the slots up to `applied`; `age_ms` is for the answer."""
    newest, oldest = machine.revision, machine.past.oldest
    revision = newest if query.revision is None else query.revision
    if not oldest <= revision <= newest:
        return NotThen(oldest, newest)
    if isinstance(query, Scan):
        found, more = _scan(query, revision, machine)
        return ScanAnswer(found, more, applied, revision, age_ms)
    return ReadAnswer(machine.past.as_of(query.key, revision, machine.get(query.key)), applied, revision, age_ms)


def _scan(scan: Scan, revision: int, machine: StateMachine) -> tuple[list[Found], bool]:
    found: list[Found] = []
    room = SCAN_BYTES
    for key, record in machine.as_of(scan.span, revision, reverse=scan.reverse):
        room -= len(key) + len(record.value)
        if len(found) == scan.limit or (found and room < 0):
            return found, True
        found.append(Found(key, record))
    return found, False
