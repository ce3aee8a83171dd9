"""Mutants: bugs that are planted on purpose, to show that the checks find them."""

import ast
import io
import textwrap
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from functools import cache
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent.parent
_LAYOUT = frozenset({tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT})
_CLOSING = frozenset({")", "]", "}"})


class Net(StrEnum):
    """The checks that can catch a bug, in the order in which they run."""

    UNIT = "unit"
    SIMULATION = "simulation"
    EXPLORATION = "exploration"


EVERY = frozenset(Net)
UNIT = frozenset({Net.UNIT})
"""The simulation and the exploration have no sockets, no secrets and no processes, and the exploration no SQLite."""


SIMULATED = frozenset({Net.SIMULATION})
"""What the simulation has to find by itself."""
RUNNING = frozenset({Net.UNIT, Net.SIMULATION})
"""The exploration has no clients and no state machine, and checks no liveness: only votes, values and leases."""


class Mutant(msgspec.Struct, frozen=True):
    """One small patch: within `symbol`, the code `before` becomes `after`.

    `symbol` is a module, or a class or function in it: `paxos.acceptor.Acceptor.prepare`. `before` is compared token by
    token, so layout does not matter, and must occur in the symbol exactly once. An empty `after` removes statements.
    With `in_string`, both are parts of a string and are compared as text.

    `breaks` says what is wrong then, `rules` are the rules of docs/rules.md that it breaks, and `nets` are the checks
    that could find it.
    """

    name: str
    rules: tuple[int, ...]
    breaks: str
    symbol: str
    before: str
    after: str
    nets: frozenset[Net] = EVERY
    in_string: bool = False

    @property
    def path(self) -> str:
        """The file that holds the symbol. Raises ValueError if there is none."""
        return self._split()[0]

    def patched(self, source: str) -> str:
        """Return `source` with the bug in it. Raises ValueError if the patch does not fit."""
        first, last = self._span(source)
        if self.in_string:
            return self._patched_text(source, first[0], last[0])
        tokens = [token for token in _tokens(source) if first <= token.start and token.end <= last]
        found = _occurrences(_strings(tokens), _strings(_tokens(textwrap.dedent(self.before).strip())))
        if len(found) != 1:
            raise ValueError(
                f"mutant {self.name}: its code occurs {len(found)} times in {self.symbol}: adapt it to the code"
            )
        kept = [token for token in tokens if token.type not in _LAYOUT]
        start, end = kept[found[0][0]].start, kept[found[0][1] - 1].end
        return _replaced(source, start, end, textwrap.dedent(self.after).strip("\n"))

    def _patched_text(self, source: str, first: int, last: int) -> str:
        lines = source.splitlines(keepends=True)
        part = "".join(lines[max(0, first - 1) : last])
        if part.count(self.before) != 1:
            raise ValueError(f"mutant {self.name}: its text is not in {self.symbol} exactly once: adapt it to the code")
        return source.replace(part, part.replace(self.before, self.after))

    def _split(self) -> tuple[str, list[str]]:
        """Return the path of the module and the names within it."""
        parts = self.symbol.split(".")
        for length in range(len(parts), 0, -1):
            path = "/".join(parts[:length]) + ".py"
            if (ROOT / path).is_file():
                return path, parts[length:]
        raise ValueError(f"mutant {self.name}: there is no module for {self.symbol}: adapt it to the code")

    def _span(self, source: str) -> tuple[tuple[int, int], tuple[int, int]]:
        node: ast.AST = _parsed(source)
        for name in self._split()[1]:
            node = self._child(node, name)
        if isinstance(node, ast.Module):
            return (0, 0), (source.count("\n") + 2, 0)
        assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        return (first, 0), ((node.end_lineno or first) + 1, 0)

    def _child(self, parent: ast.AST, name: str) -> ast.AST:
        definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        for node in ast.walk(parent):
            if isinstance(node, definitions) and node.name == name and node is not parent:
                return node
        raise ValueError(f"mutant {self.name}: there is no {self.symbol}: adapt it to the code")


@cache  # many mutants are planted in the same file
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


@cache
def _tokens(source: str) -> list[tokenize.TokenInfo]:
    """Return the tokens of `source`, which may be a part of an expression with open brackets."""
    found = []
    with suppress(tokenize.TokenError, IndentationError):
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            found.append(token)  # noqa: PERF402 - keeps the tokens before the error
    return [token for token in _joined(found, source) if token.string]


def _joined(tokens: list[tokenize.TokenInfo], source: str) -> Iterator[tokenize.TokenInfo]:
    """Yield the tokens with every f-string as one token, as before Python 3.12."""
    lines, depth, first = source.splitlines(keepends=True), 0, (0, 0)
    for token in tokens:
        kind = tokenize.tok_name[token.type]
        if kind == "FSTRING_START":
            first = token.start if depth == 0 else first
            depth += 1
        elif kind == "FSTRING_END":
            depth -= 1
            if depth == 0:
                text = _text(lines, first, token.end)
                yield tokenize.TokenInfo(tokenize.STRING, text, first, token.end, token.line)
        elif depth == 0:
            yield token


def _text(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    part = lines[start[0] - 1 : end[0]]
    part[-1] = part[-1][: end[1]]
    return "".join([part[0][start[1] :], *part[1:]])


def _strings(tokens: list[tokenize.TokenInfo]) -> list[str]:
    return [token.string for token in tokens if token.type not in _LAYOUT]


def _occurrences(tokens: list[str], wanted: list[str]) -> list[tuple[int, int]]:
    """Return where `wanted` occurs in `tokens`, as (first, behind the last). A comma before a closing bracket may be
    missing on either side, because the formatter adds and removes it."""
    found = []
    for first in range(len(tokens)):
        end = _match(tokens, first, wanted)
        if end is not None:
            found.append((first, end))
    return found


def _match(tokens: list[str], first: int, wanted: list[str]) -> int | None:
    at = first
    for index, token in enumerate(wanted):
        if at < len(tokens) and tokens[at] == token:
            at += 1
        elif tokens[at : at + 1] == [","] and token in _CLOSING and tokens[at + 1 : at + 2] == [token]:
            at += 2
        elif token == "," and wanted[index + 1 : index + 2] and wanted[index + 1] in _CLOSING:
            continue
        else:
            return None
    return at


def _replaced(source: str, start: tuple[int, int], end: tuple[int, int], after: str) -> str:
    lines = source.splitlines(keepends=True)
    head, tail = lines[start[0] - 1][: start[1]], lines[end[0] - 1][end[1] :]
    if not after and not head.strip() and not tail.partition("#")[0].strip():
        after = "pass"
    indent = head[: len(head) - len(head.lstrip())]
    body = ("\n" + indent).join(after.split("\n"))
    return "".join([*lines[: start[0] - 1], head, body, tail, *lines[end[0] :]])
