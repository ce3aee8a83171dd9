"""The state as a command sees it while it is applied."""

from collections.abc import Generator, Iterable, Iterator
from typing import Protocol, TypeVar

from kvstore.api.commands import DeleteResult, NotFound, PutResult, Record
from kvstore.api.key_range import Span
from kvstore.state_machine.lease_index import LeaseIndex

T = TypeVar("T")
Steps = Generator[int, None, T]
"""A computation in short steps. It yields the work of each step, in records, and returns its result."""
STEP_RECORDS = 500
"""Most records that one step changes. A step takes about a millisecond."""
SCANNED_RECORDS = 4000
"""Most records that one step only reads, which takes about as long."""


def complete(steps: Steps[T]) -> T:
    """Do all steps at once and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


class Records(Protocol):
    """The records of clients, and the internal records."""

    @property
    def revision(self) -> int:
        """The revision of the last change."""

    @property
    def command_revision(self) -> int:
        """The revision of the changes that the present command makes."""

    @property
    def lease_index(self) -> LeaseIndex:
        """The client leases, with their attached keys, locks and kept answers."""

    def get(self, key: bytes) -> Record | None:
        """Return the record of `key`, None if it is absent."""

    def keys(self, span: Span) -> Iterator[bytes]:
        """Yield the keys of `span`, in order."""

    def records_in(self, span: Span) -> Iterator[Record]:
        """Yield the records of the keys of `span`, in order."""

    def most_keys(self, span: Span) -> int:
        """Return a bound on the number of keys of `span`, at once."""

    def growth(self, key: bytes, value: bytes) -> int:
        """Return the bytes by which a put would enlarge the state; less than 0 if the state would shrink."""

    def put(self, key: bytes, value: bytes, lease: int = 0) -> PutResult:
        """Set `key` to `value`, and attach the key to `lease`, or detach it if `lease` is 0."""

    def delete(self, key: bytes) -> DeleteResult | NotFound:
        """Remove `key`."""

    def delete_all(self, keys: Iterable[bytes]) -> None:
        """Remove `keys`, all of which are present."""

    def internal(self, key: bytes) -> Record | None:
        """Return the internal record under `key`, None if it is absent."""

    def put_internal(self, key: bytes, value: bytes) -> None:
        """Set the internal record under `key` to `value`."""

    def delete_internal(self, key: bytes) -> None:
        """Remove the internal record under `key`, which must exist."""
