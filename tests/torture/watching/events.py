"""The events that watchers received, and the check that each watcher received every change once and in order.

All watchers of a replica receive the same chunks, so each chunk is parsed once, and a watcher is represented by its
steps from one revision to the next. The expected changes are the acknowledged writes and all changes that any watcher
saw."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise

import msgspec

MAX_EXAMPLES = 5


class ObservedEvent(msgspec.Struct, frozen=True, array_like=True):
    """A change: `key` has `value` since `revision`; None for a deletion."""

    revision: int
    key: str
    value: str | None


class EventChunk(msgspec.Struct, frozen=True, array_like=True):
    """Events that were sent together."""

    events: list[ObservedEvent]
    resume: int | None
    """The last event id in the chunk."""
    lost: bool
    """Whether the replica says that it no longer has the events."""

    @property
    def torn(self) -> bool:
        """Whether the chunk ends within a revision."""
        return bool(self.events) and (self.resume is None or self.resume < self.events[-1].revision)


class Observations(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the watchers received."""

    watchers: int
    chunks: list[EventChunk]
    counts: list[int]
    """Number of watchers that received each chunk."""
    steps: list[tuple[int, int, int]]
    """Numbers of watchers that went from one revision to another; 0 is the beginning."""
    ends: list[tuple[int, int]]
    """Numbers of watchers by their last revision."""
    receptions: list[tuple[int, int]]
    """Index of a chunk and monotonic nanoseconds at which a sampled watcher received it."""
    resumed: int
    """Number of watches that were continued at another replica."""
    forgotten: int
    """Number of watches that a replica ended because it no longer had the events."""


class WatchVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of events, and of violations by kind."""

    events: int
    changes: int
    lost: int
    doubled: int
    disordered: int
    wrong: int
    """Events that differ from the write of their revision, torn revisions, and watches whose events were gone."""
    examples: list[str]

    @property
    def good(self) -> bool:
        """Whether every watcher received every change exactly once and in order."""
        return self.lost == self.doubled == self.disordered == self.wrong == 0


def parse(body: bytes) -> EventChunk:
    """Parse a chunk of complete server-sent events."""
    events: list[ObservedEvent] = []
    resume, lost = None, False
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields.get("event") == "lost":
            lost = True
        elif "data" in fields:
            data = msgspec.json.decode(fields["data"])
            events.append(ObservedEvent(data["revision"], data["key"], data.get("value")))
        resume = int(fields["id"]) if "id" in fields else resume
    return EventChunk(events, resume, lost)


def judge(acknowledged: Mapping[int, tuple[str, str]], seen: Observations) -> WatchVerdict:
    """Compare the observations with the acknowledged puts: key and value by revision."""
    expected: dict[int, tuple[str, str | None]] = dict(acknowledged)
    examples: list[str] = []
    wrong = seen.forgotten
    for chunk, count in zip(seen.chunks, seen.counts, strict=True):
        for event in chunk.events:
            change = event.key, event.value
            if expected.setdefault(event.revision, change) != change:
                wrong += count
                examples.append(
                    f"revision {event.revision} was received as {change}, put as {expected[event.revision]}"
                )
        wrong += count * chunk.torn
    order = sorted(expected)
    index = {revision: number for number, revision in enumerate([0, *order])}
    lost = doubled = disordered = 0
    for before, after, count in _steps(seen):
        distance = index[after] - index[before]
        if distance == 1:
            continue
        lost += count * max(0, distance - 1)
        doubled += count * (distance == 0)
        disordered += count * (distance < 0)
        examples.append(f"{count} watchers went from revision {before} to {after}")
    for end, count in seen.ends:
        missing = len(order) - index[end]
        lost += count * missing
        if missing:
            examples.append(f"{count} watchers ended at revision {end}, {missing} changes before the last one")
    return WatchVerdict(
        events=sum(len(chunk.events) * count for chunk, count in zip(seen.chunks, seen.counts, strict=True)),
        changes=len(order),
        lost=lost,
        doubled=doubled,
        disordered=disordered,
        wrong=wrong,
        examples=examples[:MAX_EXAMPLES],
    )


def _steps(seen: Observations) -> Iterator[tuple[int, int, int]]:
    """Yield the steps between chunks and within chunks."""
    yield from seen.steps
    within: Counter[tuple[int, int]] = Counter()
    for chunk, count in zip(seen.chunks, seen.counts, strict=True):
        for before, after in pairwise(event.revision for event in chunk.events):
            within[before, after] += count
    yield from ((before, after, count) for (before, after), count in within.items())


def delays_ms(seen: Observations, answered_ns: Mapping[int, int], began_ns: int, ended_ns: int) -> list[float]:
    """Return the times from the answer of each PUT in an interval to its event at each sampled watcher; 0 for an event
    that came first. `answered_ns` has the times of answers by revision."""
    revisions = [
        [answered_ns[event.revision] for event in chunk.events if event.revision in answered_ns]
        for chunk in seen.chunks
    ]
    return [
        max(0, at_ns - answer_ns) / 1e6
        for chunk, at_ns in seen.receptions
        for answer_ns in revisions[chunk]
        if began_ns <= answer_ns < ended_ns
    ]
