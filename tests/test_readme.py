"""README.md and docs/: links, names and tables agree with the code. tests/cluster/test_tour.py runs their examples."""

import inspect
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import typer.main
import yaml

import bench.__main__
import kvstore.cli
import tests.torture.__main__
from kvstore.client import Client
from kvstore.server.config import ENV_PREFIX, Settings
from kvstore.server.config_sources import flag_of, settings_table
from kvstore.server.http import problems
from kvstore.server.http.openapi.document import openapi
from kvstore.server.metrics import CounterSnapshot, Metrics
from kvstore.testing import AsyncLocalCluster, LocalCluster

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
README = (ROOT / "README.md").read_text()
MAX_WORDS = 1500

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"`((?:\.ci|bench|docs|kvstore|paxos|storage|tests)/[\w./-]*)`")
PAGE_IN_CODE = re.compile(r"\bdocs/[\w/-]+\.(?:md|png)")
COMMON_OPTIONS = {"--endpoints", "--json", "--help"}


def page(name: str) -> str:
    return (DOCS / name).read_text()


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """The anchors of a page, as GitHub and MkDocs both make them from its headings."""
    headings = HEADING.findall(CODE_BLOCK.sub("", path.read_text()))
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def code_in(text: str) -> str:
    """The code blocks of a page, and each piece of code in its text on a line of its own."""
    blocks = CODE_BLOCK.findall(text)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", CODE_BLOCK.sub("", text))])


def commands() -> Iterator[tuple[str, set[str]]]:
    """Each command of `kvstore` as it is typed, and its options."""
    for name in kvstore.cli.COMMANDS:
        command = kvstore.cli.load_command(name)
        below = command.commands if isinstance(command, typer.core.TyperGroup) else {"": command}
        for sub_name, sub_command in below.items():
            options = {option for each in sub_command.params for option in each.opts if option.startswith("--")}
            yield f"kvstore {name} {sub_name}".strip(), options


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= MAX_WORDS


def test_nothing_is_listed_twice() -> None:
    """A merge of two branches may list a bug or a change twice."""
    symptoms = [line.split(" | ")[0] for line in page("bugs.md").splitlines() if re.match(r"\| (?!symptom)|## ", line)]
    changes = [line[:40] for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("- ")]
    for lines in (symptoms, changes):
        assert [line for line in lines if lines.count(line) > 1] == []


def test_every_bug_has_a_test() -> None:
    rows = [line for line in page("bugs.md").splitlines() if line.startswith("| ") and not line.startswith("| symptom")]
    assert rows
    for row in rows:
        tests = row.removesuffix(" |").rpartition(" | ")[2]
        for test in re.findall("`(.*?)`", tests) or [tests]:
            below = ROOT if test.startswith("tests/") else ROOT / "tests" / "unit"
            assert "seed" in test or (below / test).is_file(), row


def test_the_settings_table_is_what_the_code_prints() -> None:
    """To update: python -c "from kvstore.server.config_sources import settings_table; print(settings_table())"."""
    assert settings_table().strip() in page("configuration.md")


def broken_links(path: Path) -> Iterator[str]:
    for link in LINK.findall(CODE_BLOCK.sub("", path.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            yield link


def test_every_link_and_anchor_leads_somewhere() -> None:
    assert [(name_of(path), link) for path in PAGES for link in broken_links(path)] == []


def test_every_file_that_a_page_names_exists() -> None:
    folders = (ROOT, ROOT / "tests" / "unit")
    named = [(name_of(path), file) for path in PAGES for file in PATH.findall(path.read_text())]
    assert named
    assert [each for each in named if not any((folder / each[1]).exists() for folder in folders)] == []


def unknown_commands(text: str) -> Iterator[str]:
    code = code_in(text)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    yield from set(re.findall(r"^(?:\$ )?make ([a-z-]+)", code, re.MULTILINE)) - targets
    known = {command.split()[1] for command, _ in commands()}
    yield from set(re.findall(r"^(?:\$ )?kvstore ([a-z]+)", code, re.MULTILINE)) - known
    tools = {"bench": bench.__main__.app, "tests.torture": tests.torture.__main__.app}
    for module, command in re.findall(r"python -m ([a-z_.]+)(?: ([a-z]+))?", code):
        if find_spec(module) is None:
            yield module
        elif module in tools and command and command not in typer.main.get_group(tools[module]).commands:
            yield f"{module} {command}"


def test_every_command_that_a_page_names_exists() -> None:
    assert [(name_of(path), each) for path in PAGES for each in unknown_commands(path.read_text())] == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert site["theme"]["font"] is False  # else every page would ask a font server

    def files(part: object) -> Iterator[str]:
        if isinstance(part, str):
            yield part
        elif isinstance(part, list | dict):
            for each in part.values() if isinstance(part, dict) else part:
                yield from files(each)

    assert sorted(files(site["nav"])) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_the_command_line_page_has_every_command_and_option_and_no_other() -> None:
    text = page("cli.md")
    known = set(COMMON_OPTIONS)
    settings = {flag_of(name) for name in Settings.model_fields}
    for command, options in commands():
        assert command in text, command
        known |= options
        if command != "kvstore serve":
            assert all(f"`{option}" in text or f" {option}" in text for option in options - COMMON_OPTIONS), command
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert named <= known | settings | {"--install-completion", "--version"}
    assert f"{ENV_PREFIX}ENDPOINTS" in text


def test_the_api_page_has_every_call_and_every_problem() -> None:
    text = page("api.md")
    for path in openapi()["paths"]:
        assert path in text or path == "/ui/{file}", path
    kinds = [kind for kind in vars(problems).values() if isinstance(kind, problems.ProblemKind)]
    table = dict(re.findall(r"^\| (\d{3}) \| (.*?) \|", text, re.MULTILINE))
    for kind in kinds:
        assert f"`{kind.name}`" in table[str(kind.status)], kind.name
    assert len(re.findall(r"`[a-z-]+`", " ".join(table.values()))) == len(kinds)


def test_the_python_page_has_every_method() -> None:
    text = page("client.md")
    missing = {name for name in public(Client) - {"ask", "members_at"} if not re.search(rf"`{name}\b", text)}
    assert not missing
    both = public(LocalCluster) & public(AsyncLocalCluster) - {"cluster", "portal"}
    assert not {name for name in both if not re.search(rf"\b{name}\b", text)}


def test_the_operations_page_has_every_metric() -> None:
    metrics = Metrics()
    metrics.watch(
        lambda: CounterSnapshot(
            messages={},
            reads={},
            chosen=0,
            applied=0,
            leader_changes=0,
            is_leader=False,
            data_bytes=0,
            queues={},
            dropped_frames=0,
            dropped_log_lines=0,
        )
    )
    families = set(re.findall(r"^# TYPE (kvstore_\w+)", metrics.render().decode(), re.MULTILINE))
    families = {family for family in families if not family.endswith("_created")}
    named = set(re.findall(r"`(kvstore_\w+)`", page("operations.md")))
    assert named == families
