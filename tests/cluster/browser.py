"""A real browser without a window, by its DevTools protocol: what a person would see and do, and what it asked for."""

import asyncio
import base64
import itertools
import json
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOUND = next((path for path in map(shutil.which, PROGRAMS) if path is not None), None)
STARTS_S = 300.0
LOOK_S = 0.05


class BrowserPage:
    """One tab. `problems`: what stood on its console as an error, or was thrown; `asked`: every address that it asked
    for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.problems: list[str] = []
        self.asked: list[str] = []

    async def listen(self) -> None:
        """Take what the browser says, until it has gone."""
        async for frame in self._socket:
            said = json.loads(frame.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Network.requestWillBeSent":
                self.asked.append(said["params"]["request"]["url"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.problems.append(json.dumps(said["params"]["exceptionDetails"]))
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.problems.append(said["params"]["entry"]["text"])
            elif said["method"] == "Page.javascriptDialogOpening":
                await self._send(next(self._numbers), "Page.handleJavaScriptDialog", {"accept": True})

    async def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its result."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._send(number, method, params)
        said = await self._answers[number]
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    async def _send(self, number: int, method: str, params: dict[str, Any]) -> None:
        self._answers.setdefault(number, asyncio.get_running_loop().create_future())
        await self._socket.send_str(json.dumps({"id": number, "method": method, "params": params}))

    async def open(self, url: str) -> None:
        """Go there."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.do(f"{domain}.enable")
        await self.do("Page.navigate", url=url)

    async def value(self, script: str) -> Any:
        """Return the value of an expression; a promise is awaited."""
        result = await self.do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, script: str) -> Any:
        """Look until the expression is true, and give it. The test has a time limit of its own."""
        while True:
            found = await self.value(script)
            if found:
                return found
            await asyncio.sleep(LOOK_S)

    async def picture(self) -> bytes:
        """Return a screenshot of the whole page as PNG."""
        shot = await self.do("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def browsing(directory: Path, *, width: int = 1280, height: int = 1400) -> AsyncIterator[BrowserPage]:
    """A tab of a browser that has its profile in `directory`, and nothing to do with any other."""
    assert FOUND is not None
    process = await asyncio.create_subprocess_exec(
        FOUND,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--remote-debugging-port=0",
        f"--user-data-dir={directory}",
        f"--window-size={width},{height}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(STARTS_S):
            while _port(directory / "DevToolsActivePort") is None:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(LOOK_S)
        async with opened_tab(directory) as page:
            yield page
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


@asynccontextmanager
async def opened_tab(directory: Path) -> AsyncIterator[BrowserPage]:
    """Open one more tab of the browser whose profile is in `directory`."""
    address = f"http://127.0.0.1:{_port(directory / 'DevToolsActivePort')}/json/new"
    async with aiohttp.ClientSession() as session:
        async with session.put(address) as answer:
            tab = await answer.json(content_type=None)
        async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = BrowserPage(socket)
            listening = asyncio.create_task(page.listen())
            try:
                yield page
                await page.do("Page.close")
            finally:
                listening.cancel()


def _port(file: Path) -> int | None:
    lines = file.read_text().splitlines() if file.exists() else []
    return int(lines[0]) if lines else None
