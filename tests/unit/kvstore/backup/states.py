"""A state to take backups of."""

from pathlib import Path

from kvstore.api.commands import Command, CommandBatch, Delete, Put, pack_batch
from kvstore.api.membership import genesis
from kvstore.backup.file import BackupWriter
from kvstore.replica.applier import Applier
from paxos.types import pack
from storage.base import Change

COMMANDS: list[Command] = [
    Put(b"a", b"1"),
    Put(b"b", b"\x00\xff"),
    Put(b"a", b"2"),
    Put(b"gone", b"x"),
    Put("\N{CRAB}".encode(), b""),
    Delete(b"gone"),
]
RECORDS = {
    b"a": (b"2", 3, 1, 2),
    b"b": (b"\x00\xff", 2, 2, 1),
    "\N{CRAB}".encode(): (b"", 5, 5, 1),
}
"""What is left of them: value, revision, create revision, version."""


def value_of(slot: int, command: Command) -> bytes:
    """What stands in `slot`; n1, which proposed it, was at its 17th start."""
    return pack([pack_batch(CommandBatch("n1", 17, slot, slot, [command]))])


def applier_of(*commands: Command) -> tuple[Applier, list[Change]]:
    """A slot for each command, and the rows that they made."""
    applier = Applier(genesis(["n1", "n2", "n3"]))
    for slot, command in enumerate(commands, 1):
        applier.replay(slot, value_of(slot, command))
    return applier, applier.take_changes()


def make_backup(path: Path, *commands: Command) -> Applier:
    """A backup of cluster `old`, and the state that it is of."""
    applier, changes = applier_of(*commands)
    with BackupWriter(path) as writer:
        writer.add(changes[:2])
        writer.add(changes[2:])
        writer.finish(
            applier.progress(), cluster="old", node="n2", kvstore="0.1.0", taken_at="2026-01-02T03:04:05+00:00"
        )
    return applier
