"""The description of a load, and the operations drawn from it."""

import random
from array import array
from itertools import accumulate
from typing import Literal

import msgspec
from yarl import URL

from bench.errors import BenchError

Distribution = Literal["uniform", "zipf"]

ZIPF_EXPONENT = 0.99
"""The exponent of YCSB, with which the most frequent of 10,000 keys gets a tenth of the requests."""
MIN_DRAWS = 1 << 16
"""Minimum number of operations drawn before a load, which repeats them in a cycle."""


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of a load: `reads` percent GETs, the rest PUTs."""

    reads: int = 0
    keys: int = 10_000
    distribution: Distribution = "uniform"
    value_bytes: int = 100
    prefix: str = "bench-"
    """Text before the number in every key."""
    batch: int = 1
    """Number of consecutive keys that each request puts; above 1 the request is a transaction."""
    seed: int = 1


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A load on the replicas at `urls`, over which the connections are distributed in turn."""

    mix: Mix = Mix()
    urls: list[str]
    connections: int = 64
    rate: float | None = None
    """Requests per second in an open loop; None for a closed loop, in which each connection waits for its answer."""
    warm_up_s: float = 1.0
    seconds: float = 5.0
    """Length of the measured time, after the warm-up."""
    fill: bool = False
    """Whether every key is put once before the warm-up."""


def draw(mix: Mix) -> "array[int]":
    """Return operations in random order: the number of a key for a PUT, its complement `~key` for a GET."""
    rng = random.Random(mix.seed)
    weights = None
    if mix.distribution == "zipf":
        weights = list(accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, mix.keys + 1)))
    keys = rng.choices(range(mix.keys), cum_weights=weights, k=max(MIN_DRAWS, 2 * mix.keys))
    return array("q", (~key if 100 * rng.random() < mix.reads else key for key in keys))


def address_of(url: str) -> tuple[str, int]:
    """Return host and port of a replica's URL. Raises BenchError."""
    parsed = URL(url)
    if parsed.scheme != "http" or parsed.host is None or parsed.port is None:
        raise BenchError(f"{url} is not an endpoint: write it as http://127.0.0.1:8001")
    return parsed.host, parsed.port
