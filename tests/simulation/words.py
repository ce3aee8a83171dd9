"""Messages, values and results in few words, for people who read a trace."""

import msgspec

from kvstore.api.commands import (
    Command,
    CommandBatch,
    Delete,
    DeleteSpan,
    Get,
    LeasedPut,
    List,
    Operation,
    Put,
    Reconfigure,
    Transact,
    unpack_batch,
)
from paxos.types import Ballot, PValue, unpack


def words(thing: object) -> str:
    """A value is shown by the commands in it, a ballot as `round.node`, a message by its name and fields."""
    match thing:
        case bytes():
            return _value(thing)
        case Ballot():
            return str(thing)
        case PValue(slot, ballot, value):
            return f"{slot}@{ballot}={_value(value)}"
        case tuple() | list():
            return "[" + ", ".join(map(words, thing)) + "]"
        case msgspec.Struct():
            fields = (f"{name} {words(getattr(thing, name))}" for name in thing.__struct_fields__)
            return f"{type(thing).__name__}({', '.join(fields)})"
        case _:
            return str(thing)


def _value(value: bytes) -> str:
    """The batches of a slot, or one on its way to the leader; anything else is a key or a value of a client."""
    try:
        return "; ".join(_batch(unpack_batch(payload)) for payload in unpack(value)) or "no-op"
    except msgspec.DecodeError:
        pass
    try:
        return _batch(unpack_batch(value))
    except msgspec.DecodeError:
        return value.decode(errors="backslashreplace")


def _batch(batch: CommandBatch) -> str:
    commands = " ".join(map(_command, batch.commands))
    return f"{batch.origin}/{batch.boot}/{batch.sequence}: {commands}"


def _command(command: Command | Operation) -> str:
    match command:
        case Put(key=key, value=value) | LeasedPut(key=key, value=value):
            return f"{key.decode()}={value.decode()}"
        case Delete(key=key):
            return f"-{key.decode()}"
        case DeleteSpan(span=span):
            return f"-{span.start.decode()}..{(span.end or b'').decode()}"
        case Transact(then=then, otherwise=otherwise):
            branches = (" ".join(map(_command, branch)) for branch in (then, otherwise))
            return f"if {words(command.compares)} ({') else ('.join(branches)})"
        case Get(key=key):
            return f"?{key.decode()}"
        case List(span=span):
            return f"?{span.start.decode()}..{(span.end or b'').decode()}"
        case Reconfigure(membership=membership):
            members = ",".join(f"{member.name}:{member.role}" for member in membership.members)
            return f"members {membership.version} {members}"
        case _:
            return words(command)
