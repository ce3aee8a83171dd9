"""Verification of a data directory: all checks that a replica makes at its start, and more."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from kvstore.api.membership import MemberRole
from kvstore.replica.applier import Applier, load_restored, load_state, verified_log
from kvstore.replica.founding import founding_memberships
from storage.base import DamagedError, Recovered, Storage, StoredIdentity, revision_of, scan
from storage.directory import DATA_FILE
from storage.inspection import Inspection, inspect
from storage.sqlite import wal_of
from storage.wal import length

T = TypeVar("T")


class OwnerReport(msgspec.Struct, frozen=True):
    """The replica that opened the data last. `began_with` holds the founding members, none if the replica joined."""

    cluster: str
    node: str
    incarnation: str
    boot: int
    began_with: tuple[str, ...]


class MemberReport(msgspec.Struct, frozen=True):
    """A member in the stored state. `incarnation` is in hexadecimal, "0" if the member has not proved its data yet."""

    name: str
    role: MemberRole
    incarnation: str


class LogReport(msgspec.Struct, frozen=True):
    """The entries of the log from slot `truncated` + 1 to `last`.

    Entries up to `chosen` are known to be chosen. Entries up to `applied` are part of the stored state, which has their
    hash.
    """

    truncated: int
    last: int
    chosen: int
    applied: int
    entries: int
    bytes: int


class StateReport(msgspec.Struct, frozen=True):
    """The stored state, as of `revision`.

    Superseded revisions up to `compacted` are deleted, or will be soon. `staged` is the revision that an incomplete
    snapshot from a peer has reached, 0 for none. `restored` is True for a state from a backup whose cluster is not
    founded yet.
    """

    keys: int
    bytes: int
    revision: int
    compacted: int
    staged: int
    witness: bool
    restored: bool


class FilesReport(msgspec.Struct, frozen=True):
    """The sizes of the files.

    `wal_bytes` is the part of the write-ahead log that is in use. `set_aside` lists the directories with damaged data
    of earlier starts.
    """

    database_bytes: int
    wal_bytes: int
    wal_file_bytes: int
    schema: int | None
    set_aside: list[str]


class CheckReport(msgspec.Struct):
    """The result of the verification. A field is None if damage makes it unreadable."""

    directory: str
    damage: list[str] = []
    owner: OwnerReport | None = None
    promised: str | None = None
    members_version: int | None = None
    members: list[MemberReport] | None = None
    log: LogReport | None = None
    state: StateReport | None = None
    files: FilesReport | None = None

    @property
    def sound(self) -> bool:
        """True if no damage was found."""
        return not self.damage


def check(directory: Path) -> CheckReport:
    """Verify the data in `directory`, which no replica may be using.

    Raises StorageError if there is no data or the data is of a newer release, and OSError if a file cannot be read.
    """
    report = CheckReport(str(directory))
    try:
        report.files = _files(directory, None)
        with inspect(directory) as data:
            report.files = _files(directory, data.schema_version)
            _Verification(report, data).run()
    except DamagedError as error:
        report.damage.append(str(error))
    return report


def _files(directory: Path, schema: int | None) -> FilesReport:
    database = directory / DATA_FILE
    wal = wal_of(database)
    set_aside = sorted(path.name for path in directory.glob("damaged-*") if path.is_dir())
    used_bytes = length(wal) if wal.exists() else 0
    return FilesReport(_size(database), used_bytes, _size(wal), schema=schema, set_aside=set_aside)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class _Verification:
    """A run of all checks, which continues after damage as far as possible."""

    def __init__(self, report: CheckReport, data: Inspection) -> None:
        self._report = report
        self._data = data

    def run(self) -> None:
        self._try(self._data.verify_pages)
        identity = self._try(self._data.identity)
        if identity is not None:
            cluster, node, incarnation, boot, began_with = msgspec.structs.astuple(identity)
            self._report.owner = OwnerReport(cluster, node, f"{incarnation:x}", boot, began_with)
        storage = self._try(lambda: self._data.storage(identity or StoredIdentity("", "", 0, 0)))
        if storage is None:
            return
        recovered = storage.recovered()
        self._report.promised = str(recovered.promised)
        self._report.log = self._try(lambda: _verify_log(storage, recovered))
        applier = self._try(
            lambda: load_restored(storage) or load_state(storage, founding_memberships(recovered.founding))
        )
        if applier is not None:
            self._report.members_version = applier.machine.membership.version
            self._report.members = [
                MemberReport(member.name, member.role, f"{member.incarnation:x}")
                for member in applier.machine.membership.members
            ]
            self._report.state = _state(applier, recovered)

    def _try(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except DamagedError as error:
            self._report.damage.append(str(error))
            return None


def _verify_log(storage: Storage, recovered: Recovered) -> LogReport:
    """Verify the checksums of all entries, and compare the hash of the applied ones with the state."""
    entries = sum(1 for _ in verified_log(storage, recovered))
    entries += sum(1 for _ in scan(storage, recovered.chosen + 1, recovered.last))
    applied = recovered.progress.applied
    return LogReport(recovered.truncation.slot, recovered.last, recovered.chosen, applied, entries, recovered.log_bytes)


def _state(applier: Applier, recovered: Recovered) -> StateReport:
    machine, restored = applier.machine, recovered.restored is not None
    return StateReport(
        len(machine.records),
        machine.size_bytes,
        machine.revision,
        revision_of(recovered.staged_compacted if restored else recovered.compacted),
        0 if restored else revision_of(recovered.staged),
        applier.membership_only,
        restored,
    )
