"""Results of runs under faults that never ran."""

from collections.abc import Sequence
from typing import Any

import msgspec

from tests.torture.faults.monitor import StateSpan
from tests.torture.faults.nemesis import MadeFault
from tests.torture.faults.plan import Fault
from tests.torture.faults.result import FaultsResult, OutcomeBin, latency_bins
from tests.torture.history import HistoryVerdict, RecordedCall


def made(fault: Fault, effect: int = 1, victims: Sequence[str] = ("n1",), began_s: float = 1.0) -> MadeFault:
    return MadeFault(
        fault=fault,
        victims=list(victims),
        detail="<how>",
        began_s=began_s,
        ended_s=began_s + 1,
        effect=effect,
        what="things done",
    )


CLEAN = HistoryVerdict(keys=2000, unverified=[], illegal=[], backwards=[], lost=[])
GOOD = FaultsResult(
    command="python -m tests.torture faults --seed 1",
    seed=1,
    began_at="2026-01-01 00:00 UTC",
    nodes=3,
    clients=8,
    seconds=10.0,
    asked=[Fault.KILL, Fault.PAUSE],
    impossible={Fault.EIO: "no strace"},
    faults=[made(Fault.KILL), made(Fault.PAUSE, began_s=3.0), made(Fault.PAUSE, effect=0, began_s=5.0)],
    kills=1,
    troubles=[],
    spans={
        "n1": [StateSpan("leader", 0, 1), StateSpan("down", 1, 2)],
        "n2": [StateSpan("follower", 0, 2), StateSpan("leader", 2, 10)],
    },
    bins=[OutcomeBin(answered=2, unknown=1), OutcomeBin(), *([OutcomeBin(answered=3, refused=1)] * 98)],
    latencies=latency_bins(
        [RecordedCall("get", "k", "n1", 0, 1_000_000 * ms, "answered") for ms in range(1, 9000, 40)], 0
    ),
    counts={"put": {"answered": 90, "unknown": 1}, "get": {"answered": 40, "refused": 9}},
    history=CLEAN,
)


def result(**changes: Any) -> FaultsResult:
    return msgspec.structs.replace(GOOD, **changes)


def judged(**changes: Any) -> FaultsResult:
    return result(history=msgspec.structs.replace(CLEAN, **changes))
