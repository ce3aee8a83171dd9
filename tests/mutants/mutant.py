"""What a mutant is: a bug planted on purpose, to show that the checks find it."""

from enum import StrEnum

import msgspec


class Net(StrEnum):
    """What can catch a bug, in the order in which they are cast."""

    UNIT = "unit"
    SIMULATION = "simulation"
    EXPLORATION = "exploration"


EVERY = frozenset(Net)
UNIT = frozenset({Net.UNIT})
"""The simulator and the explorer have no SQLite, no sockets, no secrets and no process of their own."""


RUNNING = frozenset({Net.UNIT, Net.SIMULATION})
"""The explorer has no clients, no state machine and no liveness: it looks at votes, values and leases."""


class Mutant(msgspec.Struct, frozen=True):
    """One small patch: in the file `path`, `before`, which stands there once, becomes `after`. `breaks` says what is
    wrong then; `rules` are the rules of docs/rules.md that it breaks; `nets` are those that could see it."""

    name: str
    rules: tuple[int, ...]
    breaks: str
    path: str
    before: str
    after: str
    nets: frozenset[Net] = EVERY

    def patched(self, source: str) -> str:
        """The text of the file with the bug in it. Raises ValueError when it is not what the patch was made for."""
        if source.count(self.before) != 1:
            raise ValueError(f"mutant {self.name}: its text is not in {self.path} exactly once, adapt it to the code")
        return source.replace(self.before, self.after)
