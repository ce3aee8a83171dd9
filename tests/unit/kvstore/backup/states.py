"""A small state, and backups of it."""

from pathlib import Path

from kvstore.api.commands import Command, CommandBatch, Delete, Put, pack_batch
from kvstore.backup.file import BackupWriter
from kvstore.replica.applier import Applier
from paxos.types import pack
from storage.base import Change
from tests.unit.kvstore.memberships import genesis

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
"""Records after `COMMANDS`: value, revision, create revision, version."""


def value_of(slot: int, command: Command) -> bytes:
    """Return the value of `slot`, proposed by n1 in its 17th start."""
    return pack([pack_batch(CommandBatch("n1", 17, slot, slot, [command]))])


def applier_of(*commands: Command) -> tuple[Applier, list[Change]]:
    """Apply one slot for each command, and return the applier and the changed rows."""
    applier = Applier(genesis(["n1", "n2", "n3"]))
    for slot, command in enumerate(commands, 1):
        applier.replay(slot, value_of(slot, command))
    return applier, applier.take_changes()


def make_backup(path: Path, *commands: Command) -> Applier:
    """Write a backup of cluster `old`, and return its state."""
    applier, changes = applier_of(*commands)
    with BackupWriter(path) as writer:
        writer.add(changes[:2])
        writer.add(changes[2:])
        writer.finish(
            applier.progress(), cluster="old", node="n2", kvstore="0.1.0", taken_at="2026-01-02T03:04:05+00:00"
        )
    return applier
