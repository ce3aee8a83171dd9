"""A replica is as its /openapi.json says, and the examples on its /docs run."""

import asyncio
import html
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.cluster.harness import running

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "tests" / "cluster" / "schemathesis.toml"
SCHEMATHESIS_S = 540.0
"""Timeout of schemathesis, which takes 40 s on two quiet cores."""
LEAST_CASES = 1500


async def described(endpoint: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{endpoint}/openapi.json") as response:
        document: dict[str, Any] = await response.json()
        return document


@pytest.mark.slow
def test_schemathesis_finds_nothing_that_is_not_described(tmp_path: Path) -> None:
    """A failure prints a curl command for each wrong response. Describe the response in kvstore/server/http/openapi, or
    correct the server."""

    async def story() -> None:
        async with running(tmp_path, nodes=1, story_s=SCHEMATHESIS_S + 20) as cluster:
            (endpoint,) = cluster.endpoints
            report = tmp_path / "report.json"
            program = f"{sys.executable} -m schemathesis.cli --config-file {CONFIG} run {endpoint}/openapi.json"
            done = await asyncio.to_thread(
                subprocess.run,
                [*program.split(), "--report", "json", "--report-json-path", str(report)],
                capture_output=True,
                text=True,
                check=False,
                timeout=SCHEMATHESIS_S,
                cwd=ROOT,  # where its hooks are found
            )
            assert done.returncode == 0, done.stdout + done.stderr
            found = json.loads(report.read_text())
            assert found["test_cases"]["generated"] >= LEAST_CASES
            operations = sum(map(len, (await described(endpoint))["paths"].values()))
            assert found["operations"]["tested"] == operations - 1, "all but the GET of the file itself"

    asyncio.run(story())


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples need curl")
def test_every_example_is_answered_as_it_is_described(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, nodes=1) as cluster:
            (endpoint,) = cluster.endpoints
            document = await described(endpoint)
            async with aiohttp.ClientSession() as session, session.get(f"{endpoint}/docs") as response:
                page = html.unescape(await response.text())
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    example = operation["x-codeSamples"][0]["source"]
                    assert method == "head" or example in page, path
                    status = await asyncio.to_thread(
                        tried, example.replace("http://127.0.0.1:8001", endpoint), tmp_path
                    )
                    assert str(status) in operation["responses"], f"{example}: {status}"
                    assert status not in (400, 405, 500), f"{example}: {status}"

    asyncio.run(story())


def tried(example: str, directory: Path) -> int:
    """Return the status of the answer. A stream that never ends is cut off. Files are stored in `directory`."""
    command = ["bash", "-c", f"exec {example} --silent --dump-header /dev/stderr"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=directory
    ) as process:
        assert process.stderr is not None
        statuses = (int(line.split()[1]) for line in process.stderr if line.startswith("HTTP/"))
        final = next((status for status in statuses if status != 100), 0)
        process.kill()
    return final
