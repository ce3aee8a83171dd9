"""What a data directory holds, and whether it is what was written: all that a start would find, and more."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from kvstore.api.membership import MemberRole, genesis
from kvstore.replica.applier import Applier, load_state, verified_log
from storage.base import DamagedError, Recovered, Storage, StoredIdentity, revision_of, scan
from storage.directory import DATA_FILE
from storage.inspection import Inspection, inspect
from storage.sqlite import wal_of
from storage.wal import length

T = TypeVar("T")


class Owner(msgspec.Struct, frozen=True):
    """Whose data it is: the life that opened it last, and the members that it began with, none when it joined."""

    cluster: str
    node: str
    incarnation: str
    boot: int
    began_with: tuple[str, ...]


class MemberFound(msgspec.Struct, frozen=True):
    """A member by the stored state; `incarnation` is in hexadecimal, "0" while nobody had seen it."""

    name: str
    role: MemberRole
    incarnation: str


class Log(msgspec.Struct, frozen=True):
    """Entries behind `cut`, up to slot `last`. Those up to `chosen` are known to be chosen, those up to `applied` are
    in the stored state: there the running hash was compared."""

    cut: int
    last: int
    chosen: int
    applied: int
    entries: int
    bytes: int


class State(msgspec.Struct, frozen=True):
    """The records, and as of when. Superseded revisions up to `compacted` are not among them, or soon will not be.
    `staged`: up to this revision a peer's state has arrived."""

    keys: int
    bytes: int
    revision: int
    compacted: int
    staged: int
    witness: bool


class Files(msgspec.Struct, frozen=True):
    """Their sizes; `wal_bytes`: of the write-ahead log what is not of an earlier round. `set_aside`: directories with
    damaged data of before."""

    database_bytes: int
    wal_bytes: int
    wal_file_bytes: int
    schema: int | None
    set_aside: list[str]


class Report(msgspec.Struct):
    """What was found; None where damage hides it. No `damage`: it is sound."""

    directory: str
    damage: list[str] = []
    owner: Owner | None = None
    promised: str | None = None
    members_version: int | None = None
    members: list[MemberFound] | None = None
    log: Log | None = None
    state: State | None = None
    files: Files | None = None

    @property
    def sound(self) -> bool:
        """True when all that could be verified is what was written."""
        return not self.damage


def check(directory: Path) -> Report:
    """Verify the data in `directory`, which no replica must be using. Raises StorageError when there is none, or it is
    of a newer version, and OSError."""
    report = Report(str(directory))
    try:
        report.files = _files(directory, None)
        with inspect(directory) as data:
            report.files = _files(directory, data.schema_version)
            _Check(report, data).run()
    except DamagedError as error:
        report.damage.append(str(error))
    return report


def _files(directory: Path, schema: int | None) -> Files:
    database = directory / DATA_FILE
    log = wal_of(database)
    set_aside = sorted(path.name for path in directory.glob("damaged-*") if path.is_dir())
    return Files(_size(database), length(log) if log.exists() else 0, _size(log), schema=schema, set_aside=set_aside)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class _Check:
    """Goes on behind damage, as far as it gets."""

    def __init__(self, report: Report, data: Inspection) -> None:
        self._report = report
        self._data = data

    def run(self) -> None:
        self._try(self._data.verify_pages)
        identity = self._try(self._data.identity)
        if identity is not None:
            cluster, node, incarnation, boot, began_with = msgspec.structs.astuple(identity)
            self._report.owner = Owner(cluster, node, f"{incarnation:x}", boot, began_with)
        storage = self._try(lambda: self._data.storage(identity or StoredIdentity("", "", 0, 0)))
        if storage is None:
            return
        recovered = storage.recovered()
        self._report.promised = str(recovered.promised)
        self._report.log = self._try(lambda: _check_log(storage, recovered))
        applier = self._try(lambda: load_state(storage, genesis(identity.members if identity else ())))
        if applier is not None:
            self._report.members_version = applier.machine.membership.version
            self._report.members = [
                MemberFound(member.name, member.role, f"{member.incarnation:x}")
                for member in applier.machine.membership.members
            ]
            self._report.state = _state(applier, recovered)

    def _try(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except DamagedError as error:
            self._report.damage.append(str(error))
            return None


def _check_log(storage: Storage, recovered: Recovered) -> Log:
    """All entries have their checksum, those up to the chosen prefix are there and are those that were applied."""
    entries = sum(1 for _ in verified_log(storage, recovered))
    entries += sum(1 for _ in scan(storage, recovered.chosen + 1, recovered.last))
    applied = recovered.progress.applied
    return Log(recovered.truncation.slot, recovered.last, recovered.chosen, applied, entries, recovered.log_bytes)


def _state(applier: Applier, recovered: Recovered) -> State:
    machine = applier.machine
    return State(
        len(machine.records),
        machine.size_bytes,
        machine.revision,
        revision_of(recovered.compacted),
        revision_of(recovered.staged),
        applier.bare,
    )
