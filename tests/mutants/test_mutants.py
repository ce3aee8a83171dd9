import ast
import re
from functools import cache
from pathlib import Path

import msgspec
import pytest

from tests.mutants import nets
from tests.mutants.catalogue import EVERY, MUTANTS
from tests.mutants.mutant import Mutant, Net
from tests.mutants.runner import MutantResult
from tests.mutants.table import row, table

ROOT = Path(__file__).parent.parent.parent
RULES = re.findall(
    r"^\*\*(\d+)\. (.*?)(?=^\*\*\d|^## |\Z)", (ROOT / "docs/rules.md").read_text(), re.MULTILINE | re.DOTALL
)


@cache
def dumped(source: str) -> str:
    return ast.dump(ast.parse(source))


def misfit(mutant: Mutant) -> str | None:
    """Return the reason why `mutant` cannot be planted, or None."""
    source = (ROOT / mutant.path).read_text()
    try:
        changes = ast.dump(ast.parse(mutant.patched(source))) != dumped(source)
    except (SyntaxError, ValueError) as error:
        return repr(error)
    if not changes:
        return "changes nothing"
    return None if mutant.nets and nets.casts(mutant, 1) else "no net for it"


def test_a_mutant_fits_the_code_and_still_is_a_program() -> None:
    assert {name: why for name, mutant in MUTANTS.items() if (why := misfit(mutant))} == {}


def test_there_are_enough_and_no_two_have_one_name() -> None:
    assert len(EVERY) == len(MUTANTS) >= 40


def test_every_rule_that_is_built_has_a_mutant_and_no_other() -> None:
    built = {int(number) for number, text in RULES if "\n- Kept: " in text}
    assert {rule for mutant in MUTANTS.values() for rule in mutant.rules} == built


def test_each_mutant_is_another_one() -> None:
    assert len({(mutant.symbol, mutant.before, mutant.after) for mutant in MUTANTS.values()}) == len(MUTANTS)


SOURCE = """\
class Acceptor:
    def accept(self, ballot: int) -> bool:
        if ballot < self.promised:
            self.reject(
                ballot,
            )
            return False
        return True

    def prepare(self, ballot: int) -> bool:
        return ballot < self.promised
"""


def planted(before: str, after: str, symbol: str = "paxos.acceptor.Acceptor.accept") -> str:
    return Mutant("m", (), "", symbol, before, after).patched(SOURCE)


def test_a_patch_is_found_within_its_symbol_whatever_the_layout() -> None:
    assert "if ballot > self.promised:" in planted("ballot < self.promised", "ballot > self.promised")
    assert "        pass\n        return True" in planted(
        "if ballot < self.promised:\n  self.reject(ballot)\n  return False", ""
    )
    assert "self.reject(\n                0,\n" in planted("reject(ballot", "reject(0".replace("(", "(\n    "))


@pytest.mark.parametrize(
    ("symbol", "before"),
    [
        ("paxos.acceptor.Acceptor.accept", "ballot <= self.promised"),
        ("paxos.acceptor.Acceptor", "ballot < self.promised"),
        ("paxos.acceptor.Acceptor.accepts", "ballot < self.promised"),
        ("nowhere.Acceptor", "ballot < self.promised"),
    ],
    ids=["absent", "twice", "no symbol", "no module"],
)
def test_a_stale_patch_is_an_error(symbol: str, before: str) -> None:
    with pytest.raises(ValueError, match="adapt it to the code"):
        planted(before, "", symbol)


def test_all_patches_follow_a_rename_by_script() -> None:
    """A script that replaces an identifier everywhere in the code and in the mutants leaves every patch fitting."""
    renamed = re.compile(r"\b(promised|ballot|slot|chosen|applied)\b")
    for mutant in MUTANTS.values():
        source = renamed.sub(r"\1_renamed", (ROOT / mutant.path).read_text())
        fields = {name: renamed.sub(r"\1_renamed", getattr(mutant, name)) for name in ("symbol", "before", "after")}
        assert msgspec.structs.replace(mutant, **fields).patched(source) != source


SOUND = nets.Cast(Net.UNIT, ("-c", "pass"))
ENDLESS = nets.Cast(Net.UNIT, ("-c", "import threading; threading.Event().wait()"))


def failing(*lines: str) -> nets.Cast:
    return nets.Cast(Net.UNIT, ("-c", f"print({chr(10).join(lines)!r}); raise SystemExit(1)"))


@pytest.mark.parametrize(
    ("cast", "by"),
    [
        (SOUND, ""),
        (failing("..F", "FAILED tests/a/test_b.py::test_c[1] - assert", "1 failed"), "test_c[1]"),
        (failing("seed 7: AssertionError two values"), "seed 7: AssertionError two values"),
        (failing("one slot, crashes    20,001   7  2.7  violation", "violated, or not reached"), "one slot, crashes"),
        (failing("    NOT REACHED: late releases. More", "violated, or not reached"), "NOT REACHED: late releases"),
        (failing("Traceback", "ImportError: no"), "ImportError: no"),
    ],
    ids=["sound", "test", "seed", "set-up", "goal", "anything else"],
)
def test_a_net_names_what_it_caught(cast: nets.Cast, by: str, tmp_path: Path) -> None:
    assert nets.run(cast, tmp_path, 60).by == by


def test_what_does_not_end_is_caught(tmp_path: Path) -> None:
    assert nets.run(ENDLESS, tmp_path, 0.2).by == "no end"


def test_the_table_says_what_caught_a_mutant_and_what_missed_it() -> None:
    everywhere = MUTANTS["lowest-ballot-adopted"]
    caught = MutantResult(
        everywhere,
        {
            Net.UNIT: nets.Catch("test_a[1-2]", 1.0),
            Net.SIMULATION: nets.Catch("seed 3: AssertionError two values", 2.0),
            Net.EXPLORATION: nets.Catch("", 1.0),
        },
    )
    survived = MutantResult(MUTANTS["fsync-off"], {Net.UNIT: nets.Catch("", 1.0)})
    assert (caught.caught, survived.caught) == (True, False)
    assert row(caught) == (everywhere.name, "10", "test_a", "seed 3", "missed", "4")
    assert row(survived) == ("fsync-off", "1", "missed", "-", "-", "1")
    assert list(table([caught, survived]).columns[0].cells) == ["fsync-off", everywhere.name]
