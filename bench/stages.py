"""Assignment of sampled stacks to the stages of a request.

A sample belongs to the stage of the innermost frame that a rule matches. Time in C code (SQLite, sockets, encoders)
counts for the Python function that called it. Rules match folders and, in the HTTP front end, function names, so that
most refactorings do not affect them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

OTHER = "other threads"

RULES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (stage, re.compile(pattern))
    for stage, pattern in (
        ("metrics", r"/prometheus_client/|/kvstore/server/metrics\.py"),
        ("parse HTTP", r"/kvstore/server/http/(?:[^ ]*/)?(?:body|target|pars\w*|head\w*|request\w*)\.py|/httptools/"),
        ("parse HTTP", r"/kvstore/server/http/[^ ]* [\w.]*(?:pars|header|decode|data_received|feed)"),
        ("answer", r"/kvstore/server/http/(?:[^ ]*/)?(?:answer|problems|response\w*)\.py"),
        ("answer", r"/kvstore/server/http/[^ ]* [\w.]*(?:answer|respond|render|write|send|flush)"),
        ("HTTP front end", r"/kvstore/server/http/"),
        ("HTTP library", r"/(?:aiohttp|yarl|multidict|propcache|aiosignal|frozenlist)/"),
        ("apply", r"/kvstore/(?:state_machine/|api/commands\.py)"),
        ("peer links", r"/kvstore/peers/|/paxos/wire\.py"),
        ("paxos", r"/paxos/"),
        ("storage: SQLite and fsync", r"/storage/"),
        ("server", r"/kvstore/server/"),
        ("replica", r"/kvstore/(?:replica|api)/"),
        ("event loop", r"/(?:asyncio|uvloop)/|/selectors\.py|/kvstore/cli/"),
        ("threads", r"/(?:threading|queue)\.py|/concurrent/"),
    )
)
"""Patterns for `path function` of a frame, tried in this order."""

_THREAD = re.compile(r"^thread \((0x[0-9a-fA-F]+|\d+)\)")
_FRAME = re.compile(r"^(?P<function>.*) \((?P<path>.*?)(?::\d+)?\)$")


class StackSamples(msgspec.Struct, frozen=True):
    """Number of samples of one thread, by stage and by innermost function."""

    stages: Counter[str]
    functions: Counter[str]


def read(stacks: Iterable[str]) -> dict[int, StackSamples]:
    """Return the samples in the output of `py-spy record --format raw --threads`, by thread id.

    A line has the thread with its id in parentheses, the frames from the outermost to the innermost, all separated by
    semicolons, and the number of samples.
    """
    threads: dict[int, StackSamples] = {}
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        thread, *stack = frames.split(";")
        named = _THREAD.match(thread)
        if named is None or not stack:
            continue
        samples = threads.setdefault(int(named[1], 0), StackSamples(Counter(), Counter()))
        samples.stages[stage_of(stack)] += int(count)
        samples.functions[_short(stack[-1])] += int(count)
    return threads


def costs(cpu_us: Mapping[int, float], samples: Mapping[int, Counter[str]]) -> dict[str, float]:
    """Split the CPU time of each thread by its samples, the largest share first; a thread without samples is OTHER.

    Samples cannot measure CPU time, because they also show threads that wait for a core or for the disk.
    """
    shares: dict[str, float] = {}
    for thread, used in cpu_us.items():
        counts = samples.get(thread) or Counter({OTHER: 1})
        for name, count in counts.items():
            shares[name] = shares.get(name, 0.0) + used * count / counts.total()
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def stage_of(stack: list[str]) -> str:
    """Return the stage of a stack, whose frames are ordered from the outermost to the innermost."""
    for frame in reversed(stack):
        parsed = _FRAME.match(frame)
        if parsed is None:
            continue
        location = f"{parsed['path']} {parsed['function']}"
        for stage, pattern in RULES:
            if pattern.search(location):
                return stage
    return OTHER


def _short(frame: str) -> str:
    """Return a function with the last two parts of its path."""
    parsed = _FRAME.match(frame)
    return frame if parsed is None else f"{'/'.join(parsed['path'].split('/')[-2:])} {parsed['function']}"
