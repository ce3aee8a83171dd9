"""Clients that hold connections and finish nothing are not noticed by the others."""

import asyncio
from pathlib import Path

import pytest

from tests.cluster.harness import CallHistory, Ending, HttpClient, load, running

pytestmark = pytest.mark.cluster

OF_EACH = 30
BIG = bytes(1 << 20)
RUDE = {
    "silent": b"",
    "in the middle of the request line": b"PUT /kv/k",
    "in the middle of the headers": b"PUT /kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Le",
    "in the middle of the body": b"PUT /kv/rude HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nno more",
    "no reader of its answers": b"GET /kv/big HTTP/1.1\r\nHost: localhost\r\n\r\n" * 4,
}


def test_clients_that_finish_nothing_disturb_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path) as cluster:
            async with HttpClient(cluster, CallHistory()) as client:
                assert (await client.put("n1", b"big", BIG)).ending is Ending.DONE
            writers = []
            for place in cluster.replicas.values():
                for sent in RUDE.values():
                    for _ in range(OF_EACH):
                        _, writer = await asyncio.open_connection(*place.listen, limit=1)
                        writer.write(sent)
                        writers.append(writer)
            try:
                async with load(cluster, history) as running_load:
                    await running_load.more(1000)
                assert running_load.troubles == []
                assert running_load.given_up == []
                await history.verify(cluster, least=300)
            finally:
                for writer in writers:
                    writer.transport.abort()

    asyncio.run(story())
