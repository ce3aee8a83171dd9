"""A run as one page of HTML that needs nothing else.

Shapes are SVG without text, stretched to the width there is; all text is HTML beside them. So it stays readable at any
width and follows the reader's colour scheme, which pictures of a plotting library do not.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from bench.template import template
from tests.torture.faults.found import BIN_S, LATENCY_BIN_S, Found
from tests.torture.faults.plan import Fault
from tests.torture.faults.tormentor import Strike
from tests.torture.faults.watch import changes_of_leader

MOST_BINS = 600
"""More are not seen on a screen."""
MOST_LABELS = 60
"""With more faults there is no room for the names of the victims: they are shown when pointed at."""
HEIGHT = 1000
"""Of a drawing, in its own units."""

FAMILIES = {
    "process": (Fault.KILL, Fault.STORM, Fault.PAUSE),
    "network": (Fault.PARTITION, Fault.ONE_WAY, Fault.SLOW_NETWORK),
    "disk": (Fault.DISK_FULL, Fault.EIO, Fault.SLOW_FSYNC),
}
CUTS = (Fault.PARTITION, Fault.ONE_WAY)


LEGEND = {
    "Faults": {"process": "of a process", "network": "of the network", "disk": "of a disk"},
    "Calls": {"answered": "answered", "unknown": "a write of unknown outcome", "refused": "refused"},
    "Latency": {"p50": "half of the answers took less", "p99": "99 of 100 took less"},
    "Replicas": {
        "leader": "leads",
        "follower": "follows",
        "candidate": "stands for election",
        "silent": "starts, or does not answer",
        "paused": "is paused",
        "down": "is down",
        "cut": "is cut off",
    },
}


class Block(msgspec.Struct, frozen=True):
    """A stretch of time in a row: from `left` for `width`, in percent. `title` is shown when it is pointed at."""

    kind: str
    left: float
    width: float
    title: str
    label: str = ""


class Tick(msgspec.Struct, frozen=True):
    """A line of a scale, `at` percent from its beginning."""

    at: float
    label: str


class Plot(msgspec.Struct, frozen=True):
    """Paths by kind, in a box of `width` by HEIGHT."""

    width: float
    paths: dict[str, str]
    ticks: list[Tick]


def render(found: Found) -> str:
    """The page."""
    total_s = max(len(found.bins) * BIN_S, found.seconds)
    block = partial(_block, total_s, found.nodes)
    strikes = [(strike, block(family_of(strike.fault), strike)) for strike in found.strikes]
    return template(Path(__file__).with_name("page.html")).render(
        found=found,
        height=HEIGHT,
        tiles=_tiles(found),
        bands=[made for _, made in strikes],
        faults={
            fault: [made for strike, made in strikes if strike.fault is fault]
            for fault in Fault
            if any(strike.fault is fault for strike in found.strikes)
        },
        dense=len(strikes) > MOST_LABELS,
        lanes={name: [*_states(found, name, total_s), *_cuts(found, name, block)] for name in found.lanes},
        plots=[
            ("throughput", "calls a second", throughput(found, total_s)),
            ("latency", "of answers", latency(found, total_s)),
        ],
        legend=LEGEND,
        seconds=_time_ticks(total_s),
    )


def _tiles(found: Found) -> dict[str, str]:
    judgement = found.judgement
    sound = judgement.keys - len(judgement.silent) - len(judgement.illegal)
    return {
        "calls answered": f"{found.of('answered'):,}",
        "of unknown outcome": f"{found.of('unknown'):,}",
        "refused": f"{found.of('refused'):,}",
        "writes acknowledged": f"{found.acknowledged:,}",
        "of these lost": f"{len(judgement.lost):,}",
        "keys linearizable": f"{sound:,} of {judgement.keys:,}",
        "keys silent": f"{len(judgement.silent):,}",
        "faults landed": f"{found.landed:,} of {len(found.strikes):,}",
        "killed with SIGKILL": f"{found.kills:,}",
        "changes of leader": f"{changes_of_leader(found.lanes):,}",
    }


def family_of(fault: Fault) -> str:
    """What is broken: a process, the network or a disk."""
    return next(family for family, some in FAMILIES.items() if fault in some)


def throughput(found: Found, total_s: float) -> Plot:
    """Calls a second, by outcome, one upon the other."""
    step = math.ceil(len(found.bins) / MOST_BINS) or 1
    groups = [found.bins[start : start + step] for start in range(0, len(found.bins), step)]
    rates = [
        [sum(getattr(one, outcome) for one in group) / (len(group) * BIN_S) for group in groups]
        for outcome in ("answered", "unknown", "refused")
    ]
    most = _round_up(max(map(sum, zip(*rates, strict=True)), default=1) or 1)
    paths, lower = {}, [0.0] * len(groups)
    for outcome, of_outcome in zip(("answered", "unknown", "refused"), rates, strict=True):
        upper = [low + more for low, more in zip(lower, of_outcome, strict=True)]
        paths[outcome] = _area([low / most for low in lower], [high / most for high in upper])
        lower = upper
    return Plot(total_s / BIN_S / step, paths, [Tick(100 * part, f"{most * part:,.0f}") for part in (0, 0.5, 1)])


def latency(found: Found, total_s: float) -> Plot:
    """Percentiles in milliseconds, on a scale of powers of ten."""
    step = math.ceil(len(found.latencies) / MOST_BINS) or 1
    groups = [found.latencies[start : start + step] for start in range(0, len(found.latencies), step)]
    lines = {
        "p99": [max((one.p99_ms for one in group if one.p99_ms is not None), default=None) for group in groups],
        "p50": [max((one.p50_ms for one in group if one.p50_ms is not None), default=None) for group in groups],
    }
    known = [value for line in lines.values() for value in line if value]
    least = math.floor(math.log10(min(known, default=1)))
    most = max(math.ceil(math.log10(max(known, default=10))), least + 1)

    def height(value: float | None) -> float | None:
        return (math.log10(value) - least) / (most - least) if value else None

    paths = {name: _line([height(value) for value in line]) for name, line in lines.items()}
    ticks = [Tick(100 * (power - least) / (most - least), _duration(power)) for power in range(least, most + 1)]
    return Plot(total_s / LATENCY_BIN_S / step, paths, ticks)


def _block(total_s: float, replicas: int, kind: str, strike: Strike) -> Block:
    label = "all" if len(strike.victims) == replicas else " ".join(strike.victims)
    effect = f"{strike.effect:,} {strike.what}" if strike.effect else "without effect"
    detail = f", {strike.detail}" if strike.detail else ""
    title = f"{strike.words}{detail}: {strike.began_s:.1f} to {strike.ended_s:.1f} s, {effect}"
    return Block(kind, *_stretch(strike.began_s, strike.ended_s, total_s), title, label)


def _states(found: Found, name: str, total_s: float) -> Iterator[Block]:
    for span in found.lanes[name]:
        title = f"{name} {span.state}: {span.began_s:.1f} to {span.ended_s:.1f} s"
        yield Block(span.state, *_stretch(span.began_s, span.ended_s, total_s), title)


def _cuts(found: Found, name: str, block: partial[Block]) -> Iterator[Block]:
    for strike in found.strikes:
        if strike.fault in CUTS and name in strike.victims:
            yield block("cut", strike)


def _stretch(began_s: float, ended_s: float, total_s: float) -> tuple[float, float]:
    began_s, ended_s = min(began_s, total_s), min(ended_s, total_s)
    return round(100 * began_s / total_s, 3), round(100 * (ended_s - began_s) / total_s, 3)


def _area(lower: Sequence[float], upper: Sequence[float]) -> str:
    """The steps of `upper`, and back along those of `lower`; both are shares of the height."""
    forth = [f"{x},{_y(value)}" for index, value in enumerate(upper) for x in (index, index + 1)]
    back = [f"{x},{_y(value)}" for index, value in enumerate(lower) for x in (index, index + 1)]
    return f"M{' '.join([*forth, *reversed(back)])}Z"


def _line(heights: Sequence[float | None]) -> str:
    """From middle to middle, broken where nothing is known; a lone point is a short dash."""
    parts: list[str] = []
    for index, value in enumerate(heights):
        if value is None:
            continue
        joined = index > 0 and heights[index - 1] is not None
        parts.append(f"{'L' if joined else 'M'}{index + 0.5},{_y(value)}")
        if not joined:
            parts.append("h0.01")
    return "".join(parts)


def _y(share: float) -> int:
    return round(HEIGHT * (1 - share))


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value)


def _duration(power: int) -> str:
    return f"{10 ** (power - 3):g} s" if power >= 3 else f"{10**power:g} ms"


def _time_ticks(total_s: float) -> list[Tick]:
    step = next(step for step in (1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600, 1 << 40) if total_s / step <= 10)
    times = range(0, int(total_s) + 1, step)
    return [Tick(100 * time / total_s, f"{time // 60} min" if step >= 60 else f"{time} s") for time in times]
