"""The monotonic clock of a simulated host. It has a rate of its own, which may change, and may stand still."""

from random import Random

from paxos.types import Time
from tests.simulation.scenario import Faults
from tests.simulation.world import World

PPM = 1_000_000
ENDLESS: Time = 2**63


class SimulatedClock:
    """A clock that differs from the time of the world."""

    def __init__(self, world: World, faults: Faults, rng: Random) -> None:
        """Start with a random time, and a random rate within the bound of `faults`."""
        self._world = world
        self._most_ppm = faults.drift_ppm // 2
        self._since: Time = 0
        """Time of the world from which the present rate counts."""
        self._frozen = 0
        """Number of freezes that are not over."""
        self.wrong_until: Time = 0
        """Time of the world up to which a lease may be too long because of a freeze."""
        self._ppm = self._draw_ppm(rng)
        self._shown: Time = rng.randint(0, 10**15)
        """Time that it showed at `_since`."""

    def now(self) -> Time:
        """Return the time that it shows."""
        if self._frozen:
            return self._shown
        passed = self._world.now - self._since
        return self._shown + passed + passed * self._ppm // PPM

    def when(self, shown: Time) -> Time:
        """Return the time of the world at which it will show at least `shown` at its present rate."""
        left = max(0, shown - self.now())
        return self._world.now + left * PPM // (PPM + self._ppm) + 1

    def change_rate(self, rng: Random) -> None:
        """Go on at another rate within the bound."""
        self._begin()
        self._ppm = self._draw_ppm(rng)

    @property
    def is_frozen(self) -> bool:
        """True while it stands still."""
        return self._frozen > 0

    def freeze(self) -> None:
        """Stand still."""
        self._begin()
        self._frozen += 1
        self.wrong_until = ENDLESS

    def thaw(self, settled: Time, *, all_over: bool) -> None:
        """Undo one `freeze`, or with `all_over` every one. Leases that began before are over after `settled`."""
        if not self._frozen:
            return
        self._begin()
        self._frozen = 0 if all_over else self._frozen - 1
        if not self._frozen:
            self.wrong_until = self._world.now + settled

    def _begin(self) -> None:
        """Count from now on."""
        self._shown, self._since = self.now(), self._world.now

    def _draw_ppm(self, rng: Random) -> int:
        return rng.choice((-self._most_ppm, self._most_ppm, rng.randint(-self._most_ppm, self._most_ppm)))
