"""docs/tour.md, line by line, and what README.md shows of Python."""

import asyncio
import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.testing import LocalCluster
from tests.cluster.harness import running

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "docs" / "tour.md").read_text()
README = (ROOT / "README.md").read_text()
NEEDED = ("bash", "curl", "jq", "timeout")


def examples() -> list[tuple[str, str]]:
    """Each command, and what it prints."""
    blocks = re.findall(r"```console\n(.*?)```", TOUR, re.DOTALL)
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(blocks), re.MULTILINE)
    assert len(commands) == TOUR.count("\n$ ")
    return commands


@pytest.mark.skipif(
    any(shutil.which(program) is None for program in NEEDED), reason=f"the tour needs {', '.join(NEEDED)}"
)
def test_every_line_of_the_tour_prints_what_it_says(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as cluster:
            await cluster.wait_ready()
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where `kvstore` is
            env = os.environ | {"PATH": path, "KVSTORE_ENDPOINTS": ",".join(cluster.endpoints)}
            for command, expected in examples():
                here = re.sub(r"http://127.0.0.1:800(\d)", lambda port: cluster.endpoints[int(port[1]) - 1], command)
                done = await asyncio.to_thread(
                    subprocess.run,
                    ["bash", "-c", here],
                    env=env,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=60,
                )
                assert done.stdout.removesuffix("\n") == expected.removesuffix("\n"), command

    asyncio.run(story())


def here(python: str, cluster: LocalCluster) -> str:
    """Clients of the usual ports are clients of this cluster."""
    assert "SyncClient()" in python
    return python.replace("SyncClient()", f"SyncClient({cluster.endpoints})")


def test_python_in_the_tour_prints_what_it_says() -> None:
    blocks = re.findall(r"```pycon\n(.*?)```", TOUR, re.DOTALL)
    with LocalCluster() as cluster:
        test = doctest.DocTestParser().get_doctest(here("\n".join(blocks), cluster), {}, "tour", None, 0)
        told: list[str] = []
        failed, tried = doctest.DocTestRunner().run(test, out=told.append)
    assert tried > 20
    assert not failed, "".join(told)


def test_python_in_the_readme_runs() -> None:
    client, test = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    with LocalCluster() as cluster:
        exec(here(client, cluster), {})
        record = cluster.client().get("version")
        assert record is not None
        assert record.value == b"2.0"
    names: dict[str, Callable[[], None]] = {}
    exec(test, names)
    names["test_it_survives_its_leader"]()
