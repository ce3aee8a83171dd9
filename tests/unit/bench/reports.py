"""A report as text, and loads that never ran."""

import io
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console, RenderableType

from bench.load.options import LoadOptions, Mix
from bench.load.recording import BIN_NS, LoadResult, Recording

START_NS, MS = 7_000_000_000, 1_000_000


def shown(report: RenderableType) -> str:
    output = io.StringIO()
    Console(file=output, width=120, highlight=False, soft_wrap=True).print(report)
    return output.getvalue()


def load(bins: Sequence[int] = (2,) * 100, rate: float | None = None, **changes: Any) -> LoadResult:
    """Answers at the end of each bin: PUTs of 2 ms in turn with GETs of 1 ms, of which every tenth takes 9 ms."""
    seconds = len(bins) * BIN_NS / 1e9
    recording = Recording(START_NS, START_NS, START_NS + len(bins) * BIN_NS)
    numbers = (number for number, count in enumerate(bins) for _ in range(count))
    for count, number in enumerate(numbers):
        at_ns = START_NS + number * BIN_NS + 9 * MS
        read = count % 2 == 1
        latency_ms = 2 if not read else 9 if count % 20 == 1 else 1
        recording.answered(~1 if read else 1, 200, at_ns - latency_ms * MS, at_ns)
    options = LoadOptions(mix=Mix(reads=50), urls=[], connections=4, rate=rate, seconds=seconds)
    return msgspec.structs.replace(recording.result(options), generator_cpu=0.5, **changes)
