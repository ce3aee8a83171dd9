"""`python -m tests.cluster.picture`: docs/page.png, the page of a leader under some load."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from kvstore.client import Client
from tests.cluster.browser import browsing
from tests.cluster.harness import running

PICTURE = Path(__file__).parents[2] / "docs" / "page.png"
STEPS = 400
KEYS = 12


async def take(directory: Path) -> bytes:
    """The picture, as PNG."""
    async with running(directory / "cluster") as cluster, browsing(directory / "browser") as page:
        leader = cluster.replicas[await cluster.wait_ready()].url
        await page.open(f"{leader}/ui")
        async with Client([leader]) as client:
            for number in range(STEPS):
                await client.put(f"job/{number % KEYS}", b"step %d of the job" % number)
                await client.get(f"job/{number % KEYS}")
                await asyncio.sleep(0.01)
        await page.value("document.getElementById('search').requestSubmit()")
        await page.until(f"document.querySelectorAll('#records tr').length === {KEYS}")
        return await page.picture()


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        PICTURE.write_bytes(asyncio.run(take(Path(scratch))))
