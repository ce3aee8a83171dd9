"""Members that come and go while real clients write."""

import asyncio
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from kvstore.api.membership import MemberRole
from kvstore.api.queries import Consistency
from kvstore.api.status import MembersStatus
from kvstore.client import Client as Operator
from kvstore.testing.cluster_directory import HOST
from kvstore.testing.process_cluster import ProcessCluster
from storage.directory import read_lock_record
from tests.cluster.harness import STEADY, CallHistory, Ending, HttpClient, load, others, running, until
from tests.cluster.test_refusals import _all_say, command, intruder

pytestmark = pytest.mark.cluster

FOUNDERS = ("n1", "n2", "n3")


def voters(status: MembersStatus) -> list[str]:
    return sorted(each.name for each in status.members if each.role is not MemberRole.LEARNER)


async def page(cluster: ProcessCluster, name: str, path: str) -> tuple[int, dict[str, Any]]:
    """Status and document of a page that is JSON."""
    async with HttpClient(cluster, CallHistory()) as client:
        reply = await client.ask("GET", name, path)
    return reply.status, json.loads(reply.body)


async def detail(cluster: ProcessCluster, name: str, path: str) -> str:
    """Return the detail of a page that is unavailable for now; empty if the page is available."""
    async with HttpClient(cluster, CallHistory()) as client:
        reply = await client.ask("GET", name, path)
    return str(reply.problem()["detail"]) if reply.status == 503 else ""


async def assert_takes_writes(cluster: ProcessCluster, names: list[str]) -> None:
    async with HttpClient(cluster, CallHistory()) as client:
        for name in names:
            call = await client.put(name, b"probe")
            assert call.ending is Ending.DONE, call.why


def test_three_become_five_and_three_again_without_one_failed_write(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path, **STEADY) as cluster:
            async with load(cluster, history) as running_load:
                await running_load.more(100)
                for name in ("n4", "n5"):
                    await cluster.add(name)
                    await cluster.wait_joined(name)
                await running_load.more(100)
                assert voters(await cluster.wait_joined()) == ["n1", "n2", "n3", "n4", "n5"]
                await assert_takes_writes(cluster, ["n4", "n5"])
                for name in ("n4", "n5"):
                    await cluster.remove(name)
                assert voters(await cluster.wait_joined()) == ["n1", "n2", "n3"]
                await running_load.more(100)
            assert running_load.troubles == []
            assert running_load.given_up == []
            await history.verify(cluster, least=100)

    asyncio.run(story())


def test_new_members_carry_the_cluster_when_old_ones_die(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path) as cluster:
            for name in ("n4", "n5"):
                await cluster.add(name)
                await cluster.wait_joined(name)
            async with load(cluster, history, ["n3", "n4", "n5"]) as running_load:
                await running_load.more(50)
                cluster.kill("n1", "n2")
                await running_load.more(100)
            assert running_load.given_up == []
            await history.verify(cluster, least=30)

    asyncio.run(story())


def test_the_leader_is_removed_under_load_and_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path, **STEADY) as cluster:
            leader = await cluster.wait_ready()
            rest = others(cluster, leader)
            async with load(cluster, history, rest) as running_load:
                await running_load.more(100)
                async with Operator(cluster.endpoints) as operator:
                    await operator.remove_member(leader)
                await running_load.more(100)
            assert running_load.troubles == []
            assert running_load.given_up == []
            assert await cluster.wait_ready(rest) in rest

            async def knows() -> bool:
                return "was removed from the cluster" in await detail(cluster, leader, "/readyz")

            await until(knows)
            assert cluster.runs(leader)
            assert f"{leader} was removed from the membership" in cluster.replicas[leader].log.read_text()
            assert "serve clients:" in await detail(cluster, leader, "/kv/k0")
            async with HttpClient(cluster, CallHistory()) as client:
                assert (await client.ask("GET", leader, "/kv/k0?consistency=stale")).status in {200, 404}
            await history.verify(cluster, least=50, names=rest)

    asyncio.run(story())


def test_one_that_was_removed_while_it_was_down_is_told_by_its_peers(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, **STEADY) as cluster:
            (away, *_) = others(cluster, await cluster.wait_ready())
            cluster.kill(away)
            async with Operator(cluster.endpoints) as operator:
                await operator.remove_member(away)
            cluster.start([away])

            async def knows() -> bool:
                async with cluster.status_client() as client:
                    if (await cluster.statuses(client))[away] is None:
                        return False
                return "do not know" in await detail(cluster, away, "/readyz")

            await until(knows)
            assert cluster.runs(away)

    asyncio.run(story())


