"""What a run of malformed requests has found."""

import msgspec

GROWTH_LIMIT_MB = 50.0
"""Of the resident memory of a replica, from when it has met the first of them."""


class Fault(msgspec.Struct, frozen=True):
    """Something that must not be: of attempt `number`, what was sent (its beginning), and why it must not be."""

    number: int
    family: str
    sent: str
    why: str


class Memory(msgspec.Struct, frozen=True):
    """Resident memory of each replica, in MB, once so many attempts were made."""

    attempts: int
    resident_mb: dict[str, float]


class Fuzz(msgspec.Struct, frozen=True, kw_only=True):
    """`unanswered`: where none had to come. `checks`: how often a value was written and read back meanwhile;
    `slowest_ms`: the longest of them."""

    seed: int
    attempts: int
    seconds: float
    statuses: dict[str, int]
    families: dict[str, int]
    closed: int
    unanswered: int
    cut: int
    checks: int
    slowest_ms: float
    memory: list[Memory]
    faults: list[Fault]

    @property
    def growth_mb(self) -> float:
        """Of the replica that grew most, at the end."""
        first, last = self.memory[0].resident_mb, self.memory[-1].resident_mb
        return max(last[name] - first[name] for name in first)

    @property
    def peak_mb(self) -> float:
        """The same at its worst meanwhile."""
        first = self.memory[0].resident_mb
        return max(each.resident_mb[name] - first[name] for each in self.memory for name in first)

    @property
    def within_limits(self) -> bool:
        """True when nothing was wrong, and the memory stayed."""
        return not self.faults and self.growth_mb < GROWTH_LIMIT_MB
