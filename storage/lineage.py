"""The lineage of the data: the random number of each start on it (rule 28).

Two copies of the data have the same numbers up to the last start before the copy was made, and different ones from then
on, however often each copy is started. So a replica can tell whether its data comes from a start that a peer has seen.
"""

from typing import NamedTuple

LIFE_BITS = 62
"""Size of the random number of a start."""

MOST_STARTS = 1 << 16
"""Number of starts that are kept."""

_LIFE_BYTES = 8


class Lineage(NamedTuple):
    """The random numbers of consecutive starts."""

    first: int = 0
    """Boot of the first start that is kept. Data of an earlier release begins with its first start after the upgrade.
    """
    lives: bytes = b""
    """Random number of each start, in order, `_LIFE_BYTES` for each."""

    @property
    def life(self) -> int:
        """The random number of the last start."""
        return int.from_bytes(self.lives[-_LIFE_BYTES:])

    def after(self, boot: int, life: int) -> "Lineage":
        """Return the lineage with the next start, `boot`. The oldest starts beyond MOST_STARTS are forgotten."""
        lives = (self.lives + life.to_bytes(_LIFE_BYTES))[-MOST_STARTS * _LIFE_BYTES :]
        return Lineage(boot + 1 - len(lives) // _LIFE_BYTES, lives)

    def includes(self, boot: int, life: int) -> bool:
        """Return False if the start `boot` had another random number than `life`, or has not happened. Starts that are
        not kept count as included."""
        at = (boot - self.first) * _LIFE_BYTES
        return at < 0 or self.lives[at : at + _LIFE_BYTES] == life.to_bytes(_LIFE_BYTES)
