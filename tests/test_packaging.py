"""The wheel, the lock files, the Makefile, and what documents and messages say about installation."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kvstore import __version__
from kvstore.testing.machine import free_ports

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PACKAGES = ["kvstore", "paxos", "storage"]
MOVED = ["paxos", "storage"]
"""The top-level packages of a checkout that are installed below `kvstore`."""
LOCKS = {"requirements.lock": "dev", "requirements-build.lock": "build", "requirements-docs.lock": "docs"}
"""Lock files and the dependency group that each holds. `requirements-serve.lock` holds none."""


def requirements(group: str) -> list[Requirement]:
    """Return the requirements of a dependency group, those of included groups too."""
    found: list[Requirement] = []
    for entry in PYPROJECT["dependency-groups"][group]:
        found += [Requirement(entry)] if isinstance(entry, str) else requirements(entry["include-group"])
    return found


def pins(lock: str) -> set[tuple[str, str]]:
    """Return (name, version) of each locked package; one package may have several versions, for different Pythons."""
    return set(re.findall(r"^([a-z][\w.-]*)(?:\[[\w,-]+\])?==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE))


def names(lock: str) -> set[str]:
    """Return the names of the locked packages."""
    return {canonicalize_name(name) for name, _ in pins(lock)}


def build(target: str, root: Path, directory: Path) -> Path:
    """Build with the installed hatchling, and return the file."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(directory)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (path,) = directory.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(wheel_file)


