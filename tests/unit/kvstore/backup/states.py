"""A state to take backups of."""

from pathlib import Path

from kvstore.api.commands import Bundle, Command, Delete, Put, pack_bundle
from kvstore.api.membership import genesis
from kvstore.backup.file import BackupWriter
from kvstore.replica.applier import Ledger
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
    return pack([pack_bundle(Bundle("n1", 17, slot, slot, [command]))])


def ledger_of(*commands: Command) -> tuple[Ledger, list[Change]]:
    """A slot for each command, and the rows that they made."""
    ledger = Ledger(genesis(["n1", "n2", "n3"]))
    for slot, command in enumerate(commands, 1):
        ledger.replay(slot, value_of(slot, command))
    return ledger, ledger.take_changes()


def make_backup(path: Path, *commands: Command) -> Ledger:
    """A backup of cluster `old`, and the state that it is of."""
    ledger, changes = ledger_of(*commands)
    with BackupWriter(path) as writer:
        writer.add(changes[:2])
        writer.add(changes[2:])
        writer.finish(
            ledger.progress(), cluster="old", node="n2", kvstore="0.1.0", taken_at="2026-01-02T03:04:05+00:00"
        )
    return ledger
