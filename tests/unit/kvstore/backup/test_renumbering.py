"""The numbers of a restored store: none of them was ever given out."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from kvstore.api.commands import AcquireLock, Command, Delete, GrantLease, Idempotent, LeasedPut, Put, Transact
from kvstore.backup.file import Backup, BackupInfo, MisuseError
from kvstore.backup.renumbering import (
    MAX_ABOVE,
    MAX_AHEAD_STEP,
    REVISIONS_PER_S,
    RestoredState,
    default_above,
)
from storage.base import end_of, revision_of, sub_revision_of
from tests.unit.kvstore.backup.states import COMMANDS, make_backup

TAKEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DAY = timedelta(days=1)


@contextmanager
def state(tmp_path: Path, *commands: Command, above: int = 1000) -> Iterator[RestoredState]:
    make_backup(tmp_path / "b.db", *commands)
    with Backup(tmp_path / "b.db") as backup:
        yield RestoredState(backup, above)


def info(**fields: int | str) -> BackupInfo:
    return replace(
        BackupInfo(1, "old", "n1", "0", TAKEN.isoformat(), 0, revision=0, number=0, applied=0, chain="", digest=""),
        **fields,
    )


def test_revisions_and_versions_are_new_and_keep_their_order(tmp_path: Path) -> None:
    with state(tmp_path, *COMMANDS) as restored:
        found = {change.key: change for change in restored.changes()}
        numbers = {key: (revision_of(row.position), row.create_revision, row.version) for key, row in found.items()}
        # The backup is at revision 6. The revisions 1 (a was created), 2, 3 and 5 became 1001 to 1004.
        assert numbers == {
            b"a": (1003, 1001, 996),
            b"b": (1002, 1002, 995),
            "\N{CRAB}".encode(): (1004, 1004, 995),
        }
        assert (restored.revision, restored.progress.position) == (1004, end_of(1004))
        assert (restored.records, restored.left_out) == (3, 0)


def test_applied_slots_are_new_too(tmp_path: Path) -> None:
    """A stale answer names the applied slot."""
    with state(tmp_path, *COMMANDS) as restored:
        assert restored.progress.applied == 1000
        assert restored.progress.chain == restored.info.progress.chain


def test_changes_of_one_transaction_keep_one_revision(tmp_path: Path) -> None:
    with state(tmp_path, Put(b"z", b"1"), Transact([], [Put(b"a", b"1"), Put(b"b", b"2")], [])) as restored:
        rows = [(row.key, revision_of(row.position), sub_revision_of(row.position)) for row in restored.changes()]
        assert rows == [(b"z", 1001, 0), (b"a", 1002, 0), (b"b", 1002, 1)]


def test_leases_end_with_their_keys_locks_and_idempotency_keys(tmp_path: Path) -> None:
    commands = (
        GrantLease(5000),
        LeasedPut(b"session", b"1", 1),
        AcquireLock(b"deploy", 1, 0, b"", queue=False),
        Idempotent(1, 1, b"f", Put(b"kept", b"2")),
        LeasedPut(b"ephemeral", b"3", 0, 5000),
        LeasedPut(b"detached", b"4", 1),
        Put(b"detached", b"5"),
    )
    with state(tmp_path, *commands) as restored:
        assert [(row.key, row.value) for row in restored.changes()] == [(b"kept", b"2"), (b"detached", b"5")]
        assert (restored.records, restored.left_out) == (2, 2)


def test_an_empty_backup_is_restored(tmp_path: Path) -> None:
    with state(tmp_path, Put(b"a", b"1"), Delete(b"a")) as restored:
        assert (list(restored.changes()), restored.revision) == ([], 1000)


def test_the_same_backup_and_number_give_the_same_state_and_others_another_mark(tmp_path: Path) -> None:
    seen = []
    for changed in ([], [], [Put(b"a", b"9")]):
        (tmp_path / "b.db").unlink(missing_ok=True)
        with state(tmp_path, *COMMANDS, *changed) as restored:
            seen.append((restored.mark, restored.progress, list(restored.changes())))
    assert seen[0] == seen[1]
    assert seen[0][0] != seen[2][0]
    with Backup(tmp_path / "b.db") as backup:
        assert RestoredState(backup, 1001).mark != seen[2][0]


@pytest.mark.parametrize(
    ("above", "says"), [(5, "--above 5 is less than the revision of the backup, 6"), (MAX_ABOVE + 1, "limit")]
)
def test_a_number_that_was_given_out_or_leaves_no_revisions_is_refused(tmp_path: Path, above: int, says: str) -> None:
    with pytest.raises(MisuseError, match=says), state(tmp_path, *COMMANDS, above=above):
        pass


def test_a_later_restore_is_above_all_that_a_cluster_at_full_speed_made_since_an_earlier_one() -> None:
    """Whichever backups are restored, and also if a backup of a restored cluster was restored in between."""
    begin = TAKEN + 200 * DAY
    monday, tuesday = info(revision=7_000), info(revision=90_000_000, taken_at=begin.isoformat())
    made = REVISIONS_PER_S * 60
    first = default_above(tuesday, begin)
    assert first > tuesday.revision
    between = info(revision=first + made, taken_at=(begin + timedelta(minutes=1)).isoformat())
    second = default_above(between, begin + timedelta(minutes=2))
    assert second >= between.revision + made
    third = default_above(monday, begin + timedelta(minutes=3))
    assert third >= second + made
    assert default_above(monday, begin + timedelta(minutes=3, milliseconds=1)) > third


def test_a_restore_of_a_cluster_that_was_faster_than_the_clock_is_above_it() -> None:
    for ahead, more in ((1000, 1000), (10**12, MAX_AHEAD_STEP)):
        fast = info(revision=default_above(info(), TAKEN) + ahead)
        assert default_above(fast, TAKEN) == fast.revision + more
        assert default_above(fast, TAKEN + DAY) == fast.revision + more + REVISIONS_PER_S * 24 * 3600


def test_a_clock_that_is_behind_the_backup_is_refused() -> None:
    default_above(info(), TAKEN - timedelta(seconds=30))
    with pytest.raises(MisuseError, match=r"taken at 2026-01-02T03:04:05\+00:00, but .* 2026-01-01.* or give --above"):
        default_above(info(), TAKEN - DAY)


def test_the_clock_gives_numbers_that_can_be_used_for_years() -> None:
    assert default_above(info(), datetime(2032, 1, 1, tzinfo=UTC)) < MAX_ABOVE
