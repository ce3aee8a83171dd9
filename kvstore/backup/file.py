"""The backup file: an SQLite database with all keys as of one moment.

    records    table with one row for each key, including internal keys of the store
    readable   view of the keys and values of clients, as text
    backup     table with one row: the metadata of the state, and a checksum of the whole backup

The file is written as FILE.partial and renamed when it is complete and durable.
"""

import hashlib
import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

import msgspec
from sqlite_utils import Database

from kvstore.api.commands import Record
from kvstore.api.text_files import kind_of
from kvstore.state_machine.digest import DIGEST_MASK, digest_of
from kvstore.state_machine.lease_index import is_internal
from storage.base import CHAIN_BYTES, AppliedProgress, Change, first_of, revision_of, sub_revision_of
from storage.directory import sync_directory
from storage.rows import decode_text

FORMAT = 1
APPLICATION_ID = 0x6B76_626B
"""Application id of the database, the bytes `kvbk`, by which this module and the tool `file` recognise a backup."""

_SQLITE = b"SQLite format 3\0"
"""The first bytes of a database."""
_GIVE = "give a file made by `kvstore backup`"
_CLIENT_KEYS = "substr(key, 1, 1) <> x'00'"
_COLUMNS = "revision, number, key, value, create_revision, version"


_Row = tuple[int, int, bytes, bytes, int, int]


class BackupError(Exception):
    """Error for a backup that cannot be written or read. The message has the cause and the remedy."""


class MisuseError(BackupError):
    """Error for a request that is wrong in itself; nothing was changed."""


class BackupInfo(msgspec.Struct, frozen=True):
    """The metadata of a backup: the row of the table `backup` without the checksum.

    `records` counts the keys of clients. `number` is the sub-revision of the last change.
    """

    format: int
    cluster: str
    node: str
    kvstore: str
    taken_at: str
    records: int
    revision: int
    number: int
    applied: int
    chain: str
    digest: str

    @property
    def progress(self) -> AppliedProgress:
        """Applied progress of the state in the backup, without `extra`."""
        return AppliedProgress(
            self.applied, first_of(self.revision) + self.number, bytes.fromhex(self.chain), int(self.digest, 16)
        )


