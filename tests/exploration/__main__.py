"""`python -m tests.exploration [--quick]`: explore all set-ups and say what was visited.

Ends with 1 when something is violated, or when a set-up did not reach what it is there for.
"""

import argparse
import sys

from tests.exploration.explorer import ExplorationResult
from tests.exploration.setups import ALL, LIMIT, QUICK, QUICK_LIMIT, Setup

ROW = "{:<18} {:>9} {:>12} {:>9} {:>9} {:>6} {:>8}  {}"


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.exploration", description="explore every schedule")
    parser.add_argument("--quick", action="store_true", help="a part of each set-up, in less than 30 seconds")
    quick = parser.parse_args().quick
    print(ROW.format("set-up", "states", "transitions", "machines", "messages", "depth", "seconds", "ended"))
    failed = False
    for setup in QUICK if quick else ALL:
        found = setup.explore(QUICK_LIMIT if quick else LIMIT)
        report(setup, found)
        failed |= bool(found.violation or setup.missed(found))
    print("violated, or not reached: see above" if failed else "no violation")
    return failed


def report(setup: Setup, found: ExplorationResult) -> None:
    """Print what one exploration visited."""
    ended = "violation" if found.violation else "exhausted" if found.exhausted else "limit of states"
    counts = (found.states, found.transitions, found.machine_states, found.messages, found.depth)
    print(ROW.format(setup.name, *(f"{count:,}" for count in counts), f"{found.seconds:.1f}", ended))
    print(f"    {setup.shows}; {setup.bounds()}")
    reached = ", ".join(f"{goal} {count:,}" for goal, count in sorted(found.goals.items()))
    print(f"    reached: {reached}")
    for goal in setup.missed(found):
        print(
            f"    NOT REACHED: {goal}. The exploration shows nothing about it: give it more states, or another script"
        )
    if found.violation:
        print(f"    VIOLATION, by this schedule:\n{found.violation}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
