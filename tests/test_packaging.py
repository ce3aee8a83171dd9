"""The wheel, the lock files, the Makefile, and what documents and messages say about installation."""

import re
import signal
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kvstore import __version__

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PACKAGES = ["kvstore", "paxos", "storage"]
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built with the installed hatchling."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = directory.glob("*.whl")
    return zipfile.ZipFile(path)


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


def test_the_wheel_holds_every_file_of_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert {"kvstore/py.typed", "paxos/py.typed", "storage/py.typed"} <= found
    assert any(name.endswith(".js") for name in found)


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
import importlib, importlib.metadata, pkgutil
for package in ("kvstore", "paxos", "storage"):
    for module in pkgutil.walk_packages([f"{sys.path[0]}/{package}"], package + "."):
        if not module.name.endswith((".__main__", ".pytest_plugin")):  # pytest itself loads the plugin
            importlib.import_module(module.name)
loaded = {name.partition(".")[0] for name in sys.modules}
for module, names in importlib.metadata.packages_distributions().items():
    if module in loaded:
        print(*names, sep="\\n")
"""


def test_the_modules_of_the_wheel_import_only_what_a_replica_is_installed_with(unpacked: Path) -> None:
    imported = {canonicalize_name(name) for name in in_wheel(unpacked, IMPORT_ALL).split()}
    assert {"aiohttp", "msgspec"} <= imported
    assert imported - {"setuptools"} <= {PROJECT["name"], *names("requirements-serve.lock")}


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
