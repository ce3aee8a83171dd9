"""The part of the log in memory: all accepted values above the chosen prefix, and a bounded number below it."""

from paxos.errors import require
from paxos.options import Options
from paxos.types import Ballot, PValue, Slot


class Log:
    """Accepted values by slot, from `floor` on. Storage holds the older values that are not truncated.

    The chosen prefix, `chosen`, only grows, and the values up to it never change.
    """

    def __init__(self, options: Options, chosen: Slot, tail: list[PValue]) -> None:
        """Load `tail`, the stored values in order of their slots, which begin at or below `chosen` + 1."""
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
        """Return the value accepted for `slot`, None if there is none in memory."""
        return self._held.get(slot)

    def last_under(self, ballot: Ballot) -> Slot:
        """Return the highest slot in memory that was accepted under `ballot`, 0 for none."""
        return max((pvalue.slot for pvalue in self._held.values() if pvalue.ballot == ballot), default=0)

    def put(self, pvalue: PValue) -> None:
        """Store `pvalue` in place of any earlier value of its slot. Raises InvariantError if that would change a chosen
        value."""
        slot = pvalue.slot
        held = self._held.get(slot)
        if slot <= self.chosen:
            require(held is None or held.value == pvalue.value, f"slot {slot} is chosen and was given another value")
        if slot >= self.floor:
            self._held[slot] = pvalue
            self.last = max(self.last, slot)

    def choose_next(self) -> PValue:
        """Advance the chosen prefix by one slot and return the value of the slot. The caller knows that the value in
        memory is the chosen one."""
        pvalue = self._held[self.chosen + 1]
        self.chosen += 1
        self._chosen_bytes += len(pvalue.value)
        self._trim()
        return pvalue

    def skip_to(self, slot: Slot) -> None:
        """Drop all values up to `slot` and set the chosen prefix there: a snapshot contains their effect."""
        require(slot > self.chosen, f"the chosen prefix would go down from {self.chosen} to {slot}")
        self._held = {held: pvalue for held, pvalue in self._held.items() if held > slot}
        self._chosen_bytes = 0
        self.chosen = slot
        self.last = max(self.last, slot)
        self.floor = slot + 1

    def page(self, from_slot: Slot) -> tuple[tuple[PValue, ...], Slot]:
        """Return the accepted values from `from_slot` on that fit one page, and the first slot of the next page (0 if
        there is none). Raises InvariantError if `from_slot` is below the floor (rule 11)."""
        require(from_slot >= self.floor, f"a page from slot {from_slot} on lacks the values below slot {self.floor}")
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
