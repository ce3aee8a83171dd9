"""`/ui` in a real browser: it shows who leads, follows a kill, and reads and writes keys with awkward names."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.testing.process_cluster import ProcessCluster
from tests.cluster.browser import FOUND, BrowserPage, browsing, opened_tab
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


BYTES = {
    b"l\nine": b"a\r\nb\rc\nd\r\n",
    b"tab\tand\x7f\x01": b"\ttab\n",
    b" spaces ": b"  two  ",
    b" ": b" ",
    b"caf\xc3\xa9": b"\xe2\x98\x83 \xe2\x80\xa8\xe2\x80\xa9 \xc2\x85\xc2\xa0",
    b"caf\xe9": b"\xff\xfe\x00\r\n\xed\xa0\x80\\x41",
    b"\xef\xbb\xbfbom": b"\xef\xbb\xbfbom\x00",
    b"bidi\xe2\x80\xae": b"\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb",
    b"back\\slash\\x41\\": b"C:\\new\\\\x",
    b"nul\x00": b"\x00",
    b"a/../b": b"",
    b"...": b"&lt;b>",
}
TYPED = {r"\x0aline": b"\nline", r"C:\\new": b"C:\\new", " a": b" a", r"\xe9\x2E": b"\xe9.", "\u00e9": b"\xc3\xa9"}
REFUSED = {
    r"C:\new": "A backslash begins",
    r"\x4": "A backslash begins",
    "\ud83d": "half of a surrogate pair",
    ".": "Use the command line",
    "..": "Use the command line",
}
PASTE = """(() => {
  const { key } = document.getElementById("write").elements;
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", "l\\nine");
  key.value = "";
  key.dispatchEvent(new ClipboardEvent("paste", { clipboardData, cancelable: true }));
})()"""
WITHOUT_WORKERS = """
delete window.SharedWorker;
let isHidden = false;
Object.defineProperty(document, "hidden", { get: () => isHidden });
function hide(hidden) {
  isHidden = hidden;
  document.dispatchEvent(new Event("visibilitychange"));
}
"""
HIDE = "hide(true)"
SHOW = "hide(false)"


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


def row_of(key: bytes) -> str:
    """Return the script of the row of `key`, which is null while there is none."""
    return f"document.querySelector('[data-key=\"{''.join(f'%{byte:02X}' for byte in key)}\"]')"


async def click(page: BrowserPage, button: str, key: bytes) -> None:
    """Click a button in the row of `key`."""
    row = row_of(key)
    await page.until(f"{row} !== null")
    number = ("Edit", "Delete").index(button)
    await page.value(
        f"document.getElementById('told').textContent = ''; {row}.querySelectorAll('button')[{number}].click()"
    )


async def told(page: BrowserPage, text: str) -> None:
    """Wait until the page has said a sentence with `text`."""
    await page.until(f"document.getElementById('told').textContent.includes({json.dumps(text)})")


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


def test_every_byte_survives_an_edit(tmp_path: Path) -> None:
    """Edit and Put, without a change by the person, put the same value at the same key."""

    async def story() -> None:
        async with (
            running(tmp_path / "cluster", 1) as cluster,
            browsing(tmp_path / "browser") as page,
            Client(cluster.endpoints) as client,
        ):
            for key, value in BYTES.items():
                await client.put(key, value)
            await page.open(f"{cluster.replicas['n1'].url}/ui")
            for key, value in BYTES.items():
                await click(page, "Edit", key)
                await told(page, " is loaded")
                await page.value("document.getElementById('write').requestSubmit()")
                await told(page, " was set at revision ")
                record = await client.get(key)
                assert record is not None
                assert (record.value, record.version) == (value, 2), key
            assert len([each async for each in client.list()]) == len(BYTES)
            for key in BYTES:
                await click(page, "Delete", key)
                await page.until(f"{row_of(key)} === null")
                assert await client.get(key) is None
            await client.put("..", b"")
            await page.value("document.getElementById('search').requestSubmit()")
            await page.until(f"{row_of(b'..')} !== null")
            assert await page.value(f"{row_of(b'..')}.querySelectorAll('button').length") == 0
            assert page.problems == []

    asyncio.run(asyncio.wait_for(story(), STORY_S))


def test_a_text_stands_for_exactly_one_key(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            running(tmp_path / "cluster", 1) as cluster,
            browsing(tmp_path / "browser") as page,
            Client(cluster.endpoints) as client,
        ):
            await page.open(f"{cluster.replicas['n1'].url}/ui")
            await page.until("document.getElementById('state')?.className === 'good'")
            for text, key in TYPED.items():
                await put(page, text, "typed")
                record = await client.get(key)
                assert record is not None, key
            await page.value(PASTE)
            assert await page.value("document.getElementById('write').elements.key.value") == r"l\x0aine"
            for text, why in REFUSED.items():
                await page.value(
                    f"""(() => {{
                      const form = document.getElementById("write");
                      form.elements.key.value = {json.dumps(text)};
                      form.requestSubmit();
                    }})()"""
                )
                await told(page, why)
            assert len([each async for each in client.list()]) == len(TYPED)
            await page.value("document.getElementById('search').elements.prefix.value = '\\\\x0a'")
            await page.value("document.getElementById('search').requestSubmit()")
            await page.until("document.querySelectorAll('#records tr').length === 1")
            assert page.problems == []

    asyncio.run(asyncio.wait_for(story(), STORY_S))


def test_an_edit_keeps_the_lease_and_overwrites_no_change_of_others(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            running(tmp_path / "cluster", 1) as cluster,
            browsing(tmp_path / "browser") as page,
            Client(cluster.endpoints) as client,
            client.lease(ttl_s=600) as lease,
        ):
            await client.put("leased", b"1", lease=lease)
            await page.open(f"{cluster.replicas['n1'].url}/ui")
            await click(page, "Edit", b"leased")
            await told(page, " is loaded")
            await page.value("document.getElementById('write').requestSubmit()")
            await told(page, " was set at revision ")
            record = await client.get("leased")
            assert record is not None
            assert (record.version, [each.key async for each in client.list() if each.lease]) == (2, [b"leased"])
            await client.put("leased", b"of another", lease=lease)
            await page.value("document.getElementById('write').requestSubmit()")
            await page.until("document.getElementById('told').className === 'bad'")
            record = await client.get("leased")
            assert record is not None
            assert record.value == b"of another"

    asyncio.run(asyncio.wait_for(story(), STORY_S))


@pytest.mark.parametrize("shares", [True, False])
def test_eight_tabs_are_alive_at_once(tmp_path: Path, *, shares: bool) -> None:
    """A browser makes six connections to one host. Without shared workers, only visible tabs have streams."""

    async def story() -> None:
        async with (
            running(tmp_path / "cluster", 1) as cluster,
            browsing(tmp_path / "browser") as first,
            AsyncExitStack() as stack,
        ):
            url = f"{cluster.replicas['n1'].url}/ui"
            tabs = [first, *[await stack.enter_async_context(opened_tab(tmp_path / "browser")) for _ in range(7)]]
            for tab in tabs:
                if not shares:
                    await tab.do("Page.enable")
                    await tab.do("Page.addScriptToEvaluateOnNewDocument", source=WITHOUT_WORKERS)
                await tab.open(url)
                await tab.until("document.getElementById('state')?.className === 'good'")
                if not shares:
                    await tab.value(HIDE)
            if not shares:
                for tab in tabs:
                    await tab.value(SHOW)
                    await a_glimpse(tab)
                    await tab.value(HIDE)
                return
            async with Client(cluster.endpoints) as client:
                for number, tab in enumerate(tabs):
                    await tab.value(f"document.getElementById('search').elements.prefix.value = 'p{min(number, 3)}'")
                    await tab.value("document.getElementById('watch').click()")
                    await told(tab, "Changes are shown" if number < 3 else "already watch three prefixes")
                for number in range(3):
                    await client.put(f"p{number}", b"new")
                    await tabs[number].until("document.querySelectorAll('#records tr').length === 1")
            for tab in tabs:
                await a_glimpse(tab)
                assert tab.problems == []

    asyncio.run(asyncio.wait_for(story(), STORY_S))


async def a_glimpse(tab: BrowserPage) -> None:
    """Wait until the tab has shown one more event of the replica."""
    await tab.value(
        "document.getElementById('messages').replaceChildren(); document.getElementById('sample').textContent = ''"
    )
    await tab.until("document.getElementById('sample').textContent")


def test_a_stream_that_is_refused_is_asked_for_again(tmp_path: Path) -> None:
    """A browser itself gives up a stream whose answer is an error."""

    async def story() -> None:
        async with running(tmp_path / "cluster", 2) as cluster, browsing(tmp_path / "browser") as page:
            await cluster.wait_ready()
            await opened_pair(page, cluster)
            cluster.kill("n2")
            await page.until("document.getElementById('state')?.className === 'bad'")
            await page.value("document.getElementById('watch').click()")
            assert await page.value("fetch('/kv/a').then((answer) => answer.status)") == 503  # and so was the watch
            cluster.start(["n2"])
            await told(page, "Changes are shown")

    asyncio.run(asyncio.wait_for(story(), STORY_S))


async def opened_pair(page: BrowserPage, cluster: ProcessCluster) -> None:
    await page.open(f"{cluster.replicas['n1'].url}/ui")
    await page.until("document.querySelectorAll('#members tr').length === 2")


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
