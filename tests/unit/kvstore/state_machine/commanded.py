"""A state machine that a test gives one command after the other."""

from kvstore.api.commands import Command, CommandBatch, Result, pack_batch, unpack_batch
from kvstore.api.key_range import EVERY_KEY
from kvstore.state_machine.state_machine import StateMachine


class CommandedStore:
    """A state machine, and batches of one command each for it, as they come out of the log."""

    def __init__(self, *commands: Command) -> None:
        self.machine = StateMachine([])
        self._count = 0
        for command in commands:
            self.do(command)

    def do(self, command: Command) -> Result:
        """What the command gives."""
        self._count += 1
        batch = unpack_batch(pack_batch(CommandBatch("n1", 1, self._count, self._count, [command])))
        results = self.machine.apply(batch, 1)
        assert results is not None
        return results[0]

    @property
    def content(self) -> dict[bytes, bytes]:
        """What the keys hold."""
        return {key: record.value for key, record in self.machine.records.items()}

    @property
    def keys(self) -> list[bytes]:
        """Those that are there."""
        return list(self.machine.keys(EVERY_KEY))

    def loaded(self) -> StateMachine:
        """The same out of what is stored of it."""
        machine = StateMachine([])
        for change in self.machine.changes:
            machine.load(change)
        machine.sort()
        return machine
