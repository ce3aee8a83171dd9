"""A settled cluster sends no unnecessary messages, by its own counters."""

import asyncio
import itertools
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kvstore.testing.process_cluster import ProcessCluster
from tests.cluster.harness import STEADY, CallHistory, Ending, HttpClient, running, until

pytestmark = pytest.mark.cluster

CLIENTS = 8
CALLS = 1000


async def counted(client: HttpClient, cluster: ProcessCluster, family: str, label: str) -> Counter[str]:
    """The sum over all replicas of a counter for each value of a label; of messages, those that were sent."""
    total: Counter[str] = Counter()
    for name in cluster.replicas:
        page = (await client.ask("GET", name, "/metrics")).body.decode()
        samples = [sample for metric in text_string_to_metric_families(page) for sample in metric.samples]
        for sample in samples:
            if sample.name == family and sample.labels.get("direction", "sent") == "sent":
                total[sample.labels[label]] += int(sample.value)
    return total


async def sent(client: HttpClient, cluster: ProcessCluster) -> Counter[str]:
    return await counted(client, cluster, "kvstore_messages_total", "kind")


async def settled(client: HttpClient, cluster: ProcessCluster) -> None:
    """Wait until all replicas have applied all that is chosen: nothing is on its way any more."""

    async def equal() -> bool:
        async with cluster.status_client() as asking:
            statuses = await cluster.statuses(asking)
        return len({(status.chosen, status.applied) if status else None for status in statuses.values()}) == 1

    await until(equal)


async def call_often(cluster: ProcessCluster, history: CallHistory, kind: str, names: list[str]) -> None:
    """`CALLS` calls by several clients at once, in turn at these replicas."""

    async def one(number: int) -> None:
        async with HttpClient(cluster, history) as client:
            for name, _ in zip(itertools.cycle(names), range(CALLS // CLIENTS), strict=False):
                call = await (client.put if kind == "put" else client.get)(name, history.keys[number])
                assert call.ending is Ending.DONE, call.why

    await asyncio.gather(*map(one, range(CLIENTS)))


def test_a_thousand_puts_need_no_prepare(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path, **STEADY) as cluster, HttpClient(cluster, history) as client:
            before = await sent(client, cluster)
            await call_often(cluster, history, "put", list(cluster.replicas))
            await settled(client, cluster)
            since = await sent(client, cluster) - before
            assert before["Prepare"] > 0, "the counters do not show the election"
            assert since["Accept"] > 0
            assert since["Accepted"] > 0
            assert {"PreVote", "PreVoteReply", "Prepare", "Promise"}.isdisjoint(since), since
            assert history.acknowledged("put") == CALLS

    asyncio.run(story())


def test_a_thousand_reads_at_the_leader_need_no_message(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path, **STEADY) as cluster, HttpClient(cluster, history) as client:
            leader = await cluster.wait_ready()
            await call_often(cluster, history, "put", [leader])
            await settled(client, cluster)
            before = await sent(client, cluster)
            methods = await counted(client, cluster, "kvstore_reads_total", "method")
            await call_often(cluster, history, "get", [leader])
            since = await sent(client, cluster) - before
            as_time_goes_by = {"Heartbeat", "HeartbeatAck", "DigestRequest", "DigestReply"}
            assert set(since) <= as_time_goes_by, since
            assert await counted(client, cluster, "kvstore_reads_total", "method") - methods == {"lease": CALLS}
            await history.verify(cluster, least=CALLS)

    asyncio.run(story())
