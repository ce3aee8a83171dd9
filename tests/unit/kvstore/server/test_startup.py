"""The founding members against the members in the settings."""

from pathlib import Path

import pytest

from kvstore.api.address import Address
from kvstore.server.config import Settings
from kvstore.server.startup import refuse_other_founders
from storage.base import StorageError, StoredIdentity

FIRST = ("n1", "n2", "n3")


def settings(*names: str) -> Settings:
    members = {name: Address("127.0.0.1", 9000 + number) for number, name in enumerate(names)}
    return Settings(node="n1", members=members, data=Path("d"), secret="0123456789abcdef")


def identity(*members: str) -> StoredIdentity:
    return StoredIdentity("c", "n1", 7, 1, members)


@pytest.mark.parametrize("others", [("n1",), ("n1", "n2"), ("n1", "n2", "n4"), ("n1", "n2", "n3", "n4")])
def test_other_members_than_at_the_first_start_are_refused_before_the_founding(others: tuple[str, ...]) -> None:
    """Majorities of two sets of voters need not meet."""
    with pytest.raises(
        StorageError, match=f"cluster of n1,n2,n3, but the settings name {','.join(others)}: start this"
    ):
        refuse_other_founders(identity(*FIRST), settings(*others))


@pytest.mark.parametrize("first", [(), FIRST])
def test_the_same_in_any_order_pass_and_so_does_whoever_joined(first: tuple[str, ...]) -> None:
    refuse_other_founders(identity(*first), settings("n3", "n1", "n2"))
