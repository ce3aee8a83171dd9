"""The shape of the tree: layers without a circle, short files and functions, one meaning for each class name."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from tests.test_imports import imported, modules

ROOT = Path(__file__).parent.parent
PRODUCT = ("bench", "kvstore", "paxos", "storage")
MAX_LEVELS = 9
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70
SAME_NAME: dict[str, str] = {}
"""Class names that are defined more than once, each with the reason."""


def room_of(module: str) -> str:
    """Return the direct child of kvstore/ that holds `module`."""
    return ".".join(module.split(".")[:2])


def rooms() -> dict[str, set[str]]:
    """Return, for each room of kvstore/, the other rooms that it imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, path in modules():
        if module.startswith("kvstore."):
            names = {room_of(name) for name in imported(ast.parse(path.read_text())) if name.startswith("kvstore.")}
            found[room_of(module)] |= names - {room_of(module), "kvstore.__version__"}
    return found


def levels(graph: dict[str, set[str]]) -> int:
    """Return the length of the longest chain of imports. Raises ValueError on a circle."""
    on_the_way: list[str] = []

    @cache
    def level(room: str) -> int:
        if room in on_the_way:
            raise ValueError(f"circle: {' -> '.join([*on_the_way, room])}")
        on_the_way.append(room)
        height = 1 + max((level(below) for below in graph.get(room, ())), default=0)
        on_the_way.pop()
        return height

    return max(map(level, graph), default=0)


def test_rooms_form_few_levels_without_a_circle() -> None:
    assert 1 < levels(rooms()) <= MAX_LEVELS


def test_a_circle_is_found() -> None:
    with pytest.raises(ValueError, match="circle: a -> b -> a"):
        levels({"a": {"b"}, "b": {"a"}})


def test_files_and_functions_are_short_or_say_why_not() -> None:
    """A file that is longer, or has a longer function, begins with a docstring that has a line `Long because ...`."""
    long: list[str] = []
    for _, path in modules():
        source = path.read_text()
        tree = ast.parse(source)
        if "\nLong because " in (ast.get_docstring(tree) or ""):
            continue
        if (lines := source.count("\n")) > MAX_FILE_LINES:
            long.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert long == []


def test_no_class_name_has_two_meanings() -> None:
    where: dict[str, list[str]] = defaultdict(list)
    for top in (*PRODUCT, "tests"):
        for path in sorted((ROOT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    where[node.name].append(str(path.relative_to(ROOT)))
    twice = {name: paths for name, paths in where.items() if len(paths) > 1}
    assert {name: paths for name, paths in twice.items() if name not in SAME_NAME} == {}
    assert SAME_NAME.keys() <= twice.keys(), "remove exceptions that no longer apply"
