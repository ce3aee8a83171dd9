"""Questions about replicas: which one leads, what is missing, how one ended."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from kvstore.api.address import Address
from kvstore.api.status import Status
from kvstore.client import Client
from kvstore.testing.cluster_directory import HOST, LocalReplica
from kvstore.testing.replica_status import describe_exit, leader_of, status_of, what_is_missing
from tests.unit.kvstore.client.scripted import ScriptedReplica, serving


@pytest.mark.parametrize(
    ("code", "text"), [(None, "running"), (-9, "killed by SIGKILL"), (-40, "killed by signal 40"), (3, "exit status 3")]
)
def test_an_exit_is_described_in_words(code: int | None, text: str) -> None:
    assert describe_exit(code) == text


def status(name: str, *, ready: bool, role: str = "follower", ballot: str = "1.n1") -> Status:
    return Status(name, "c", role, ready, ballot, "1.n1", None, None, 1, 1, 1, 1, [], "0", 1)


def test_what_is_missing_is_told_for_each_replica_that_is_not_ready() -> None:
    text = what_is_missing({"n1": None, "n2": status("n2", ready=False), "n3": status("n3", ready=True)})
    assert text == "n1 does not answer yet: it may be replaying its log, n2 is catching up"
    assert what_is_missing({"n1": status("n1", ready=True)}) == "there is no leader"


def test_of_two_replicas_that_claim_to_lead_the_one_with_the_highest_ballot_does() -> None:
    deposed, leader = (
        status("n1", ready=True, role="leader", ballot="9.n1"),
        status("n2", ready=True, role="leader", ballot="10.n2"),
    )
    assert leader_of({"n1": deposed, "n2": leader, "n3": None}) == "n2"
    assert leader_of({"n3": status("n3", ready=True)}) is None


def test_another_program_at_the_address_of_a_replica_is_no_replica() -> None:
    async def story() -> None:
        bodies = [web.Response(body=b"not a status"), web.Response(body=b'{"id": "\xff"}'), web.Response(status=404)]
        other = ScriptedReplica(*bodies)
        async with serving(other) as urls, Client(urls) as client:
            listen = Address(HOST, urlsplit(other.url).port or 0)
            replica = LocalReplica("n1", listen, listen, Path())
            assert [await status_of(client, replica) for _ in bodies] == [None, None, None]

    asyncio.run(story())
