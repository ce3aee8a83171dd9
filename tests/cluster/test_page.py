"""`/ui` in a real browser: it shows who leads, follows a kill, and reads and writes keys with awkward names."""

import asyncio
import json
from pathlib import Path

import pytest

from kvstore.testing.process_cluster import ProcessCluster
from tests.cluster.browser import FOUND, BrowserPage, browsing
from tests.cluster.harness import STORY_S, others, running

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(FOUND is None, reason="there is no Chromium here: apt-get install chromium"),
]

AWKWARD = (
    "<script>alert(1)</script>",
    "a b/../c//d",
    "100%25 & more?x=1#y",
    "caf\u00e9 \u2603",
    r"\xff\x00z",
    r"back\\slash",
    "'\"><img src=x onerror=alert(1)>",
)


async def put(page: BrowserPage, key: str, value: str) -> None:
    await page.value(
        f"""(() => {{
          const form = document.getElementById("write");
          form.elements.key.value = {json.dumps(key)};
          form.elements.value.value = {json.dumps(value)};
          form.requestSubmit();
        }})()"""
    )
    await page.until(f"document.getElementById('told').textContent.startsWith({json.dumps(key + ' was set')})")


async def shown_value(page: BrowserPage, key: str) -> str:
    """Return the value that the row of `key` shows."""
    found: str = await page.until(
        f"""[...document.querySelectorAll("#records tr")]
          .find((row) => row.children[0].textContent === {json.dumps(key)})?.children[1].textContent"""
    )
    return found


async def sound(page: BrowserPage, endpoint: str) -> None:
    """Nothing was wrong, and nothing was asked of anybody else."""
    assert page.problems == []
    elsewhere = [url for url in page.asked if not url.startswith((endpoint, "data:"))]
    assert elsewhere == []
    assert await page.value("document.querySelectorAll('main script, main img').length") == 0


async def opened(page: BrowserPage, cluster: ProcessCluster, name: str) -> str:
    endpoint = cluster.replicas[name].url
    await page.open(f"{endpoint}/ui")
    await page.until("document.querySelectorAll('#members tr').length === 3")
    return endpoint


def test_keys_with_awkward_names_are_put_read_and_deleted(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "cluster") as cluster, browsing(tmp_path / "browser") as page:
            await cluster.wait_ready()
            endpoint = await opened(page, cluster, "n1")
            for key in AWKWARD:
                await put(page, key, f"of {key}")
                assert await shown_value(page, key) == f"of {key}"
            stored = await page.value("fetch('/kv/%FF%00z').then((answer) => answer.text())")
            assert stored == "of \ufffd\x00z"
            await page.value(f"document.querySelector('[aria-label={json.dumps('Delete ' + AWKWARD[0])}]').click()")
            await page.until(f"document.querySelectorAll('#records tr').length === {len(AWKWARD) - 1}")
            await sound(page, endpoint)

    asyncio.run(asyncio.wait_for(story(), STORY_S))


def test_a_watch_shows_what_others_write(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "cluster") as cluster, browsing(tmp_path / "browser") as page:
            await cluster.wait_ready()
            endpoint = await opened(page, cluster, "n1")
            await page.value("document.getElementById('watch').click()")
            await page.until("document.getElementById('told').textContent.startsWith('Changes are shown')")
            async with cluster.status_client() as client:
                for number in range(5):
                    await client.put("seen", b"%d" % number)
            await page.until("document.querySelector('[data-key=\"%73%65%65%6E\"]')?.children[1].textContent === '4'")
            await sound(page, endpoint)

    asyncio.run(asyncio.wait_for(story(), STORY_S))


def test_it_shows_the_leader_and_follows_a_kill(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "cluster") as cluster, browsing(tmp_path / "browser") as page:
            leader = await cluster.wait_ready()
            survivor = others(cluster, leader)[0]
            endpoint = await opened(page, cluster, survivor)
            said = "document.getElementById('state').textContent"
            await page.until(f"{said}.includes('the leader is {leader},')")
            assert await page.value("document.querySelectorAll('.node.leader').length") == 1
            cluster.kill(leader)
            await page.until(f"/the leader is n[1-3]/.test({said}) && !{said}.includes('the leader is {leader},')")
            assert await page.until("document.querySelectorAll('.node.down').length === 1")
            assert await page.until("[...document.querySelectorAll('#messages .event')].length > 0")
            assert page.problems == []
            cluster.kill(survivor)
            await page.until(f"{said}.includes('does not answer')")
            cluster.start([leader, survivor])
            await page.until(f"/the leader is n[1-3]/.test({said})")
            assert all(url.startswith((endpoint, "data:")) for url in page.asked)

    asyncio.run(asyncio.wait_for(story(), STORY_S))
