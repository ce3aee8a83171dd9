"""A schedule in words: one line for each step."""

import msgspec

from paxos.messages import AnyMessage
from paxos.types import NOOP, Ballot, PValue, unpack
from tests.exploration.machine import Input
from tests.exploration.space import CONTROLS, LOSING, Broken, Space, StepOutcome, members

WORDS = {CONTROLS[Input.RUN]: "gives up what it did and runs"}
WORDS |= {CONTROLS[Input.CRASH]: "crashes, loses {lost} and starts again"}
WORDS |= {CONTROLS[Input.TICK]: "finds that a deadline has passed"}
WORDS |= {CONTROLS[Input.HAND_OVER]: "hands over"}


class ScheduleLine(msgspec.Struct):
    """A step that happened: what is told of it, the letter that it needed, and those it was the first to send."""

    text: str
    needs: int = 0
    sends: int = 0
    optional: bool = False


def readable(value: bytes) -> str:
    """A value of a slot."""
    return "no-op" if value == NOOP else "+".join(repr(payload.decode()) for payload in unpack(value))


def supported(message: AnyMessage) -> str:
    """A message with its fields."""
    fields = [_field(name, getattr(message, name)) for name in message.__struct_fields__]
    return f"{type(message).__name__}({', '.join(fields)})"


def _field(name: str, value: object) -> str:
    match value:
        case Ballot():
            return str(value) if name == "ballot" else f"{name} {value}"
        case PValue():
            return f"slot {value.slot}: {readable(value.value)} under {value.ballot}"
        case bytes():
            return readable(value)
        case tuple():
            return f"{name} [{', '.join(_field('', item) for item in value)}]"
    return f"{name} {value}"


def told(space: Space, steps: list[tuple[int, int]], broken: Broken) -> str:
    """The steps, each a place and a code, from the beginning to what is broken; deliveries that only brought answers
    are left out unless something later needs them."""
    replay = Replay(space)
    for place, code in steps:
        replay.step(place, code)
    if broken.step is not None and steps[-1:] != [broken.step]:
        replay.tell(*broken.step, None)
    lines = [f"{number:3}. {text}" for number, text in enumerate(replay.needed(), 1)]
    return "\n".join([*lines, f"  => {broken.what}"])


class Replay:
    """Goes through a schedule again and writes it down."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._machines = space.begin
        self._sent = space.sent
        self._lines: list[ScheduleLine] = []
        self._answer()

    def step(self, place: int, code: int) -> None:
        """One step of the search, which may be the one that breaks."""
        machines = self._machines
        if place == len(machines):
            self._lines.append(ScheduleLine("time passes"))
            after = [self._space.outcome(at, number, code).after for at, number in enumerate(machines)]
            self._machines = tuple(after)
        else:
            try:
                outcome = self._space.outcome(place, machines[place], code)
            except Broken:
                self.tell(place, code, None)
                return
            self.tell(place, code, outcome)
            self._machines = (*machines[:place], outcome.after, *machines[place + 1 :])
            self._sent |= outcome.sends
        self._answer()

    def tell(self, place: int, code: int, outcome: StepOutcome | None, *, optional: bool = False) -> None:
        """Write a step down; `outcome` None: it breaks."""
        sends = outcome.sends & ~self._sent if outcome is not None else 0
        losing = code >= LOSING // 2
        code = code - LOSING if losing else code
        name = self._space.names[place]
        if code >= 0:
            letter = self._space.letters[code]
            text = f"{name} receives {supported(letter.message)} from {letter.sender}"
        else:
            text = f"{name} {WORDS[code]}".format(lost=self._lost(self._machines[place]))
        if losing:
            text += "; what it writes is not durable and will be lost"
        for letter in (self._space.letters[number] for number in members(sends)):
            text += f"\n       -> {letter.to}: {supported(letter.message)}"
        self._lines.append(ScheduleLine(text, 1 << code if code >= 0 else 0, sends, optional))

    def needed(self) -> list[str]:
        """The steps that lead to the end."""
        needs, texts = 0, []
        for line in reversed(self._lines):
            if not line.optional or line.sends & needs:
                needs |= line.needs
                texts.append(line.text)
        return texts[::-1]

    def _answer(self) -> None:
        try:
            sent, answers = self._space.answer(self._machines, self._sent, 0)
        except Broken:
            return
        for place, code, outcome in answers:
            self.tell(place, code, outcome, optional=True)
            self._sent |= outcome.sends
        self._sent = sent

    def _lost(self, number: int) -> str:
        return "what was not durable" if self._space.locals[number].losing else "nothing"
