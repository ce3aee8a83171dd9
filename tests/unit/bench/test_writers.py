import asyncio

from aiohttp import web
from aiohttp.test_utils import RawTestServer

from bench.writers import Pulse, missing


def test_the_longest_silence_counts_from_the_last_success_before() -> None:
    pulse = Pulse(0.0)
    pulse.beat(10.0)
    pulse.restart()
    pulse.beat(10.5)
    pulse.beat(10.7)
    assert pulse.longest_s == 0.5


def test_a_success_that_arrives_just_after_the_kill_does_not_end_the_silence() -> None:
    pulse = Pulse(0.0)
    pulse.restart()
    for now in (0.01, 0.61, 0.62):
        pulse.beat(now)
    assert pulse.longest_s == 0.6


def test_next_waits_for_a_success_that_is_still_to_come() -> None:
    async def scenario() -> None:
        pulse = Pulse(0.0)
        pulse.beat(1.0)
        waiting = asyncio.create_task(pulse.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        pulse.beat(2.0)
        await waiting

    asyncio.run(scenario())


def test_a_write_is_lost_when_its_key_is_absent_or_holds_another_value() -> None:
    held = {"kept": "kept", "changed": "something else"}

    async def answer(request: web.BaseRequest) -> web.Response:
        value = held.get(request.path.removeprefix("/kv/"))
        if value is None:
            return web.json_response({"type": "urn:kvstore:problem:no-such-key"}, status=404)
        return web.Response(text=value, headers=dict.fromkeys(("KV-Revision", "KV-Create-Revision", "KV-Version"), "1"))

    async def scenario() -> tuple[list[str], int]:
        reads: list[None] = []
        async with RawTestServer(answer) as server:
            endpoint = f"http://{server.host}:{server.port}"
            lost = await missing([endpoint], ["kept", "changed", "absent"], lambda: reads.append(None))
        return sorted(lost), len(reads)

    assert asyncio.run(scenario()) == (["absent", "changed"], 3)
