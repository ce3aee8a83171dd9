"""Outages, and the writes around them."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from bench.failover import FailoverResult, WritePulse, around, failover_report, missing
from tests.unit.bench.reports import shown


def result(*outages_ms: float, lost: tuple[str, ...] = ()) -> FailoverResult:
    return FailoverResult(
        nodes=3,
        clients=4,
        outages_ms=list(outages_ms),
        acknowledged=99,
        unknown=7,
        refused=2,
        lost=list(lost),
        around=[50.0] * 10 + [0.0] * 5 + [40.0] * 15,
    )


def test_the_report_has_percentiles_rates_and_writes() -> None:
    text = shown(failover_report(result(510.0, 530.0, 710.0)))
    rows = [line.split() for line in text.splitlines()]
    assert ["3", "kills", "of", "the", "leader", "530", "706", "710"] in rows
    assert ["-0.5", "to", "0.0", "50"] in rows
    assert ["0.0", "to", "0.5", "0"] in rows
    assert "99 writes acknowledged, 0 lost; 7 of unknown outcome, 2 refused" in text
    assert "1 LOST, first client-1/7" in shown(failover_report(result(1.0, 2.0, lost=("client-1/7",))))


@pytest.mark.parametrize(
    ("outages_ms", "within"),
    [((700, 700, 700), True), ((800, 800, 1500), True), ((700, 810, 900), False), ((700, 700, 1600), False)],
)
def test_both_percentiles_have_a_limit(outages_ms: tuple[float, ...], *, within: bool) -> None:
    assert result(*outages_ms).within_limits is within


def test_writes_around_kills_are_the_mean_of_all_kills() -> None:
    steady = [0.05 + 0.1 * number for number in range(100)]
    rates = around([time_s for time_s in steady if not 5.0 <= time_s < 5.6], [2.0, 5.0])
    assert len(rates) == 30
    assert rates[:10] == pytest.approx([10] * 10)
    assert rates[10:16] == pytest.approx([5] * 6)
    assert rates[16:] == pytest.approx([10] * 14)


def test_the_longest_outage_counts_from_the_last_write_before() -> None:
    pulse = WritePulse(0.0)
    pulse.beat(10.0)
    pulse.restart()
    for now in (10.01, 10.61, 10.62):  # a write that succeeds just after the kill does not end the outage
        pulse.beat(now)
    assert pulse.longest_s == pytest.approx(0.6)


def test_next_waits_for_a_later_write() -> None:
    async def story() -> None:
        pulse = WritePulse(0.0)
        pulse.beat(1.0)
        waiting = asyncio.create_task(pulse.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        pulse.beat(2.0)
        await waiting

    asyncio.run(story())


def test_a_write_is_lost_when_its_key_is_absent_or_has_another_value() -> None:
    held = {"kept": "kept", "changed": "something else"}

    async def answer(request: web.BaseRequest) -> web.Response:
        value = held.get(request.path.removeprefix("/kv/"))
        if value is None:
            return web.json_response({"type": "urn:kvstore:problem:no-such-key"}, status=404)
        return web.Response(text=value, headers=dict.fromkeys(("KV-Revision", "KV-Create-Revision", "KV-Version"), "1"))

    async def story() -> list[str]:
        async with RawTestServer(answer) as server:
            return await missing([f"http://{server.host}:{server.port}"], ["kept", "changed", "absent"])

    assert sorted(asyncio.run(story())) == ["absent", "changed"]
