"""The state as commands see it while they are applied."""

from collections.abc import Iterator
from typing import Protocol

from kvstore.api.commands import DeleteResult, NotFound, PutResult, Record
from kvstore.api.key_range import Span
from kvstore.state_machine.lease_index import LeaseIndex


class Records(Protocol):
    """What keys hold, and the records that are the store's own."""

    @property
    def revision(self) -> int:
        """Of the last change."""

    @property
    def under_way(self) -> int:
        """The revision that what the present command changes is of."""

    @property
    def lease_index(self) -> LeaseIndex:
        """Leases, and what hangs on them."""

    def get(self, key: bytes) -> Record | None:
        """What `key` holds."""

    def keys(self, span: Span) -> Iterator[bytes]:
        """The keys of `span`, in order."""

    def growth(self, key: bytes, value: bytes) -> int:
        """By how much a put would change the size of the state."""

    def put(self, key: bytes, value: bytes, lease: int = 0) -> PutResult:
        """Make `value` what `key` holds, and have it go with `lease`, with none for 0."""

    def delete(self, key: bytes) -> DeleteResult | NotFound:
        """Remove `key`."""

    def own(self, key: bytes) -> Record | None:
        """The record of the store's own under `key`."""

    def put_own(self, key: bytes, value: bytes) -> None:
        """Make `value` what that record holds."""

    def delete_own(self, key: bytes) -> None:
        """Remove that record, which is there."""
