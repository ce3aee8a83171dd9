"""`docs/rules.md` tells where each rule is kept and which tests show it. This keeps it true."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "rules.md").read_text()
ONE_RULE = re.compile(r"^\*\*(\d+)\. (.*?)(?=^\*\*\d|^## |\Z)", re.MULTILINE | re.DOTALL)
RULES = {int(number): text for number, text in ONE_RULE.findall(DOCUMENT)}
REFERENCES = sorted({tuple(one.split(": ")) for one in re.findall(r"`([a-z_/0-9]+\.py(?:: [\w.]+)?)`", DOCUMENT)})
CODE = [path for room in ("bench", "kvstore", "paxos", "storage", "tests") for path in (ROOT / room).rglob("*.py")]
MENTION = re.compile(r"\brules? +((?:\d+(?:, | and | to )?)+)|\btest_rule_(\d+)_", re.IGNORECASE)


def definitions(path: Path) -> set[str]:
    """`name` and `Class.name` of all that is defined in a module and its classes."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            members = (ast.FunctionDef, ast.AsyncFunctionDef)
            names |= {f"{node.name}.{member.name}" for member in node.body if isinstance(member, members)}
    return names


def test_the_rules_are_numbered_in_order() -> None:
    assert re.findall(r"^\*\*(\d+)\. ", DOCUMENT, re.MULTILINE) == [str(number) for number in range(1, 32)]


def test_every_place_and_test_that_is_named_exists() -> None:
    paths = {path for path, *_ in REFERENCES}
    defined = {path: definitions(ROOT / path) for path in paths if (ROOT / path).is_file()}
    missing = [": ".join(place) for place in REFERENCES if not set(place[1:]) <= defined.get(place[0], set())]
    missing += sorted(paths - defined.keys())
    assert len(REFERENCES) > 100
    assert missing == []


def test_every_rule_is_kept_somewhere_and_shown_by_a_test_or_is_not_built_yet() -> None:
    wrong = []
    for number, text in RULES.items():
        kept = re.search(r"^- Kept: `", text, re.MULTILINE)
        shown = re.search(r"^- Shown: `tests/", text, re.MULTILINE)
        if not ((kept and shown) or (not kept and not shown and "Not built yet" in text)):
            wrong.append(number)
    assert wrong == []


def test_a_test_that_names_a_rule_is_listed_under_that_rule() -> None:
    wrong = [
        f"rule {number} lists test_rule_{other}_..."
        for number, text in RULES.items()
        for other in re.findall(r"test_rule_(\d+)_", text)
        if int(other) != number
    ]
    assert wrong == []


def test_every_rule_that_code_refers_to_exists() -> None:
    mentioned = {
        (int(number), str(path.relative_to(ROOT)))
        for path in CODE
        for several, one in MENTION.findall(path.read_text())
        for number in re.findall(r"\d+", several or one)
    }
    assert len(mentioned) > 50
    assert [each for each in sorted(mentioned) if each[0] not in RULES] == []
