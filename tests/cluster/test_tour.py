"""docs/tour.md, line by line."""

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster.harness import running

pytestmark = pytest.mark.cluster

TOUR = (Path(__file__).parents[2] / "docs" / "tour.md").read_text()
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
            for command, expected in examples():
                here = re.sub(r"http://127.0.0.1:800(\d)", lambda port: cluster.endpoints[int(port[1]) - 1], command)
                done = await asyncio.to_thread(
                    subprocess.run, ["bash", "-c", here], capture_output=True, text=True, check=False, timeout=30
                )
                assert done.stdout.removesuffix("\n") == expected.removesuffix("\n"), command

    asyncio.run(story())
