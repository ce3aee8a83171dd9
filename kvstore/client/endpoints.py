"""The order in which replicas are asked: the fastest replica first.

Every replica accepts every request, but one replica leads, some are nearer, and one may be down. Each response is
timed, and the replica with the lowest moving average comes first. Reads and writes have separate averages, because
their times differ. Every `TRIAL_EVERY`th request of a kind goes first to another replica, to keep its average current.
After a failure a replica is asked last for a back-off time, which doubles with each consecutive failure.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from kvstore.api.address import parse_base_urls

TRIAL_EVERY = 50
WEIGHT = 0.2
"""Weight of the latest response in the moving average."""
MIN_BACK_OFF_S = 1.0
MAX_BACK_OFF_S = 60.0


class _EndpointState(msgspec.Struct):
    """Measurements of one replica."""

    average_s: dict[str, float] = {}
    """Moving average of the response time, by kind of request."""
    measured: int = 0
    """Number of the last timed response of this replica, counted over all replicas; 0 before the first one."""
    back_off_s: float = 0.0
    back_off_until: float = 0.0


class Endpoints:
    """Base addresses of the replicas, ranked by response time. `now` returns monotonic seconds."""

    def __init__(self, urls: Sequence[str], now: Callable[[], float]) -> None:
        """Raises InvalidAddressError if `urls` has none, or one that is no base URL."""
        self.urls = parse_base_urls(urls)
        self._states = {url: _EndpointState() for url in self.urls}
        self._requests: Counter[str] = Counter()
        self._responses = 0
        self._now = now

    def ranked(self, kind: str) -> list[str]:
        """Return all replicas, the best one for a request of this `kind` first."""
        now = self._now()

        def rank(url: str) -> tuple[float, float]:
            state = self._states[url]
            return (
                state.back_off_until if state.back_off_until > now else 0.0,
                state.average_s.get(kind, float("inf")),
            )

        return sorted(self._states, key=rank)

    def in_turn(self, kind: str) -> list[str]:
        """Return the replicas in the order in which the next request of this `kind` asks them."""
        ranked, now = self.ranked(kind), self._now()
        self._requests[kind] += 1
        if self._requests[kind] % TRIAL_EVERY == 0:
            others = [url for url in ranked[1:] if self._states[url].back_off_until <= now]
            if others:
                trial = min(others, key=lambda url: self._states[url].measured)
                ranked.remove(trial)
                ranked.insert(0, trial)
        return ranked

    def answered(self, url: str, kind: str, took_s: float) -> None:
        """Record that the replica answered a request of this `kind` after `took_s` seconds."""
        state = self._states[url]
        average_s = state.average_s.get(kind, took_s)
        state.average_s[kind] = average_s + WEIGHT * (took_s - average_s)
        state.back_off_s = state.back_off_until = 0.0
        self._responses += 1
        state.measured = self._responses

    def failed(self, url: str) -> None:
        """Record that the replica did not answer, or refused a request that another replica may accept."""
        state = self._states[url]
        state.back_off_s = min(max(2 * state.back_off_s, MIN_BACK_OFF_S), MAX_BACK_OFF_S)
        state.back_off_until = self._now() + state.back_off_s
