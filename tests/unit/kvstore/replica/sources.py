"""Replicas that hold a state and are asked for it, page by page."""

from collections.abc import Iterable, Iterator

from kvstore.api.commands import Command, CommandBatch, Put, pack_batch
from kvstore.api.membership import MembershipVersion
from kvstore.replica.applier import Applier
from kvstore.replica.snapshot_send import state_message
from paxos.messages import FetchSnapshot, SnapshotPage
from paxos.types import Ballot, PValue, Slot, pack
from storage.base import StagedPage, StateWrite, Truncation, first_of
from storage.memory import MemoryStorage
from tests.unit.kvstore.memberships import genesis

B1 = Ballot(1, "n2")
VOTERS = ("n1", "n2", "n3")


def in_slot(slot: Slot, *commands: Command) -> bytes:
    """The value of a slot with one batch of n1."""
    return pack([pack_batch(CommandBatch("n1.1", 1, slot, slot, list(commands)))])


class Source:
    """A replica that has applied a slot for each command, stored it, and answers for it."""

    def __init__(
        self, *commands: Command, node: str = "n2", memberships: list[MembershipVersion] | None = None
    ) -> None:
        self.storage = MemoryStorage("test", node)
        self.applier = Applier(genesis(VOTERS) if memberships is None else memberships)
        self.apply(*commands)

    def apply(self, *commands: Command) -> None:
        """Some slots more."""
        for command in commands:
            slot = self.applier.applied + 1
            value = in_slot(slot, command)
            self.applier.replay(slot, value)
            accepts = [PValue(slot, B1, value)]
            changes, progress = self.applier.take_changes(), self.applier.progress()
            write = StateWrite(promise=B1, accepts=accepts, chosen=slot, changes=changes, progress=progress)
            self.storage.write([write])

    def compact(self, upto: int) -> None:
        """What is superseded up to this revision goes."""
        self.storage.write([StateWrite(compact=first_of(upto))])

    def cut(self, slot: Slot) -> None:
        """The log up to here goes; its chain is not looked at."""
        self.storage.write([StateWrite(truncate=Truncation(slot, bytes(16)))])

    def answer(self, question: FetchSnapshot, max_bytes: int = 1 << 20) -> SnapshotPage:
        """A page."""
        return state_message(question.after, self.storage.read_state(question.after, max_bytes))


def puts(*keys: bytes) -> list[Command]:
    """A put of each key, with a value of one byte: a row of it takes as many bytes as the key has, and one."""
    return [Put(key, b"%d" % (number % 10)) for number, key in enumerate(keys)]


def store(storage: MemoryStorage, pages: Iterable[StagedPage]) -> None:
    """As a replica does that is being given them."""
    storage.write([StateWrite(staged=page) for page in pages])


def pages_of(source: Source, max_bytes: int) -> Iterator[SnapshotPage]:
    """All of its state."""
    after = 0
    while True:
        message = source.answer(FetchSnapshot(after), max_bytes)
        yield message
        if message.end:
            return
        after = source.storage.read_state(after, max_bytes).changes[-1].position
