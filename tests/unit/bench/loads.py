"""Loads that never took place."""

from typing import Any

import msgspec

from bench.load.found import Load, merged
from bench.load.order import Mix, Result
from bench.load.recording import encoded

MIX = Mix(reads=50)


def result(**changes: Any) -> Result:
    whole = Result(
        get=encoded([1000] * 90 + [9000] * 10),
        put=encoded([2000] * 100),
        bins=[1] * 100 + [2] * 100,
        statuses={200: 300},
        lost=0,
        unsent=0,
        cpu_s=0.5,
    )
    return msgspec.structs.replace(whole, **changes)


def load(*results: Result, rate: float | None = None, **changes: Any) -> Load:
    found = merged(results or [result()], MIX, connections=4, rate=rate, seconds=1.0, warm_up_s=1.0)
    return msgspec.structs.replace(found, **changes)
