"""The result of a run under faults, and its verdict."""

from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec

from bench.figures import percentile
from tests.torture.faults.monitor import StateSpan
from tests.torture.faults.nemesis import MadeFault
from tests.torture.faults.plan import Fault
from tests.torture.history import WRITES, HistoryVerdict, RecordedCall

BIN_S = 0.1
LATENCY_BIN_S = 0.5

MIN_CALLS_PER_S = 10
MIN_ANSWERED_PER_S = 5
"""Mean rate of answers below which a run proves nothing."""
MAX_UNVERIFIED_SHARE = 0.001


class RunVerdict(StrEnum):
    """Verdict on a run, from the worst to the best."""

    LOST = "lost"
    """An acknowledged write is lost."""
    ILLEGAL = "illegal"
    """No order explains the answers, or revisions go back."""
    DOWN = "down"
    """A replica ended by itself, did not end when its disk failed, or did not recover."""
    VOID = "void"
    """Too few calls or faults to prove anything."""
    UNVERIFIED = "unverified"
    """The search for an order was given up for too many keys."""
    OK = "ok"

    @property
    def sentence(self) -> str:
        """The verdict in a sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    RunVerdict.LOST: "Acknowledged writes are lost. Please report this bug.",
    RunVerdict.ILLEGAL: "No order explains the answers. Please report this bug.",
    RunVerdict.DOWN: "A replica ended by itself, ignored a disk failure, or did not recover. Please report this bug.",
    RunVerdict.VOID: "The run proves nothing: it had too few calls or faults.",
    RunVerdict.UNVERIFIED: "The run does not prove enough: too many keys could not be verified.",
    RunVerdict.OK: "No acknowledged write was lost, and an order explains every answer.",
}


class OutcomeBin(msgspec.Struct):
    """Number of calls that ended within BIN_S, by outcome."""

    answered: int = 0
    unknown: int = 0
    refused: int = 0


class LatencyBin(msgspec.Struct, frozen=True):
    """Latencies of the calls answered within LATENCY_BIN_S; None with fewer than two."""

    p50_ms: float | None
    p99_ms: float | None


class FaultsResult(msgspec.Struct, frozen=True, kw_only=True):
    """Faults, calls and verdicts of a run. Times are seconds since the first client started."""

    command: str
    seed: int
    began_at: str
    """Date and time in UTC."""
    nodes: int
    clients: int
    seconds: float
    """Time during which faults were injected."""
    asked: list[Fault]
    """Faults named by the user, or all that are possible."""
    impossible: dict[Fault, str]
    """Reason for each fault that is impossible here."""
    faults: list[MadeFault]
    kills: int
    """Number of processes ended with SIGKILL."""
    troubles: list[str]
    """Descriptions of replicas that ended by themselves, ignored a disk failure, or did not recover."""
    spans: dict[str, list[StateSpan]]
    bins: list[OutcomeBin]
    latencies: list[LatencyBin]
    counts: dict[str, dict[str, int]]
    """Number of calls by kind and outcome."""
    history: HistoryVerdict

    @property
    def calls(self) -> int:
        """Number of calls."""
        return sum(sum(outcomes.values()) for outcomes in self.counts.values())

    def count(self, outcome: str) -> int:
        """Return the number of calls with an outcome."""
        return sum(outcomes.get(outcome, 0) for outcomes in self.counts.values())

    @property
    def effective(self) -> int:
        """Number of faults that had an effect."""
        return sum(fault.effect > 0 for fault in self.faults)

    @property
    def acknowledged(self) -> int:
        """Number of acknowledged writes."""
        return sum(outcomes.get("answered", 0) for kind, outcomes in self.counts.items() if kind in WRITES)

    @property
    def verdict(self) -> RunVerdict:
        """The worst verdict among the reasons."""
        reasons = {verdict for verdict, _ in self.reasons()}
        return next((verdict for verdict in RunVerdict if verdict in reasons), RunVerdict.OK)

    def reasons(self) -> list[tuple[RunVerdict, str]]:
        """Return the reasons why the verdict is not OK, each with the verdict that it causes."""
        history = self.history
        unverified = len(history.unverified)
        reasons = [
            *((RunVerdict.LOST, line) for line in history.lost),
            *((RunVerdict.ILLEGAL, f"no order explains the answers for {key}") for key in history.illegal),
            *((RunVerdict.ILLEGAL, line) for line in history.backwards),
            *((RunVerdict.DOWN, line) for line in self.troubles),
            *((RunVerdict.VOID, line) for line in self._void()),
        ]
        if unverified > MAX_UNVERIFIED_SHARE * history.keys:
            why = f"{unverified} of {history.keys} keys could not be verified: too many concurrent operations"
            reasons.append((RunVerdict.UNVERIFIED, why))
        return reasons

    def _void(self) -> Iterator[str]:
        if self.calls < MIN_CALLS_PER_S * self.seconds:
            yield f"only {self.calls} calls in {self.seconds:.0f} s: raise --clients, or use a less busy machine"
        if self.count("answered") < MIN_ANSWERED_PER_S * self.seconds:
            yield f"only {self.count('answered')} calls answered in {self.seconds:.0f} s: name fewer faults"
        if not self.effective:
            yield "no fault had an effect: raise --seconds"
        effective = {fault.fault for fault in self.faults if fault.effect}
        for fault in self.asked:
            if fault not in effective:
                tried = sum(each.fault is fault for each in self.faults)
                yield (
                    f"{fault} had no effect in {tried} attempts"
                    if tried
                    else f"{fault} was never injected: raise --seconds"
                )


class FaultsReport(msgspec.Struct, frozen=True):
    """The document of --json."""

    verdict: RunVerdict
    reasons: list[tuple[RunVerdict, str]]
    result: FaultsResult


def report_of(result: FaultsResult) -> FaultsReport:
    """Return the document of --json."""
    return FaultsReport(result.verdict, result.reasons(), result)


def count(calls: Iterable[RecordedCall]) -> dict[str, dict[str, int]]:
    """Return the number of calls by kind and outcome."""
    counts: dict[str, dict[str, int]] = {}
    for call in calls:
        outcomes = counts.setdefault(call.kind, {})
        outcomes[call.outcome] = outcomes.get(call.outcome, 0) + 1
    return counts


def outcome_bins(calls: Iterable[RecordedCall], began_ns: int) -> list[OutcomeBin]:
    """Return the outcomes of calls by the time at which they ended."""
    bins: list[OutcomeBin] = []
    for call in calls:
        number = int((call.returned_ns - began_ns) / 1e9 / BIN_S)
        while len(bins) <= number:
            bins.append(OutcomeBin())
        setattr(bins[number], call.outcome, getattr(bins[number], call.outcome) + 1)
    return bins


def latency_bins(calls: Iterable[RecordedCall], began_ns: int) -> list[LatencyBin]:
    """Return the latencies of answered calls by the time at which they ended."""
    bins: list[list[float]] = []
    for call in calls:
        if call.outcome == "answered":
            number = int((call.returned_ns - began_ns) / 1e9 / LATENCY_BIN_S)
            while len(bins) <= number:
                bins.append([])
            bins[number].append((call.returned_ns - call.called_ns) / 1e6)
    return [
        LatencyBin(percentile(some, 50), percentile(some, 99)) if len(some) > 1 else LatencyBin(None, None)
        for some in bins
    ]
