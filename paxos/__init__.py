"""Multi-Paxos with leader leases: the protocol core.

The core does no I/O and reads no clock. A host passes every event, with the current time, to a `Replica` and carries
out the `Ready` that `Replica.take` returns: messages to send, records to make durable, values to apply. The same code
therefore runs in the server, in the simulator and in the explorer.

Import rules: `paxos` imports only the standard library and msgspec. The replica, its peer links and its server may
import all of `paxos` except `paxos.lecture`, the material for teaching, which nothing imports. Other packages may
import only `paxos.types`; `storage` also imports `paxos.ready`, and `kvstore.api` also `paxos.configuration`.
docs/architecture.md has the whole table.

The names below are loaded on first use, because clients import `paxos.types` and need no replica.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paxos.messages import AnyMessage
    from paxos.options import Options
    from paxos.ready import Ready
    from paxos.replica import Replica
    from paxos.role import Role

__all__ = ["AnyMessage", "Options", "Ready", "Replica", "Role"]

_MODULES = {
    "AnyMessage": "messages",
    "Options": "options",
    "Ready": "ready",
    "Replica": "replica",
    "Role": "role",
}


def __getattr__(name: str) -> object:
    """Load an exported name."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
