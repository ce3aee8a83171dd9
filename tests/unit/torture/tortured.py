"""Runs of a tortured cluster that never took place."""

from collections.abc import Sequence
from typing import Any

import msgspec

from tests.torture.faults.found import Bin, Found, latencies
from tests.torture.faults.history import Call, Judgement
from tests.torture.faults.plan import Fault
from tests.torture.faults.tormentor import Strike
from tests.torture.faults.watch import Span


def strike(fault: Fault, effect: int = 1, victims: Sequence[str] = ("n1",), began_s: float = 1.0) -> Strike:
    return Strike(
        fault=fault,
        victims=list(victims),
        detail="<how>",
        began_s=began_s,
        ended_s=began_s + 1,
        effect=effect,
        what="things done",
    )


CLEAN = Judgement(keys=2000, silent=[], illegal=[], backwards=[], lost=[])
GOOD = Found(
    command="python -m tests.torture faults --seed 1",
    seed=1,
    began_at="2026-01-01 00:00 UTC",
    nodes=3,
    clients=8,
    seconds=10.0,
    asked=[Fault.KILL, Fault.PAUSE],
    not_offered={Fault.EIO: "no strace"},
    strikes=[strike(Fault.KILL), strike(Fault.PAUSE, began_s=3.0), strike(Fault.PAUSE, effect=0, began_s=5.0)],
    kills=1,
    troubles=[],
    lanes={"n1": [Span("leader", 0, 1), Span("down", 1, 2)], "n2": [Span("follower", 0, 2), Span("leader", 2, 10)]},
    bins=[Bin(answered=2, unknown=1), Bin(), *([Bin(answered=3, refused=1)] * 98)],
    latencies=latencies([Call("get", "k", "n1", 0, 1_000_000 * ms, "answered") for ms in range(1, 9000, 40)], 0),
    counts={"put": {"answered": 90, "unknown": 1}, "get": {"answered": 40, "refused": 9}},
    judgement=CLEAN,
)


def found(**changes: Any) -> Found:
    return msgspec.structs.replace(GOOD, **changes)


def judged(**changes: Any) -> Found:
    return found(judgement=msgspec.structs.replace(CLEAN, **changes))
