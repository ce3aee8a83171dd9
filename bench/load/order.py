"""What one process of the generator is told, and what it says: a line of JSON each."""

import random
from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import msgspec

Distribution = Literal["uniform", "zipf"]

ZIPF_EXPONENT = 0.99
"""As in YCSB: of 10,000 keys the most popular one gets a tenth of the requests."""
LEAST_DRAWS = 1 << 16
"""So many keys are drawn before the run, twice as many as there are keys at least, and used again and again."""


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. `reads`: percent of GETs, the rest are PUTs. `seed`: what is drawn, drawn again."""

    reads: int = 0
    keys: int = 10_000
    distribution: Distribution = "uniform"
    value_bytes: int = 100
    prefix: str = "key-"
    """Of each key, before its number."""
    batch: int = 1
    """So many neighbouring keys are put by each PUT: several in one transaction."""
    seed: int = 1


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The share of one process in a load. Connections go to `addresses` in turn, the first one to `addresses[0]`."""

    mix: Mix
    addresses: list[tuple[str, int]]
    connections: int
    worker: int = 0
    """Number of this process, from 0: its PUTs have values of their own by that."""
    workers: int = 1
    rate: float | None = None
    """Requests a second of all processes together; None: each connection asks again when it is answered."""
    warm_up_s: float = 1.0
    seconds: float = 5.0
    fill: bool = False
    """Put every key once before the run."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Connected, and the keys are there: waits for a line with the instant of the start, in monotonic nanoseconds."""


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Now and then: how many requests were answered so far."""

    answered: int


class Result(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The last line. Histograms are of microseconds, as HdrHistogram encodes them; they hold the requests that were
    due in the measured time. `bins`: answers in each hundredth of a second since the start, warm-up included."""

    get: str
    put: str
    bins: list[int]
    statuses: dict[int, int]
    """Answers by HTTP status, warm-up included."""
    lost: int
    """Requests that got no answer: their connection broke, or the run was over for a while."""
    unsent: int
    """Requests of an open loop that were due and never sent, as all connections were busy. The histograms have them
    with the time that they had waited until the end."""
    cpu_s: float
    """CPU time of the process in the measured time."""


Message = Ready | Progress | Result


def draw(mix: Mix, worker: int) -> "array[int]":
    """Operations in the order in which they are asked for: the number of the key for a PUT, its complement `~key` for a
    GET."""
    rng = random.Random(f"{mix.seed}/{worker}")
    count = max(LEAST_DRAWS, 2 * mix.keys)
    keys = rng.choices(range(mix.keys), cum_weights=_weights(mix), k=count)
    return array("q", (~key if 100 * rng.random() < mix.reads else key for key in keys))


def _weights(mix: Mix) -> Sequence[float] | None:
    if mix.distribution == "uniform":
        return None
    return list(accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, mix.keys + 1)))


class Schedule:
    """When the requests of one process are due: at even intervals, those of the processes between each other."""

    def __init__(self, order: Order, start_ns: int) -> None:
        if order.rate is None:
            raise ValueError("a closed loop has no schedule: its requests are due when one is answered")
        self._interval_ns = 1e9 / order.rate * order.workers
        self._first_ns = start_ns + 1e9 / order.rate * order.worker
        self._taken = 0
        self.due_ns = int(self._first_ns)
        """When the next request is to be sent."""

    def advance(self) -> None:
        """The next request is under way."""
        self._taken += 1
        self.due_ns = int(self._first_ns + self._taken * self._interval_ns)  # no error adds up