@pytest.fixture(scope="module")
def unpacked(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the contents of the wheel."""
    directory = tmp_path_factory.mktemp("unpacked")
    wheel.extractall(directory)
    return directory


def in_wheel(unpacked: Path, script: str) -> str:
    """Run a script that can import the wheel and installed packages, but nothing from this checkout."""
    path = f"import sys; sys.path[:] = [{str(unpacked)!r}] + [each for each in sys.path if each != {str(ROOT)!r}]\n"
    command = [sys.executable, "-I", "-c", path + script]
    done = subprocess.run(command, cwd=unpacked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_three_packages_below_kvstore(wheel: zipfile.ZipFile) -> None:
    expected = {
        ("kvstore/" if package in MOVED else "") + str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert {name.partition("/")[0] for name in found} == {"kvstore"}
    assert "kvstore/py.typed" in found
    assert any(name.endswith(".js") for name in found)


def test_only_the_imports_of_a_module_change_and_each_keeps_its_line(wheel: zipfile.ZipFile) -> None:
    """So the lines of a traceback are those of the checkout."""
    for name in wheel.namelist():
        if name.endswith(".py"):
            path = name.removeprefix("kvstore/") if name.split("/")[1] in MOVED else name
            before, after = (ROOT / path).read_text().splitlines(), wheel.read(name).decode().splitlines()
            assert len(before) == len(after)
            changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
            moved = [re.sub(r"^( *from )(paxos|storage)\b", r"\1kvstore.\2", line) for line, _ in changed]
            assert moved == [line for _, line in changed], name


@pytest.mark.parametrize("source", ["import storage\n", "import paxos.types as types\n"])
def test_the_build_refuses_an_import_that_it_cannot_move(tmp_path: Path, source: str) -> None:
    for path in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "kvstore/__init__.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    (tmp_path / "kvstore" / "module.py").write_text(source)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        build("wheel", tmp_path, tmp_path / "dist")
    assert b"write `from ... import ...`" in failed.value.stderr + failed.value.stdout


def test_a_wheel_from_the_source_distribution_is_the_same(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    with zipfile.ZipFile(build("wheel", source, tmp_path / "wheel")) as other:
        assert {name: other.read(name) for name in other.namelist()} == {
            name: wheel.read(name) for name in wheel.namelist()
        }


def test_the_wheel_is_named_as_in_pyproject(wheel: zipfile.ZipFile) -> None:
    (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(path).decode())
    assert metadata["Name"] == PROJECT["name"] == "paxos-kvstore"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_wheel_has_the_command_and_the_pytest_plugin(wheel: zipfile.ZipFile) -> None:
    (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    entry_points = wheel.read(path).decode()
    assert "[console_scripts]\nkvstore = kvstore.cli:main\n" in entry_points
    assert "[pytest11]\nkvstore = kvstore.testing.pytest_plugin\n" in entry_points


def test_the_command_runs_from_the_wheel_alone(unpacked: Path) -> None:
    run = "import runpy; sys.argv = ['kvstore', '--version']; runpy.run_module('kvstore', run_name='__main__')"
    assert in_wheel(unpacked, run) == f"kvstore {__version__}\n"


IMPORT_ALL = """
sys.modules["numpy"] = None  # orjson imports numpy where it is installed
import importlib, importlib.metadata, pkgutil
for module in pkgutil.walk_packages([f"{sys.path[0]}/kvstore"], "kvstore."):
    if not module.name.endswith((".__main__", ".pytest_plugin")):  # pytest itself loads the plugin
        importlib.import_module(module.name)
assert not {"paxos", "storage"} & sys.modules.keys()
loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
for module, names in importlib.metadata.packages_distributions().items():
    if module in loaded:
        print(*names, sep="\\n")
"""


def test_the_modules_of_the_wheel_import_only_what_a_replica_is_installed_with(unpacked: Path) -> None:
    imported = {canonicalize_name(name) for name in in_wheel(unpacked, IMPORT_ALL).split()}
    assert {"aiohttp", "msgspec"} <= imported
    assert imported - {"setuptools"} <= {PROJECT["name"], *names("requirements-serve.lock")}


@pytest.fixture
def beside(wheel_file: Path, tmp_path: Path) -> Path:
    """A folder of a user with a `storage.py` and a `paxos.py`, and with the environment `venv`, which has the wheel."""
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*command, str(wheel_file)], check=True)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name in MOVED:
        (tmp_path / f"{name}.py").write_text(f"MINE = 'the {name} of the user'\n")
    return tmp_path


def run_beside(folder: Path, *command: str) -> str:
    """Run a program of the environment in the user's folder, and return its output."""
    program = [str(folder / "venv" / "bin" / command[0]), *command[1:]]
    done = subprocess.run(program, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KVSTORE"))}


USER = """
import os
import paxos, storage
import kvstore.client
from kvstore.testing import LocalCluster

if __name__ == "__main__":
    assert (paxos.MINE, storage.MINE) == ("the paxos of the user", "the storage of the user")
    assert kvstore.client.__file__.startswith(os.path.abspath("venv")), kvstore.client.__file__
    with LocalCluster(3) as cluster:
        client = cluster.client()
        client.put("greeting", b"hello")
        print(client.get("greeting").value.decode())
"""


@pytest.mark.cluster
def test_the_installed_package_works_beside_modules_of_the_same_names(beside: Path) -> None:
    (beside / "program.py").write_text(USER)
    assert run_beside(beside, "python", "program.py") == "hello\n"
    for command in (["kvstore"], ["python", "-m", "kvstore"]):
        assert run_beside(beside, *command, "--version") == f"kvstore {__version__}\n"
    assert "Phase 1" in run_beside(beside, "python", "-m", "kvstore.paxos.lecture", "basic")


@pytest.mark.cluster
def test_the_installed_command_runs_a_cluster_beside_modules_of_the_same_names(beside: Path) -> None:
    ports = free_ports("127.0.0.1", 2)
    options = ["--nodes", "1", "--port", str(ports[0]), "--peer-port", str(ports[1])]
    program = str(beside / "venv" / "bin" / "kvstore")
    endpoints = ["--endpoints", f"http://127.0.0.1:{ports[0]}"]
    with subprocess.Popen(
        [program, "cluster", *options], cwd=beside, env=clean_environment(), stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdout is not None
        try:
            assert any("leads" in line for line in cluster.stdout)
            run_beside(beside, "kvstore", "put", "greeting", "hello", *endpoints)
            assert run_beside(beside, "kvstore", "get", "greeting", *endpoints) == "hello"
        finally:
            cluster.send_signal(signal.SIGINT)
            cluster.stdout.read()


@pytest.mark.parametrize("lock", ["requirements-serve.lock", *LOCKS])
def test_a_lock_file_satisfies_pyproject(lock: str) -> None:
    """When it fails: run `make lock`."""
    wanted = requirements(LOCKS[lock]) if lock in LOCKS else []
    if lock in {"requirements.lock", "requirements-serve.lock"}:
        wanted += [Requirement(each) for each in PROJECT["dependencies"]]
    assert wanted
    for requirement in wanted:
        locked = {
            version for name, version in pins(lock) if canonicalize_name(name) == canonicalize_name(requirement.name)
        }
        assert locked, requirement
        assert all(map(requirement.specifier.contains, locked)), requirement


@pytest.mark.parametrize("lock", ["requirements-serve.lock", *LOCKS])
def test_every_locked_package_has_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    packages = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    assert len(packages) == len(pins(lock))
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in text


def test_the_lock_files_agree_and_development_has_all_that_the_server_and_the_build_need() -> None:
    everything = pins("requirements.lock")
    assert pins("requirements-serve.lock") < everything
    assert pins("requirements-build.lock") < everything
    shared = names("requirements-docs.lock") & names("requirements.lock")
    assert {pin for pin in pins("requirements-docs.lock") if canonicalize_name(pin[0]) in shared} < everything


TEXTS = [
    path
    for folder in ("", "bench/", "docs/", "kvstore/", "paxos/", "storage/", "tests/")
    for path in ROOT.glob(f"{folder}**/*" if folder else "*")
    if path.suffix in {".py", ".md", ".html", ".js", ".toml", ".yml"} or path.name in {"Makefile", "Dockerfile"}
]
INSTALLATION = re.compile(r"\bpip3? install +([^`'\"\n;,()]*)")
ALLOWED = {
    ".",
    "uv",
    PROJECT["name"],
    *(requirement.name for group in PYPROJECT["dependency-groups"] for requirement in requirements(group)),
}


def installed_by(text: str) -> set[str]:
    """Return the packages that the `pip install` commands in a text name."""
    found = set()
    for words in INSTALLATION.findall(text):
        options = re.sub(r"(?:^| )(?:--group|--requirement|-r|--constraint|-c) +\S+", "", words)
        found |= {word for word in options.split() if not word.startswith("-")}
    return found


def test_installation_commands_are_read_as_pip_reads_them() -> None:
    command = "pip " + "install --require-hashes -r a.lock --group bench one two[extra]`, then"
    assert installed_by(command) == {"one", "two[extra]"}


def test_no_text_tells_to_install_a_package_of_somebody_else() -> None:
    """`kvstore` on PyPI is another project."""
    wrong = {str(path.relative_to(ROOT)): installed_by(path.read_text()) - ALLOWED for path in TEXTS}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_the_readme_names_the_distribution() -> None:
    assert f"`{PROJECT['name']}`" in (ROOT / "README.md").read_text()


def test_make_lists_every_target() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    (phony,) = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  ([a-z-]+)  *\S", done.stdout, re.MULTILINE) == phony.split()


def test_a_test_that_sends_sigint_works_where_a_shell_has_it_ignored() -> None:
    """As in `make test &` from a script: tests.conftest restores what children inherit."""
    script = "import signal, tests.conftest; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, preexec_fn=ignore, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
