"""The examples of README.md and docs/ run, and print what the pages show.

On every page but README.md a ```console block is run, a ```sh block is not. Each page has a new cluster.
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvstore.testing import LocalCluster

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
PAGES = sorted(path.name for path in DOCS.glob("*.md") if "```console" in path.read_text())
NEEDED = ("bash", "curl", "jq", "timeout")
needs_programs = pytest.mark.skipif(
    any(shutil.which(program) is None for program in NEEDED), reason=f"the examples need {', '.join(NEEDED)}"
)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def examples(block: str) -> list[tuple[str, str]]:
    """Each command of a console block, with its further lines after `> `, and what it prints."""
    found = re.findall(r"^\$ (.*\n(?:> .*\n)*)((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    assert len(found) == len(re.findall(r"^\$ ", block, re.MULTILINE))
    return [(command.replace("\n> ", "\n").strip(), output) for command, output in found]


def run(command: str, endpoints: list[str]) -> str:
    """The output of a command that means replica i of `endpoints` by port 8000 + i, the ports of `make cluster`."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where `kvstore` is
    env = os.environ | {"PATH": path, "KVSTORE_ENDPOINTS": ",".join(endpoints)}
    here = re.sub(r"http://127.0.0.1:800(\d)", lambda port: endpoints[int(port[1]) - 1], command)
    done = subprocess.run(["bash", "-c", here], env=env, capture_output=True, text=True, check=False)
    return done.stdout.removesuffix("\n")


def check(command: str, expected: str, endpoints: list[str]) -> None:
    """Assert that `command` prints what the page shows. One with a timeout is tried again with more time, which a busy
    machine may need."""
    printed = run(command, endpoints)
    if printed != expected and "timeout " in command:
        printed = run(re.sub(r"\btimeout (\d+)", r"timeout \g<1>0", command), endpoints)
    assert printed == expected, command


def with_leader(cluster: LocalCluster, place: int) -> Iterator[str]:
    """The names of the replicas, the leader at `place`."""
    leader = cluster.leader()
    others = [name for name in cluster.names if name != leader]
    yield from [*others[:place], leader, *others[place:]]


def test_there_are_examples() -> None:
    assert PAGES == ["api.md", "cli.md"]


@needs_programs
@pytest.mark.parametrize("page", PAGES)
def test_every_console_example_prints_what_the_page_shows(page: str) -> None:
    shown = examples("".join(blocks((DOCS / page).read_text(), "console")))
    with LocalCluster() as cluster:
        for command, expected in shown:
            check(command, expected.removesuffix("\n"), cluster.endpoints)


@needs_programs
def test_the_walk_of_the_readme_goes_as_shown() -> None:
    start, *walk = [block for block in blocks(README, "console") if "curl" in block or "process" in block]
    replicas = re.findall(r"^(n\d) .* process (\d+)(  leads)?$", start, re.MULTILINE)
    (place,) = [number for number, (_, _, leads) in enumerate(replicas) if leads]
    killed = []
    with LocalCluster(len(replicas)) as cluster:
        names = list(with_leader(cluster, place))
        process = {pid: name for (_, pid, _), name in zip(replicas, names, strict=True)}
        endpoints = [cluster.endpoint(name) for name in names]
        for command, expected in examples("".join(walk)):
            kill = re.fullmatch(r"kill -9 (\d+)", command)
            if kill:
                cluster.kill(process[kill[1]])
                killed.append(kill[1])
            else:
                check(command, expected.removesuffix("\n"), endpoints)
    assert len(killed) == 2


def of(python: str, cluster: LocalCluster) -> str:
    """`python`, with clients of this cluster where it has clients of the usual ports."""
    assert "SyncClient()" in python
    return python.replace("SyncClient()", f"SyncClient({cluster.endpoints})")


def test_the_python_session_prints_what_the_page_shows() -> None:
    session = "\n".join(blocks((DOCS / "client.md").read_text(), "pycon"))
    with LocalCluster() as cluster:
        test = doctest.DocTestParser().get_doctest(of(session, cluster), {}, "client.md", None, 0)
        told: list[str] = []
        failed, tried = doctest.DocTestRunner().run(test, out=told.append)
    assert tried > 20
    assert not failed, "".join(told)


def test_the_python_examples_run() -> None:
    connecting, client_page_test = blocks((DOCS / "client.md").read_text(), "python")
    client, readme_test = blocks(README, "python")
    compile(connecting, "client.md", "exec")
    with LocalCluster() as cluster:
        exec(of(client, cluster), {})
        record = cluster.client().get("version")
        assert record is not None
        assert record.value == b"2.0"
    for test in (client_page_test, readme_test):
        names: dict[str, Callable[[], None]] = {}
        exec(test, names)
        names["test_writes_survive_the_leader"]()