def test_down_to_one_and_up_again(tmp_path: Path) -> None:
    """The removal of one of two voters needs the votes of both."""

    async def story() -> None:
        async with running(tmp_path) as cluster:
            for _ in range(2):
                leader = await cluster.wait_ready()
                await cluster.remove(leader)
            (last,) = cluster.replicas
            await assert_takes_writes(cluster, [last])
            await cluster.add("n4")
            assert voters(await cluster.wait_joined("n4")) == sorted([last, "n4"])
            await assert_takes_writes(cluster, [last, "n4"])

    asyncio.run(story())


def test_a_wiped_disk_is_refused_until_it_is_replaced_and_then_votes_again(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path) as cluster:
            leader = await cluster.wait_ready()
            wiped, third = others(cluster, leader)
            async with load(cluster, history, [leader, third]) as running_load:
                await running_load.more(50)
                cluster.kill(wiped)
                shutil.rmtree(cluster.replicas[wiped].data)
                cluster.start([wiped])
                logs = [cluster.replicas[name].log for name in (leader, third)]
                await until(lambda: _all_say(logs, f"run `kvstore member replace {wiped}`"))
                async with Operator(cluster.endpoints) as operator:
                    await operator.replace_member(wiped)
                assert voters(await cluster.wait_joined(wiped)) == list(FOUNDERS)
                await running_load.more(50)
            await cluster.wait_ready()
            cluster.kill(third)
            await cluster.wait_ready([leader, wiped])
            await assert_takes_writes(cluster, [leader, wiped])
            await history.verify(cluster, least=30)

    asyncio.run(story())


@pytest.mark.parametrize("joins", [False, True])
def test_a_new_disk_that_is_told_of_the_founders_only_finds_its_way_by_one_that_follows(
    tmp_path: Path, joins: bool
) -> None:
    """The leader came later: the new disk does not know it, and refuses its links."""

    async def story() -> None:
        async with running(tmp_path) as cluster:
            for name in ("n4", "n5"):
                await cluster.add(name)
                await cluster.wait_joined(name)
            await cluster.remove("n3")
            while (leader := await cluster.wait_ready()) in FOUNDERS:
                await cluster.restart(leader)
            cluster.kill("n2")
            shutil.rmtree(cluster.replicas["n2"].data)
            if joins:
                config = cluster.replicas["n2"].config  # as it was when it was founded
                config.write_text("join = true\n" + config.read_text())
            cluster.start(["n2"])
            async with Operator(cluster.endpoints) as operator:
                await operator.replace_member("n2")
            assert voters(await cluster.wait_joined("n2")) == ["n1", "n2", "n4", "n5"]
            await assert_takes_writes(cluster, ["n2"])

    asyncio.run(story())


def test_an_id_that_is_used_twice_is_told_of_in_all_logs_and_does_no_harm(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, **STEADY) as cluster:
            member, *rest = others(cluster, leader := await cluster.wait_ready())
            await cluster.stop([member])
            shutil.copytree(cluster.replicas[member].data, tmp_path / "copy")
            cluster.start([member])
            await cluster.wait_ready()
            own = [f"--data={tmp_path / 'copy'}", f"--listen={free()}", f"--peer-listen={free()}"]
            logs = [cluster.replicas[name].log for name in (leader, *rest)]
            with intruder(tmp_path / "log", command(cluster, member, *own)):
                await until(lambda: _all_say(logs, f"two processes ran as '{member}'", "stop one"))
                await assert_takes_writes(cluster, list(cluster.replicas))

    asyncio.run(story())


