"""The Dockerfile and docker-compose.yml: they agree with each other, and the commands in them start a cluster."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from kvstore.client import Client
from kvstore.server.config import Settings
from kvstore.server.config_sources import load
from kvstore.testing.cluster_directory import LocalReplica
from kvstore.testing.process_cluster import ProcessCluster

ROOT = Path(__file__).parent.parent
NODES = ["n1", "n2", "n3"]


class ComposeService(NamedTuple):
    """Command, environment, port and volume of one service, from both files."""

    name: str
    command: list[str]
    environment: dict[str, str]
    published: str
    volume: str


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


def instructions() -> list[tuple[str, str]]:
    """Return (instruction, arguments) of each line of the Dockerfile, without comments, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def arguments_of(instruction: str) -> str:
    (arguments,) = [rest for word, rest in instructions() if word == instruction]
    return arguments


def image_environment() -> dict[str, str]:
    settings = [part.split("=", 1) for word, rest in instructions() if word == "ENV" for part in shlex.split(rest)]
    return dict(settings)


def services() -> Iterator[ComposeService]:
    """Yield each service with entry point and environment of the image, and defaults in place of variables."""
    entrypoint = json.loads(arguments_of("ENTRYPOINT"))
    for name, service in compose()["services"].items():
        own = {key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for key, value in service["environment"].items()}
        (port,), (volume,) = service["ports"], service["volumes"]
        yield ComposeService(name, entrypoint + service["command"], image_environment() | own, port, volume)


def as_process(service: ComposeService, place: LocalReplica, members: str) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of a service; only addresses and directory are those of this machine."""
    assert service.command[0] == "python"
    container = load_settings(service)
    mapped = {
        "KVSTORE_MEMBERS": members,
        "KVSTORE_LISTEN": str(place.listen),
        "KVSTORE_PEER_LISTEN": str(place.peers),
        "KVSTORE_DATA": str(place.data),
    }
    assert {name for name, address in container.members.items() if address.host == name} == set(NODES)
    return [sys.executable, *service.command[1:]], os.environ | service.environment | mapped


def load_settings(service: ComposeService) -> Settings:
    """Return the settings that the replica in the container uses."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in service.environment.items():
            patch.setenv(name, value)
        flags = service.command[service.command.index("serve") + 1 :]
        return load({flag.removeprefix("--"): value for flag, value in zip(flags[::2], flags[1::2], strict=True)}, None)


def test_three_replicas_listen_on_the_ports_of_the_curl_commands() -> None:
    assert [service.name for service in services()] == NODES
    assert [service.published for service in services()] == [f"127.0.0.1:{8000 + n}:8001" for n in (1, 2, 3)]
    text = (ROOT / "docker-compose.yml").read_text()
    assert "curl -X PUT --data-binary 'hello' http://127.0.0.1:8001/kv/greeting" in text
    assert "curl http://127.0.0.1:8003/kv/greeting" in text


def test_each_replica_has_valid_settings_and_the_same_members() -> None:
    settings = [load_settings(service) for service in services()]
    assert [one.node for one in settings] == NODES
    assert all(one.members == settings[0].members for one in settings)
    assert {str(one.members[one.node]) for one in settings} == {"n1:9001", "n2:9001", "n3:9001"}
    assert all(str(one.listen) == "0.0.0.0:8001" and str(one.peer_bind) == "0.0.0.0:9001" for one in settings)
    assert all(one.data == Path("/data") and one.warnings() == [] for one in settings)


def test_the_data_directory_is_a_named_volume() -> None:
    assert [service.volume for service in services()] == [f"{name}:/data" for name in NODES]
    assert sorted(compose()["volumes"]) == NODES
    assert arguments_of("VOLUME") == "/data"


def test_the_default_secret_says_that_it_is_for_development_and_can_be_replaced() -> None:
    for service in compose()["services"].values():
        assert service["environment"]["KVSTORE_SECRET"].startswith("${KVSTORE_SECRET:-for-development-only")


def test_the_health_check_asks_for_readiness_and_needs_only_python() -> None:
    in_image = json.loads(arguments_of("HEALTHCHECK").partition("CMD ")[2])
    for service in compose()["services"].values():
        assert service["healthcheck"]["test"] == ["CMD", *in_image]
    assert in_image[:2] == ["python", "-c"]
    assert "http://127.0.0.1:8001/readyz" in in_image[2]
    compile(in_image[2], "healthcheck", "exec")


def test_the_image_runs_without_root_on_a_supported_python_with_locked_dependencies() -> None:
    assert arguments_of("FROM") == "python:3.12-slim"
    words = [word for word, _ in instructions()]
    assert arguments_of("USER") == "kvstore"
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert any("--require-hashes -r requirements-serve.lock" in rest for word, rest in instructions() if word == "RUN")


def test_the_copied_files_exist_and_are_not_ignored() -> None:
    copied = [rest.split()[0] for word, rest in instructions() if word == "COPY"]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.cluster
def test_the_commands_and_environments_of_the_services_start_a_cluster(tmp_path: Path) -> None:
    """Host names and ports of the containers become loopback addresses, volumes become directories."""
    places = ProcessCluster(3, tmp_path).replicas
    members = ",".join(f"{name}={place.peers}" for name, place in places.items())
    urls = [place.url for place in places.values()]
    health = compose()["services"]["n1"]["healthcheck"]["test"][1:]

    async def use() -> None:
        async with Client(urls, timeout_ms=30_000) as client:  # retries until they serve
            await client.put("greeting", b"hello")
        for url in urls:
            async with Client([url], timeout_ms=30_000) as one:
                record = await one.get("greeting")
                assert record is not None
                assert record.value == b"hello"

    processes = []
    try:
        for service in services():
            command, environment = as_process(service, places[service.name], members)
            processes.append(subprocess.Popen(command, env=environment, cwd=ROOT))
        asyncio.run(use())
        for place in places.values():
            script = health[2].replace("http://127.0.0.1:8001", place.url)
            subprocess.run([sys.executable, *health[1:2], script], check=True)
    finally:
        for process in processes:
            process.terminate()
        codes = [process.wait() for process in processes]
    assert codes == [0, 0, 0]
