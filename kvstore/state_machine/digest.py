"""The digest of the records, and their size. The digest is a sum, so that a change of one record takes the same time in
a state of any size."""

from struct import Struct
from zlib import crc32

from kvstore.api.commands import Record
from storage.base import SUB_REVISION_BITS

RECORD_BYTES = 64
"""Bytes that the quota counts for a record beside its key and value."""
DIGEST_MASK = 2**64 - 1
"""Digests are sums modulo DIGEST_MASK + 1."""
pack_numbers = Struct("<QQQQ").pack


def position_of(record: Record) -> int:
    """Return the position of the put that made `record`."""
    return record.revision << SUB_REVISION_BITS | record.sub_revision


def digest_of(key: bytes, record: Record) -> int:
    """Return the 32-bit number that a record adds to the digest."""
    numbers = pack_numbers(record.revision, record.sub_revision, record.create_revision, record.version)
    return crc32(record.value, crc32(numbers + key))


def size_of(key: bytes, value: bytes) -> int:
    """Return the bytes that the quota counts for a record."""
    return len(key) + len(value) + RECORD_BYTES
