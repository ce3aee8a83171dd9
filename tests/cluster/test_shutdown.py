"""Clean shutdowns: every request that reaches a replica is done, and one that finds no listener goes elsewhere."""

import asyncio
from pathlib import Path

import pytest

from tests.cluster.harness import STEADY, CallHistory, load, others, running

pytestmark = pytest.mark.cluster


def test_a_leader_that_is_told_to_stop_hands_over_and_fails_no_request(tmp_path: Path) -> None:
    """Its lease would outlast the requests: unless it is given up, they fail."""

    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path, **STEADY) as cluster:
            leader = await cluster.wait_ready()
            async with load(cluster, history) as running_load:
                await running_load.more(200)
                assert await cluster.stop([leader]) == []
                assert cluster.exit_of(leader) == 0
                assert await cluster.wait_ready(others(cluster, leader)) != leader
                await running_load.more(200)
            assert running_load.troubles == []
            assert running_load.given_up == []
            await history.verify(cluster, least=100)

    asyncio.run(story())


def test_a_rolling_restart_fails_no_request(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path) as cluster:
            async with load(cluster, history) as running_load:
                for name in cluster.replicas:
                    await running_load.more(100)
                    await cluster.restart(name)
                    await cluster.wait_ready()
                await running_load.more(100)
            assert running_load.troubles == []
            assert running_load.given_up == []
            await history.verify(cluster, least=100)

    asyncio.run(story())
