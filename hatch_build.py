"""The build step of the wheel: the packages `paxos` and `storage` become `kvstore.paxos` and `kvstore.storage`.

A checkout has them at the top level. A wheel that installed these two common names would collide with other
distributions and with a user's own `storage.py`, see docs/decisions/0015-installed-packages.md. Only the names in
import statements change, so that line numbers in tracebacks are those of the checkout.
"""

import ast
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MOVED = ("paxos", "storage")
_FROM = re.compile(rf"from\s+(?=(?:{'|'.join(MOVED)})\b)".encode())


class PackageMapping(BuildHookInterface):  # type: ignore[type-arg]  # the base class is generic in an unused type
    """The build hook. hatchling calls it for the wheel, and for an editable installation, which is the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Prepare the files of the wheel."""
        self._directory = Path(tempfile.mkdtemp(prefix="kvstore-wheel-"))
        if version == "editable":
            return
        write_packages(Path(self.root), self._directory)
        build_data["force_include"][str(self._directory / "kvstore")] = "kvstore"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's signature
        """Remove the prepared files."""
        shutil.rmtree(self._directory)


def write_packages(root: Path, directory: Path) -> None:
    """Write the package `kvstore` of the checkout at `root` as it is installed, below `directory`."""
    for package in ("kvstore", *MOVED):
        for path in sorted((root / package).rglob("*")):
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            target = directory / installed_path(path.relative_to(root))
            target.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes()
            target.write_bytes(with_installed_imports(content) if path.suffix == ".py" else content)


def installed_path(path: Path) -> Path:
    """Return the path in the wheel for a `path` in the checkout."""
    return Path("kvstore") / path if path.parts[0] in MOVED else path


def with_installed_imports(source: bytes) -> bytes:
    """Return a module with the installed names in its imports. Raises ValueError for an import that cannot be moved."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(alias.name.partition(".")[0] in MOVED for alias in node.names):
            raise ValueError(f"line {node.lineno}: write `from ... import ...`, which the build can move below kvstore")
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] in MOVED:
            line, start = lines[node.lineno - 1], node.col_offset
            lines[node.lineno - 1] = line[:start] + _FROM.sub(b"from kvstore.", line[start:], count=1)
    return b"".join(lines)