class BackupWriter:
    """Context manager that writes `path`.partial, which `finish` renames to `path`. An unfinished file is deleted.

    Raises BackupError, and MisuseError if `path` exists and `replace` is false.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        if path.exists() and not replace:
            raise MisuseError(f"{path} exists: give another name, or --force to replace it")
        self._path = path
        self._partial = path.with_name(path.name + ".partial")

    def __enter__(self) -> Self:
        with _writing(self._partial):
            self._partial.unlink(missing_ok=True)
            os.close(os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # values may be secrets
            self._connection = sqlite3.connect(self._partial, isolation_level=None)
            try:
                # `finish` syncs the whole file; until then it needs no durability.
                self._connection.execute("PRAGMA journal_mode = OFF")
                self._connection.execute("PRAGMA synchronous = OFF")
                _create(self._connection)
                self._connection.execute("BEGIN")
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._partial.unlink(missing_ok=True)

    def add(self, changes: Iterable[Change]) -> None:
        """Apply `changes`, which come in order of revision."""
        with _writing(self._partial):
            for position, key, value, create_revision, version, _ in changes:
                if value is None:
                    self._connection.execute("DELETE FROM records WHERE key = ?", (key,))
                else:
                    row = (*_split(position), key, value, create_revision, version)
                    self._connection.execute(
                        f"INSERT OR REPLACE INTO records ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
                        row,
                    )

    def finish(self, progress: AppliedProgress, *, cluster: str, node: str, kvstore: str, taken_at: str) -> BackupInfo:
        """Verify that the rows are the whole state as of `progress`, sync the file and rename it."""
        with _writing(self._partial):
            count = self._connection.execute(
                "SELECT count(*) FROM records WHERE substr(key, 1, 1) <> x'00'"
            ).fetchone()[0]
            info = BackupInfo(
                FORMAT,
                cluster,
                node,
                kvstore,
                taken_at,
                count,
                *_split(progress.position),
                progress.applied,
                progress.chain.hex(),
                f"{progress.digest:016x}",
            )
            found = _Sums(info)
            for row in _rows(self._connection):
                found.add(row)
            if found.digest != progress.digest:
                raise BackupError(
                    f"the received records differ from those of {node} (digest {found.digest:016x} instead of "
                    f"{info.digest}): take the backup again"
                )
            row = (*msgspec.structs.astuple(info), found.checksum)
            self._connection.execute(f"INSERT INTO backup VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
            self._connection.execute("COMMIT")
            self._connection.close()
            with self._partial.open("rb") as file:
                os.fsync(file.fileno())
            self._partial.replace(self._path)
            sync_directory(self._path.parent)
        return info


class Backup:
    """Context manager that opens and verifies a finished backup.

    Raises BackupError if the file is not a backup, is damaged, or was altered.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        with _reading(self._path):
            if not self._path.is_file():
                raise BackupError(f"{self._path} is not a file: {_GIVE}")
            _refuse_other_kind(self._path)
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            self._connection.text_factory = decode_text
            try:
                self.info = self._verified()
            except BaseException:
                self._connection.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def changes(self) -> Iterator[Change]:
        """Yield the records in order of revision, as rows of a state without superseded revisions."""
        with _reading(self._path):
            for revision, number, key, value, create_revision, version in _rows(self._connection):
                yield Change(first_of(revision) + number, key, value, create_revision, version, supersedes=0)

    def _verified(self) -> BackupInfo:
        if self._connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise BackupError(f"{self._path} is not a backup: {_GIVE}")
        self._refuse_other_format()
        self._refuse_other_size()
        rows = self._connection.execute("SELECT * FROM backup").fetchall()
        try:
            ((*fields, checksum),) = rows
            info = msgspec.convert(dict(zip(BackupInfo.__struct_fields__, fields, strict=True)), BackupInfo)
            found = _Sums(info)
            for row in _rows(self._connection):
                found.add(row)
            progress = info.progress
        except (ValueError, TypeError, struct.error, msgspec.MsgspecError) as error:
            raise _damaged(self._path, str(error)) from error
        if found.checksum != checksum:
            raise _damaged(self._path, "the checksum does not match")
        if (found.records, found.digest) != (info.records, progress.digest) or len(progress.chain) != CHAIN_BYTES:
            raise _damaged(self._path, "the records do not match the digest")
        return info

    def _refuse_other_format(self) -> None:
        found = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if found > FORMAT:
            raise BackupError(
                f"{self._path} was made by a newer release (format {found}, this one reads up to {FORMAT}): run "
                "`kvstore restore` of that release"
            )

    def _refuse_other_size(self) -> None:
        """Raise BackupError for bytes behind the database, which SQLite ignores."""
        pages, page = (self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        size = self._path.stat().st_size
        if size != pages * page:
            raise _damaged(self._path, f"it has {size} bytes instead of {pages * page}")


class _Sums:
    """The checksum of a backup, and the digest and number of its records."""

    def __init__(self, info: BackupInfo) -> None:
        self._hash = hashlib.blake2b(_encode(info), digest_size=32)
        self.digest = 0
        self.records = 0

    def add(self, row: _Row) -> None:
        """Add a row. Rows must be added in order of revision."""
        revision, number, key, value, create_revision, version = row
        self._hash.update(_encode(row))
        row_digest = digest_of(key, Record(value, revision, create_revision, version, number))
        self.digest = (self.digest + row_digest) & DIGEST_MASK
        self.records += not is_internal(key)

    @property
    def checksum(self) -> str:
        """The checksum, in hexadecimal as in the file."""
        return self._hash.hexdigest()


_encode = msgspec.msgpack.Encoder().encode


def _create(connection: sqlite3.Connection) -> None:
    database = Database(connection, recursive_triggers=False, execute_plugins=False)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    numbers = dict.fromkeys(("revision", "number", "create_revision", "version"), int)
    record = {"key": bytes, "value": bytes, **numbers}
    records = database.table("records").create(record, pk=("revision", "number"), not_null=set(record), strict=True)
    records.create_index(["key"], unique=True)
    columns = {**BackupInfo.__annotations__, "checksum": str}
    database.table("backup").create(columns, not_null=set(columns), strict=True)
    database.create_view(
        "readable",
        "SELECT cast(key AS TEXT) AS key, cast(value AS TEXT) AS value, revision, create_revision, version "  # noqa: S608
        f"FROM records WHERE {_CLIENT_KEYS}",
    )


def _split(position: int) -> tuple[int, int]:
    """Return the revision and the sub-revision of a change."""
    return revision_of(position), sub_revision_of(position)


def _rows(connection: sqlite3.Connection) -> Iterator[_Row]:
    with closing(connection.execute(f"SELECT {_COLUMNS} FROM records ORDER BY revision, number")) as rows:  # noqa: S608
        yield from rows


def _refuse_other_kind(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(len(_SQLITE))
    if head == _SQLITE:
        return
    kind = "is empty" if not head else kind_of(head)
    if kind is None and head.lstrip()[:1] == b"{":
        kind = "is text: `kvstore import` reads a file made by `kvstore export`"
    raise BackupError(f"{path} {kind}" if kind is not None else f"{path} is not a backup: {_GIVE}")


def _damaged(path: Path, why: str) -> BackupError:
    return BackupError(
        f"{path} is damaged or was altered ({why}): restore from another backup, or copy it again in binary mode"
    )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # UnicodeDecodeError: names in a damaged schema
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise BackupError(f"{path} cannot be read ({error.strerror}): give a file that this user can read") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BackupError(
            f"{path} cannot be written ({why}): give a name in a directory that is writable and has free space"
        ) from error
