"""From a scenario that fails to the simplest one that fails in the same way, as far as a greedy search gets.

Chance is drawn from one stream for each purpose, so what is left of a scenario mostly runs as before when a part of it
is taken away. Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002), for the order in which
strikes are taken away: halves, quarters, and so on down to each alone.
"""

import re
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from paxos.errors import InvariantError
from paxos.options import Options
from storage.base import StorageError
from tests.simulation.run import Run
from tests.simulation.scenario import Faults, Scenario, Strike

VIOLATIONS = (AssertionError, InvariantError, StorageError)
"""What a run raises when something is wrong; anything else is an error of the simulator."""
MOST_RUNS = 200


def failure(scenario: Scenario) -> str | None:
    """What a run of `scenario` violates, without the numbers and names that differ from run to run; None: nothing."""
    try:
        Run(scenario).run()
    except VIOLATIONS as error:
        return kind(error)
    return None


def kind(error: BaseException) -> str:
    """Two violations of the same kind are taken for the same bug."""
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {re.sub(r'[0-9]+|[(].*', '', first_line)}"


def shrink(
    scenario: Scenario, fails: Callable[[Scenario], str | None] = failure, *, most_runs: int = MOST_RUNS
) -> Scenario:
    """The simplest scenario found that fails as `scenario` does, within so many runs."""
    wanted = fails(scenario)
    assert wanted is not None, "this scenario does not fail"
    runs = 1
    progress = True
    while progress:
        progress = False
        for simpler in simplifications(scenario):
            if runs == most_runs:
                return scenario
            runs += 1
            if fails(simpler) == wanted:
                scenario, progress = simpler, True
                break
    return scenario


def simplifications(scenario: Scenario) -> Iterator[Scenario]:
    """Every scenario that is one step simpler, big steps first."""
    if scenario.drill:
        yield replace(scenario, drill="")
    for strikes in _fewer(scenario.strikes):
        yield replace(scenario, strikes=strikes)
    for name in Faults.__struct_fields__:
        default = getattr(Faults(), name)
        if getattr(scenario.faults, name) != default:
            yield replace(scenario, faults=replace(scenario.faults, **{name: default}))
    for name in scenario.options:
        left = {key: value for key, value in scenario.options.items() if key != name}
        options = Options(**left)
        if options.heartbeat_ms < options.lease_ms:  # a leader that is too slow fails, too
            yield replace(scenario, options=left)
    yield from _without_a_whole_part(scenario)
    for clients in range(1, scenario.clients):
        yield replace(scenario, clients=clients)
    if scenario.keys > 1:
        yield replace(scenario, keys=1)
    last_ms = max((strike.at_ms for strike in scenario.strikes), default=0)
    for shorter_ms in (scenario.faulty_ms // 2, scenario.faulty_ms * 3 // 4):
        if shorter_ms > last_ms:
            yield replace(scenario, faulty_ms=shorter_ms)


def _without_a_whole_part(scenario: Scenario) -> Iterator[Scenario]:
    for rarity in scenario.rarities:
        yield replace(scenario, rarities=tuple(name for name in scenario.rarities if name != rarity))
    for part in ("mixed", "mixed_limits", "terms"):
        if getattr(scenario, part):
            yield replace(scenario, **{part: ()})
    if scenario.restored:
        yield replace(scenario, restored=0)
    if scenario.core:
        yield replace(scenario, core=())


def _fewer(strikes: tuple[Strike, ...]) -> Iterator[tuple[Strike, ...]]:
    size = len(strikes)
    while size:
        for begin in range(0, len(strikes), size):
            yield strikes[:begin] + strikes[begin + size :]
        size //= 2
