"""What a run found, and whether it may be called good."""

from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec

from bench.figures import percentile
from tests.torture.faults.history import WRITES, Call, Judgement
from tests.torture.faults.plan import Fault
from tests.torture.faults.tormentor import Strike
from tests.torture.faults.watch import Span

BIN_S = 0.1
LATENCY_BIN_S = 0.5

CALLS_PER_S = 10
ANSWERED_PER_S = 5
"""With fewer on average a run shows nothing."""
UNVERIFIED_SHARE = 0.001
"""At least so many keys have to be verified but for these."""


class Verdict(StrEnum):
    """Worst first."""

    LOST = "lost"
    """A write that was acknowledged is gone."""
    ILLEGAL = "illegal"
    """Answers that no order explains, or revisions that go back."""
    DOWN = "down"
    """A replica ended by itself, did not end when its disk failed, or did not come back."""
    VOID = "void"
    """Too little happened to show anything."""
    UNVERIFIED = "silent"
    """The search was given up for too many keys."""
    OK = "ok"

    @property
    def sentence(self) -> str:
        """What it means, for people."""
        return _SENTENCES[self]


_SENTENCES = {
    Verdict.LOST: "Acknowledged writes are gone. This must never happen: please report it.",
    Verdict.ILLEGAL: "No order explains the answers. This must never happen: please report it.",
    Verdict.DOWN: "A replica did not behave: please report it, together with its log.",
    Verdict.VOID: "This shows nothing: too little happened.",
    Verdict.UNVERIFIED: "This does not show enough: too much could not be verified.",
    Verdict.OK: "Nothing acknowledged was lost, and an order explains every answer.",
}


class Bin(msgspec.Struct):
    """Calls that ended in one BIN_S, by outcome."""

    answered: int = 0
    unknown: int = 0
    refused: int = 0


class Latency(msgspec.Struct, frozen=True):
    """Of the calls answered in one LATENCY_BIN_S; None when there were too few."""

    p50_ms: float | None
    p99_ms: float | None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a run. `seconds`: how long faults were made; times are seconds since the first client."""

    command: str
    seed: int
    began_at: str
    """Date and time, UTC."""
    nodes: int
    clients: int
    seconds: float
    asked: list[Fault]
    """Faults named by the user, or all that can be made here."""
    not_offered: dict[Fault, str]
    """Faults that cannot be made here, and why."""
    strikes: list[Strike]
    kills: int
    """How many processes were ended with SIGKILL."""
    troubles: list[str]
    """What replicas did that nothing excuses: ended, or did not come back."""
    lanes: dict[str, list[Span]]
    bins: list[Bin]
    latencies: list[Latency]
    counts: dict[str, dict[str, int]]
    """Outcome of calls by kind."""
    judgement: Judgement

    @property
    def calls(self) -> int:
        """All."""
        return sum(sum(outcomes.values()) for outcomes in self.counts.values())

    def of(self, outcome: str) -> int:
        """How many calls had this outcome."""
        return sum(outcomes.get(outcome, 0) for outcomes in self.counts.values())

    @property
    def landed(self) -> int:
        """Faults that had an effect."""
        return sum(strike.effect > 0 for strike in self.strikes)

    @property
    def acknowledged(self) -> int:
        """Writes that were answered."""
        return sum(outcomes.get("answered", 0) for kind, outcomes in self.counts.items() if kind in WRITES)

    @property
    def verdict(self) -> Verdict:
        """The worst of what the reasons are for."""
        return next((verdict for verdict in Verdict if any(one is verdict for one, _ in self.reasons())), Verdict.OK)

    def reasons(self) -> list[tuple[Verdict, str]]:
        """Why the run is not good."""
        judgement = self.judgement
        silent = len(judgement.silent)
        return [
            *((Verdict.LOST, line) for line in judgement.lost),
            *((Verdict.ILLEGAL, f"no order explains the answers for {key}") for key in judgement.illegal),
            *((Verdict.ILLEGAL, line) for line in judgement.backwards),
            *((Verdict.DOWN, line) for line in self.troubles),
            *((Verdict.VOID, line) for line in self._shows_nothing()),
            *(
                [
                    (
                        Verdict.UNVERIFIED,
                        f"{silent} of {judgement.keys} keys are not verified: their histories are too tangled",
                    )
                ]
                if silent > UNVERIFIED_SHARE * judgement.keys
                else []
            ),
        ]

    def _shows_nothing(self) -> Iterator[str]:
        if self.calls < CALLS_PER_S * self.seconds:
            yield f"only {self.calls} calls in {self.seconds:.0f} s: use more clients, or a machine that is less busy"
        if self.of("answered") < ANSWERED_PER_S * self.seconds:
            yield f"only {self.of('answered')} calls were answered in {self.seconds:.0f} s: name fewer faults"
        if not self.landed:
            yield "nothing was done to it: use more --seconds"
        landed = {strike.fault for strike in self.strikes if strike.effect}
        for fault in self.asked:
            if fault not in landed:
                tried = sum(strike.fault is fault for strike in self.strikes)
                why = f"{tried} times without effect" if tried else "the time was over before: use more --seconds"
                yield f"{fault} never landed: {why}"


class Conclusion(msgspec.Struct, frozen=True):
    """What is written for programs."""

    verdict: Verdict
    reasons: list[tuple[Verdict, str]]
    found: Found


def conclude(found: Found) -> Conclusion:
    """The verdict, and all that it rests on."""
    return Conclusion(found.verdict, found.reasons(), found)


def count(calls: Iterable[Call]) -> dict[str, dict[str, int]]:
    """Outcomes by kind."""
    counts: dict[str, dict[str, int]] = {}
    for call in calls:
        outcomes = counts.setdefault(call.kind, {})
        outcomes[call.outcome] = outcomes.get(call.outcome, 0) + 1
    return counts


def bins(calls: Iterable[Call], began_ns: int) -> list[Bin]:
    """When calls ended, and how."""
    found: list[Bin] = []
    for call in calls:
        number = int((call.returned_ns - began_ns) / 1e9 / BIN_S)
        while len(found) <= number:
            found.append(Bin())
        setattr(found[number], call.outcome, getattr(found[number], call.outcome) + 1)
    return found


def latencies(calls: Iterable[Call], began_ns: int) -> list[Latency]:
    """How long answers took."""
    found: list[list[float]] = []
    for call in calls:
        if call.outcome == "answered":
            number = int((call.returned_ns - began_ns) / 1e9 / LATENCY_BIN_S)
            while len(found) <= number:
                found.append([])
            found[number].append((call.returned_ns - call.called_ns) / 1e6)
    return [
        Latency(percentile(some, 50), percentile(some, 99)) if len(some) > 1 else Latency(None, None) for some in found
    ]
