from pathlib import Path

import pytest

from tests.mutants import nets
from tests.mutants.catalogue import EVERY, MUTANTS
from tests.mutants.mutant import Net
from tests.mutants.runner import MutantResult
from tests.mutants.score import Results, score
from tests.mutants.sight import NAMES, blindness

VISIBLE, MISSED, BLIND = "lowest-ballot-adopted", "restored-state-given-up-for-a-snapshot", "fsync-off"


def result(name: str, **caught: str) -> MutantResult:
    return MutantResult(MUTANTS[name], {Net(net): nets.Catch(by, 1.0) for net, by in caught.items()})


def test_a_reason_is_given_for_mutants_that_exist_and_for_none_that_the_simulation_is_to_find() -> None:
    assert NAMES.keys() <= MUTANTS.keys()
    assert [mutant.name for mutant in EVERY if Net.SIMULATION in mutant.nets and blindness(mutant)] == []


@pytest.mark.parametrize(
    ("name", "only", "expected"),
    [
        (VISIBLE, "simulation exploration", ["simulation", "exploration"]),
        (VISIBLE, "unit", ["unit"]),
        (MISSED, "simulation exploration", ["simulation"]),
        (MISSED, "", ["unit"]),
        (BLIND, "simulation exploration", []),
        (BLIND, "", ["unit"]),
    ],
)
def test_some_nets_alone_are_cast_also_for_mutants_that_another_is_there_for(
    name: str, only: str, expected: list[str]
) -> None:
    casts = nets.casts(MUTANTS[name], 1, frozenset(map(Net, only.split())))
    assert [cast.net for cast in casts] == expected


def test_results_stay_in_their_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert MUTANTS[VISIBLE] not in Results(path)
    Results(path).add(result(VISIBLE, simulation="", exploration="one slot"))
    again = Results(path)
    again.add(result(MISSED, simulation=""))
    assert again.of(EVERY) == Results(path).of(EVERY)
    assert {known.mutant.name: known.caught for known in again.of(EVERY)} == {VISIBLE: True, MISSED: False}


def test_the_score_counts_each_rule_and_what_cannot_be_seen() -> None:
    chosen = [MUTANTS[name] for name in (VISIBLE, MISSED, BLIND)]
    table = score(chosen, [result(VISIBLE, simulation="seed 1"), result(MISSED, simulation="")])
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows == [
        ("1", "0", "0", "", "1"),
        ("10", "1", "1", "", ""),
        ("31", "0", "1", MISSED, ""),
        ("none", "0", "0", "", ""),
        ("all", "1", "2", MISSED, "1"),
    ]
