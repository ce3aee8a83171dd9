"""The accepted values that an acceptor keeps at hand: all above the chosen prefix, and a bounded tail below it."""

from paxos.errors import require
from paxos.options import Options
from paxos.types import Ballot, PValue, Slot


class Log:
    """Accepted values by slot, from `floor` on. Storage holds the older ones.

    `chosen` is the chosen prefix: it only grows, and the values up to it never change.
    """

    def __init__(self, options: Options, chosen: Slot, tail: list[PValue]) -> None:
        """`tail`: what storage holds from some slot at or below `chosen` + 1 on, in order."""
        self._options = options
        self._held: dict[Slot, PValue] = {}
        self._chosen_bytes = 0
        self.chosen = chosen
        self.last = chosen
        self.floor = min(tail[0].slot, chosen + 1) if tail else chosen + 1
        for pvalue in tail:
            self._held[pvalue.slot] = pvalue
            self.last = max(self.last, pvalue.slot)
            if pvalue.slot <= chosen:
                self._chosen_bytes += len(pvalue.value)
        self._trim()

    def get(self, slot: Slot) -> PValue | None:
        """What was accepted for `slot`, when it is at hand."""
        return self._held.get(slot)

    def last_under(self, ballot: Ballot) -> Slot:
        """Highest slot at hand that was accepted under `ballot`; 0 for none."""
        return max((pvalue.slot for pvalue in self._held.values() if pvalue.ballot == ballot), default=0)

    def put(self, pvalue: PValue) -> None:
        """Hold `pvalue` in place of what was held for its slot."""
        slot = pvalue.slot
        held = self._held.get(slot)
        if slot <= self.chosen:
            require(held is None or held.value == pvalue.value, f"slot {slot} is chosen and was given another value")
        if slot >= self.floor:
            self._held[slot] = pvalue
            self.last = max(self.last, slot)

    def choose_next(self) -> PValue:
        """Move the chosen prefix over the next slot, whose held value is the chosen one."""
        pvalue = self._held[self.chosen + 1]
        self.chosen += 1
        self._chosen_bytes += len(pvalue.value)
        self._trim()
        return pvalue

    def skip_to(self, slot: Slot) -> None:
        """Everything up to `slot` is chosen, and what it led to is known: it is not needed here."""
        require(slot > self.chosen, "the chosen prefix never goes down")
        self._held = {held: pvalue for held, pvalue in self._held.items() if held > slot}
        self._chosen_bytes = 0
        self.chosen = slot
        self.last = max(self.last, slot)
        self.floor = slot + 1

    def page(self, from_slot: Slot) -> tuple[tuple[PValue, ...], Slot]:
        """Accepted values from `from_slot` on that fit a page, and the slot with which the next page begins (0:
        none)."""
        require(from_slot >= self.floor, "a page below the floor would look like slots without a value")
        pvalues: list[PValue] = []
        room = self._options.page_bytes
        for slot in range(from_slot, self.last + 1):
            pvalue = self._held.get(slot)
            if pvalue is None:
                continue
            room -= len(pvalue.value)
            if room < 0 and pvalues:
                return tuple(pvalues), slot
            pvalues.append(pvalue)
        return tuple(pvalues), 0

    def _trim(self) -> None:
        options = self._options
        while self.floor <= self.chosen and (
            self.chosen - self.floor >= options.recent_slots or self._chosen_bytes > options.recent_bytes
        ):
            self._chosen_bytes -= len(self._held.pop(self.floor).value)
            self.floor += 1
