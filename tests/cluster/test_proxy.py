"""A replica behind nginx: with its defaults, which speak HTTP/1.0 to the replica, and with the documented settings."""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from kvstore.api.json.documents import RecordDocument
from kvstore.api.limits import MAX_REVISION
from kvstore.client import Client
from kvstore.server.http.limits import HttpLimits
from kvstore.testing.machine import free_ports
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from tests.cluster.browser import FOUND, browsing
from tests.cluster.harness import STORY_S, running

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
DEFAULTS = "server { listen 127.0.0.1:8080; location / { proxy_pass http://127.0.0.1:8001; } }"
UPSTREAM = """
upstream kvstore { server 127.0.0.1:8001; server 127.0.0.1:8002; }
server { listen 127.0.0.1:8080; location / { proxy_pass http://kvstore; } }
"""
"""Settings with which nginx sends the name of the upstream as Host."""
FRAME = """
daemon off;
master_process off;
pid pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {server}
}}
"""

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(NGINX is None, reason="there is no nginx here: apt-get install nginx-light"),
]


def documented() -> str:
    """Return the settings of nginx in docs/operations.md."""
    found = re.search(r"```nginx\n(.*?)```", OPERATIONS.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


KEYS = (b"a/../b//c%2F", b"caf\xe9\n+", b"large")
SETTINGS = {"defaults": DEFAULTS, "upstream": UPSTREAM, "documented": documented()}
each = pytest.mark.parametrize("settings", SETTINGS)


@asynccontextmanager
async def proxied(directory: Path, cluster: ProcessCluster, settings: str) -> AsyncIterator[str]:
    """Run nginx in front of the replicas, and yield its address."""
    assert NGINX is not None
    (port,) = free_ports("127.0.0.1", 1)
    server = SETTINGS[settings].replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    for number, replica in enumerate(cluster.replicas.values(), 1):
        server = server.replace(f"127.0.0.1:800{number}", str(replica.listen))
    file = await asyncio.to_thread(written, directory, FRAME.format(server=server))
    process = await asyncio.create_subprocess_exec(NGINX, "-p", str(directory), "-c", str(file))
    address = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:
            while not await answers(session, address):
                assert process.returncode is None
                await asyncio.sleep(POLL_S)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


def written(directory: Path, settings: str) -> Path:
    directory.mkdir()
    file = directory / "nginx.conf"
    file.write_text(settings)
    return file


async def answers(session: aiohttp.ClientSession, address: str) -> bool:
    try:
        async with session.get(f"{address}/livez") as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def kvstore(address: str, *arguments: str, lines: int = MAX_REVISION) -> list[str]:
    """Run a command, and return its output; end it after so many lines."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kvstore",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"KVSTORE_ENDPOINTS": address},
        limit=4 * HttpLimits().max_value_bytes,
    )
    assert process.stdout is not None
    found: list[str] = []
    while len(found) < lines and (line := await process.stdout.readline()):
        found.append(line.decode().rstrip())
    if len(found) == lines:
        process.send_signal(signal.SIGINT)
    await process.communicate()
    return found


@each
def test_keys_streams_locks_and_backups_pass_through_nginx(tmp_path: Path, settings: str) -> None:
    async def story() -> None:
        async with (
            running(tmp_path / "c", public_names="kvstore") as cluster,
            proxied(tmp_path / "nginx", cluster, settings) as address,
        ):
            async with Client([address]) as client:
                large = os.urandom(HttpLimits().max_value_bytes)
                for key in KEYS:
                    await client.put(key, large if key == b"large" else b"of " + key)
                for key in KEYS:
                    record = await client.get(key)
                    assert record is not None
                    assert record.value == (large if key == b"large" else b"of " + key)
                async with client.lock("deploy", ttl_s=60):
                    waiting = asyncio.create_task(kvstore(address, "lock", "deploy", "--", "echo", "mine"))
                    await queued(address)
                assert await waiting == ["mine"]
            watched = await kvstore(address, "watch", "--from-revision", "1", "--json", lines=3)
            assert [msgspec.json.decode(line, type=RecordDocument).found.key for line in watched] == list(KEYS)
            await kvstore(address, "backup", str(tmp_path / "backup.db"))
            assert (tmp_path / "backup.db").exists()
            await a_whole_list(address)

    asyncio.run(asyncio.wait_for(story(), STORY_S))


async def queued(address: str) -> None:
    """Wait until somebody waits for the lock; then its holder may release it."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{address}/locks/deploy") as response:
                if (await response.json())["waiting"]:
                    return
            await asyncio.sleep(POLL_S)


async def a_whole_list(address: str) -> None:
    """An NDJSON list has its last line."""
    async with (
        aiohttp.ClientSession(headers={"Accept": "application/x-ndjson"}) as session,
        session.get(f"{address}/kv/?prefix=&keys_only=true") as response,
    ):
        *records, end = (await response.text()).splitlines()
        assert (len(records), msgspec.json.decode(end)["count"]) == (3, 3)


@pytest.mark.skipif(FOUND is None, reason="there is no Chromium here: apt-get install chromium")
@each
def test_the_page_is_alive_and_writes_through_nginx(tmp_path: Path, settings: str) -> None:
    async def story() -> None:
        async with (
            running(tmp_path / "c", public_names="kvstore") as cluster,
            proxied(tmp_path / "nginx", cluster, settings) as address,
            browsing(tmp_path / "browser") as page,
        ):
            await page.open(f"{address}/ui")
            await page.until("document.getElementById('state')?.className === 'good'")
            await page.value("document.getElementById('watch').click()")
            await page.until("document.getElementById('told').textContent.startsWith('Changes are shown')")
            await page.value(
                """(() => {
                  const form = document.getElementById("write");
                  form.elements.key.value = "color";
                  form.elements.value.value = "blue";
                  form.requestSubmit();
                })()"""
            )
            await page.until("document.querySelector('[data-key=\"%63%6F%6C%6F%72\"]')?.children[1].textContent")
            assert page.problems == []

    asyncio.run(asyncio.wait_for(story(), STORY_S))
