"""Samples of stacks, and the stage of a request that each belongs to: pure.

A sample belongs to the innermost of its frames that a rule knows. What is done in C (SQLite, a socket, an encoder)
counts as the Python function that called it. Rules go by files and folders, and within the HTTP front end by what
functions are called, so they hold when code moves within its folder.
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
"""In order; each looks at `path function` of a frame."""

_THREAD = re.compile(r"^thread \((0x[0-9a-fA-F]+|\d+)\)")
_FRAME = re.compile(r"^(?P<function>.*) \((?P<path>.*?)(?::\d+)?\)$")


class Samples(msgspec.Struct, frozen=True):
    """Of one thread: how often each stage, and each innermost function, was seen."""

    stages: Counter[str]
    functions: Counter[str]


def read(stacks: Iterable[str]) -> dict[int, Samples]:
    """By thread, out of lines as `py-spy record --format raw --threads` writes them: frames from the outermost to the
    innermost, separated by semicolons, first the thread with its id in parentheses, then functions with their files in
    them, at the end how often the stack was seen."""
    found: dict[int, Samples] = {}
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        thread, *stack = frames.split(";")
        named = _THREAD.match(thread)
        if named is None or not stack:
            continue
        samples = found.setdefault(int(named[1], 0), Samples(Counter(), Counter()))
        samples.stages[stage_of(stack)] += int(count)
        samples.functions[_short(stack[-1])] += int(count)
    return found


def costs(cpu_us: Mapping[int, float], seen: Mapping[int, Counter[str]]) -> dict[str, float]:
    """What each thread has used, dealt out as it was seen: the dearest first. A thread that was never seen is OTHER.

    A sample says that a thread ran, waited for a core, or for the disk; so what a thread has used is taken from the
    system, and samples only divide it.
    """
    shared: dict[str, float] = {}
    for thread, used in cpu_us.items():
        counts = seen.get(thread) or Counter({OTHER: 1})
        for name, count in counts.items():
            shared[name] = shared.get(name, 0.0) + used * count / counts.total()
    return dict(sorted(shared.items(), key=lambda item: -item[1]))


def stage_of(stack: list[str]) -> str:
    """The stage of a stack, from the outermost frame to the innermost."""
    for frame in reversed(stack):
        parsed = _FRAME.match(frame)
        if parsed is None:
            continue
        place = f"{parsed['path']} {parsed['function']}"
        for stage, pattern in RULES:
            if pattern.search(place):
                return stage
    return OTHER


def _short(frame: str) -> str:
    """A function with the last two parts of its path."""
    parsed = _FRAME.match(frame)
    return frame if parsed is None else f"{'/'.join(parsed['path'].split('/')[-2:])} {parsed['function']}"
