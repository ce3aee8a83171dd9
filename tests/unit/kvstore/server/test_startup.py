"""The founding members against the members in the settings."""

from pathlib import Path

import msgspec
import pytest

from kvstore.api.address import Address
from kvstore.api.authority import Authority
from kvstore.server.config import Settings
from kvstore.server.http.problems import Problem
from kvstore.server.http.request import HttpRequest
from kvstore.server.startup import host_names_of, leftover_warning, refuse_other_founders
from storage.base import AppliedProgress, Founding, Recovered, StorageError, StoredIdentity

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


AGREED = Founding((("n1", 7), ("n2", 8)), ("n3",))


@pytest.mark.parametrize(
    ("recovered", "warns"),
    [
        (Recovered(identity(*FIRST)), False),
        (Recovered(identity(*FIRST), founding=AGREED), False),
        (Recovered(identity(*FIRST), founding=msgspec.structs.replace(AGREED, complete=True)), True),
        (Recovered(identity(), progress=AppliedProgress(5)), True),
        (Recovered(identity(*FIRST), restored=AppliedProgress(5)), False),
    ],
    ids=["new", "agreed", "founded", "joined", "restored"],
)
def test_a_setting_that_is_left_over_from_the_founding_gets_a_warning(recovered: Recovered, warns: bool) -> None:
    configured = settings(*FIRST).model_copy(update={"bootstrap_without": ("n3",)})
    warning = leftover_warning(recovered, configured)
    assert (warning is not None) == warns
    if warning is not None:
        assert "bootstrap_without names n3" in warning
        assert "remove the setting from all members" in warning
    assert leftover_warning(recovered, settings(*FIRST)) is None


@pytest.mark.parametrize(
    ("host", "taken"),
    [
        ("n1", True),
        ("n2:8001", True),
        ("inside", True),
        ("kv.example.com", True),
        ("n3", False),
        ("0.0.0.0.evil", False),
    ],
)
def test_the_hosts_of_the_members_and_the_public_names_are_names_of_a_replica(host: str, taken: bool) -> None:
    """In containers the members are names of services, which clients beside them use."""
    configured = Settings(
        members={"n1": Address("n1", 9001), "n2": Address("n2", 9001)},
        listen=Address("inside", 8001),
        peer_listen=Address("0.0.0.0", 9001),
        public_names=(Authority("kv.example.com", None),),
        secret="0123456789abcdef",
    )
    request = HttpRequest(None, "GET", "/kv/a", "1.1", {b"host": host.encode()})  # type: ignore[arg-type]  # not used
    if taken:
        host_names_of(configured).refuse(request)
    else:
        with pytest.raises(Problem, match="public_names"):
            host_names_of(configured).refuse(request)