def test_peers_that_restarted_refuse_an_old_copy_however_often_it_is_started(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as cluster:
            member, *rest = list(cluster.replicas)
            await cluster.wait_ready()
            await cluster.stop([member])
            shutil.copytree(data := cluster.replicas[member].data, tmp_path / "copy")
            cluster.start([member])
            await cluster.wait_ready()
            await cluster.stop()
            data.rename(tmp_path / "newest")
            (tmp_path / "copy").rename(data)

            async def started_again() -> bool:
                return read_lock_record(data).boot == 2

            cluster.start([member])
            await until(started_again)
            await cluster.stop([member])
            cluster.start()
            logs = [cluster.replicas[name].log for name in cluster.replicas]
            await until(lambda: _all_say(logs, f"'{member}' runs on an older copy of its data", "member replace"))
            await cluster.wait_ready(rest)
            await cluster.stop([member])
            shutil.rmtree(data)
            (tmp_path / "newest").rename(data)
            cluster.start([member])
            await cluster.wait_ready()
            await assert_takes_writes(cluster, list(cluster.replicas))

    asyncio.run(story())


def free() -> str:
    with socket.create_server((HOST, 0)) as listener:
        return f"{HOST}:{listener.getsockname()[1]}"


async def assert_serves_no_client(cluster: ProcessCluster, witness: str) -> None:
    async with HttpClient(cluster, CallHistory()) as client:
        for method, query in (("GET", ""), ("GET", "?consistency=stale"), ("PUT", ""), ("DELETE", "")):
            reply = await client.ask(method, witness, f"/kv/k0{query}")
            problem = reply.problem()
            assert (reply.status, problem["type"]) == (503, "urn:kvstore:problem:witness")
            assert all(name in problem["detail"] for name in ("n1", "n2"))
        for path in ("/livez", "/readyz", "/metrics", "/members"):
            assert (await client.ask("GET", witness, path)).status == 200, path
    status, document = await page(cluster, witness, "/status")
    assert (status, document["keys"], document["standing"]) == (200, 0, "witness")
    assert document["applied"] > 0


def test_two_with_data_and_a_witness_survive_the_loss_of_any_one(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path, nodes=2) as cluster:
            await cluster.add("w1", MemberRole.WITNESS)
            await cluster.wait_joined("w1")
            await cluster.wait_ready()
            await assert_serves_no_client(cluster, "w1")
            for victim in ("n1", "n2", "w1"):
                async with load(cluster, history, others(cluster, victim, "w1")) as running_load:
                    await running_load.more(50)
                    cluster.kill(victim)
                    await running_load.more(100)
                assert running_load.given_up == []
                cluster.start([victim])
                await cluster.wait_ready()
            await history.verify(cluster, least=100, names=["n1", "n2"])
            await assert_serves_no_client(cluster, "w1")

    asyncio.run(story())


def test_three_with_data_and_two_witnesses_survive_the_loss_of_two_with_data(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path) as cluster:
            for name in ("w1", "w2"):
                await cluster.add(name, MemberRole.WITNESS)
                await cluster.wait_joined(name)
            leader = await cluster.wait_ready()
            other, survivor = others(cluster, leader, "w1", "w2")
            async with load(cluster, history, FOUNDERS) as running_load:
                await running_load.more(100)
                cluster.kill(leader, other)
                await running_load.more(100)
            assert running_load.given_up == []
            await history.verify(cluster, least=50, names=[survivor])
            cluster.start([leader, other])
            await cluster.wait_ready()
            await history.verify(cluster, least=50, names=FOUNDERS)

    asyncio.run(story())


def test_a_learner_serves_everything_and_never_votes(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path) as cluster:
            await cluster.add("l1", MemberRole.LEARNER)
            await cluster.wait_joined("l1")
            leader = await cluster.wait_ready()
            async with load(cluster, history, ["l1"]) as running_load:
                await running_load.more(200)
            assert running_load.given_up == []
            async with HttpClient(cluster, history) as client:
                call = await client.put("l1", b"k", b"read me")
                assert call.ending is Ending.DONE, call.why
                for consistency in (Consistency.LINEARIZABLE, Consistency.QUORUM):
                    assert (await client.get("l1", b"k", consistency)).value == b"read me"
                stale = await client.ask("GET", "l1", "/kv/k?consistency=stale")
                assert (stale.status, stale.body) == (200, b"read me")
                await history.verify(cluster, least=50)
                rest = others(cluster, leader, "l1")
                cluster.kill(*rest)

                async def unavailable() -> bool:
                    return (await client.ask("GET", "l1", "/readyz")).status == 503

                await until(unavailable)
                call = await client.put("l1", history.keys[0])
                assert call.ending is not Ending.DONE, "a learner and one of three voters are no majority"
                cluster.start(rest)
                await cluster.wait_ready()
            async with Operator(cluster.endpoints) as operator:
                await operator.promote_member("l1")
            assert voters(await cluster.wait_joined("l1")) == ["l1", *FOUNDERS]

    asyncio.run(story())
