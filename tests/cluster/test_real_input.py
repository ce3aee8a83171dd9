"""The files of this repository, byte for byte."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster.harness import CallHistory, Ending, HttpClient, others, running

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
AT_ONCE = 16
GENERATED = {"__pycache__", "build", "data", "dist"}


def repository_files() -> dict[bytes, bytes]:
    """Path and content of every file: as git lists them, or all but what is generated where git is not there."""
    listing = None
    if shutil.which("git"):
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing is not None and listing.returncode == 0:
        paths = [ROOT / os.fsdecode(name) for name in listing.stdout.split(b"\0") if name]
    else:
        paths = [
            path
            for path in ROOT.rglob("*")
            if not any(part in GENERATED or part.startswith(".") for part in path.relative_to(ROOT).parts)
        ]
    return {os.fsencode(path.relative_to(ROOT)): path.read_bytes() for path in paths if path.is_file()}


def test_every_file_of_this_repository_comes_back_from_the_other_replicas(tmp_path: Path) -> None:
    files = repository_files()
    assert len(files) > 50
    assert any(content == b"" for content in files.values())

    async def story() -> None:
        at_once = asyncio.Semaphore(AT_ONCE)
        async with running(tmp_path) as cluster, HttpClient(cluster, CallHistory()) as client:
            writer = others(cluster, await cluster.wait_ready())[0]

            async def put(path: bytes, content: bytes) -> None:
                async with at_once:
                    call = await client.put(writer, path, content)
                assert call.ending is Ending.DONE, call.why

            async def compare(name: str, path: bytes, content: bytes) -> None:
                async with at_once:
                    call = await client.get(name, path)
                assert call.value == content, f"{path!r} from {name} after a PUT at {writer}: {call.why}"

            await asyncio.gather(*(put(*file) for file in files.items()))
            await asyncio.gather(*(compare(name, *file) for name in others(cluster, writer) for file in files.items()))

    asyncio.run(story())
