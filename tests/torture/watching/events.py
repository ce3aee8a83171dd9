"""What watchers took, and whether that is every change, once and in order: pure.

All watchers of a replica get the same chunks, so a chunk is looked into once, and each watcher is known by the steps
that it took from one revision to the next. The truth is what was acknowledged to the writers, and what any watcher saw.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise

import msgspec

EXAMPLES = 5


class Event(msgspec.Struct, frozen=True, array_like=True):
    """`key` holds `value` since `revision`; None: it was deleted."""

    revision: int
    key: str
    value: str | None


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Events that went out together. `resume`: the last id in it; `lost`: it says that events are forgotten."""

    events: list[Event]
    resume: int | None
    lost: bool

    @property
    def torn(self) -> bool:
        """True when it ends in the midst of a revision."""
        return bool(self.events) and (self.resume is None or self.resume < self.events[-1].revision)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What all watchers took. `steps`: how many of them went from one revision to another one, 0 being the beginning;
    `ends`: how many are at which revision at the end. `receptions`: of every so many watchers, which chunk they got and
    when, in monotonic nanoseconds. `resumed`: watches that went on at another replica."""

    watchers: int
    chunks: list[Chunk]
    counts: list[int]
    steps: list[tuple[int, int, int]]
    ends: list[tuple[int, int]]
    receptions: list[tuple[int, int]]
    resumed: int
    forgotten: int


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """`events`: taken by all watchers together. Not lost: in the truth and passed over by a watcher."""

    events: int
    changes: int
    lost: int
    doubled: int
    disorder: int
    wrong: int
    """Events that are not what was put under their revision, or torn off their revision, and watches that a replica
    ended because events were forgotten."""
    examples: list[str]

    @property
    def good(self) -> bool:
        """True when every watcher has had every change, once and in order."""
        return self.lost == self.doubled == self.disorder == self.wrong == 0


def parse(body: bytes) -> Chunk:
    """A chunk of server-sent events, whole blocks of them."""
    events: list[Event] = []
    resume, lost = None, False
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields.get("event") == "lost":
            lost = True
        elif "data" in fields:
            data = msgspec.json.decode(fields["data"])
            events.append(Event(data["revision"], data["key"], data.get("value")))
        resume = int(fields["id"]) if "id" in fields else resume
    return Chunk(events, resume, lost)


def judge(acknowledged: Mapping[int, tuple[str, str]], seen: Seen) -> Judgement:
    """Compare with what was `acknowledged`: key and value by revision."""
    truth: dict[int, tuple[str, str | None]] = dict(acknowledged)
    examples: list[str] = []
    wrong = seen.forgotten
    for chunk, count in zip(seen.chunks, seen.counts, strict=True):
        for event in chunk.events:
            told = event.key, event.value
            if truth.setdefault(event.revision, told) != told:
                wrong += count
                examples.append(f"revision {event.revision} is {told}, and was put as {truth[event.revision]}")
        wrong += count * chunk.torn
    order = sorted(truth)
    place = {revision: number for number, revision in enumerate([0, *order])}
    lost = doubled = disorder = 0
    for before, after, count in _steps(seen):
        distance = place[after] - place[before]
        if distance == 1:
            continue
        lost += count * max(0, distance - 1)
        doubled += count * (distance == 0)
        disorder += count * (distance < 0)
        examples.append(f"{count} watchers went from revision {before} to {after}")
    for end, count in seen.ends:
        missing = len(order) - place[end]
        lost += count * missing
        if missing:
            examples.append(f"{count} watchers ended at revision {end}, {missing} changes before the last one")
    return Judgement(
        events=sum(len(chunk.events) * count for chunk, count in zip(seen.chunks, seen.counts, strict=True)),
        changes=len(order),
        lost=lost,
        doubled=doubled,
        disorder=disorder,
        wrong=wrong,
        examples=examples[:EXAMPLES],
    )


def _steps(seen: Seen) -> Iterator[tuple[int, int, int]]:
    """Those between chunks, and those within them."""
    yield from seen.steps
    within: Counter[tuple[int, int]] = Counter()
    for chunk, count in zip(seen.chunks, seen.counts, strict=True):
        for before, after in pairwise(event.revision for event in chunk.events):
            within[before, after] += count
    yield from ((before, after, count) for (before, after), count in within.items())


def delays_ms(seen: Seen, answered_ns: Mapping[int, int], began_ns: int, ended_ns: int) -> list[float]:
    """From the answer of each PUT that was answered between two instants to its event at each of the watchers that are
    looked at; 0 when the event came first."""
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
