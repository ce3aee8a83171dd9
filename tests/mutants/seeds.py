"""The simulator as a net: `python -m tests.mutants.seeds COUNT` runs seeds from 1 on until one fails."""

import sys

from tests.simulation.run import simulate


def main() -> None:
    for seed in range(1, int(sys.argv[1]) + 1):
        try:
            simulate(seed)
        except Exception as error:  # noqa: BLE001 - whatever breaks, it is the mutant
            sys.exit(f"seed {seed}: {type(error).__name__} {error}")


if __name__ == "__main__":
    main()
