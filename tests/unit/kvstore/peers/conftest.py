import asyncio
import socket
from collections.abc import Iterator

import pytest
import uvloop

from kvstore.peers import transport
from kvstore.peers.transport import Address
from tests.unit.kvstore.peers.actors import HOST, PATIENCE_S, Lines, Run, Story


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    async def bounded(story: Story) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await story

    return lambda story: request.param(bounded(story))


@pytest.fixture
def nowhere() -> Iterator[Address]:
    """An address that refuses connections for as long as the test runs."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        yield held.getsockname()


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    transport.log.addHandler(handler)
    yield handler
    transport.log.removeHandler(handler)
