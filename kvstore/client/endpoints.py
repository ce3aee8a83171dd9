"""Which replica is asked first: the fastest of those that answer.

Every replica takes every request, but one of them leads, some are nearer, and one may be down. So each answer is timed,
and the replica with the lowest moving average comes first; those of reads and of writes are kept apart, for they are
not the same. Of each sort every `TRIAL_EVERY`th request goes first to another replica, to know it too. Who fails is
asked last for a while, which doubles each time that it fails again.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

TRIAL_EVERY = 50
WEIGHT = 0.2
"""Of the latest answer in the average."""
FIRST_REST_S = 1.0
LONGEST_REST_S = 60.0


class _Seen(msgspec.Struct):
    """What is known of one replica. `took_s`: how long its answers take, by the sort of request; `measured`: the number
    of the answer that was timed last."""

    took_s: dict[str, float] = {}
    measured: int = 0
    rest_s: float = 0.0
    rests_until: float = 0.0


class Endpoints:
    """Base addresses of replicas. `now` gives seconds of a monotonic clock."""

    def __init__(self, urls: Sequence[str], now: Callable[[], float]) -> None:
        if not urls:
            raise ValueError("a client needs at least one endpoint")
        self.urls = tuple(url.rstrip("/") for url in urls)
        self._seen = {url: _Seen() for url in self.urls}
        self._asked: Counter[str] = Counter()
        self._answers = 0
        self._now = now

    def ranked(self, sort: str) -> list[str]:
        """All of them, the best one for a request of this `sort` first."""
        now = self._now()

        def rank(url: str) -> tuple[float, float]:
            seen = self._seen[url]
            return (seen.rests_until if seen.rests_until > now else 0.0, seen.took_s.get(sort, float("inf")))

        return sorted(self._seen, key=rank)

    def in_turn(self, sort: str) -> list[str]:
        """In which order one request of this `sort` is to ask them."""
        ranked, now = self.ranked(sort), self._now()
        self._asked[sort] += 1
        if self._asked[sort] % TRIAL_EVERY == 0:
            others = [url for url in ranked[1:] if self._seen[url].rests_until <= now]
            if others:
                tried = min(others, key=lambda url: self._seen[url].measured)
                ranked.remove(tried)
                ranked.insert(0, tried)
        return ranked

    def answered(self, url: str, sort: str, took_s: float) -> None:
        """It took so long to answer a request of this `sort`."""
        seen = self._seen[url]
        before = seen.took_s.get(sort, took_s)
        seen.took_s[sort] = before + WEIGHT * (took_s - before)
        seen.rest_s = seen.rests_until = 0.0
        self._answers += 1
        seen.measured = self._answers

    def failed(self, url: str) -> None:
        """It did not answer, or cannot serve."""
        seen = self._seen[url]
        seen.rest_s = min(max(2 * seen.rest_s, FIRST_REST_S), LONGEST_REST_S)
        seen.rests_until = self._now() + seen.rest_s
