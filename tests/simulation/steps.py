"""Short steps and few kept answers, so that a log entry of a few commands is applied in part, and numbers grow old."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType

from kvstore.replica import checkpointer
from kvstore.state_machine import idempotency, leases, state_machine, transactions

Constant = tuple[ModuleType, str, object]
_STEPS: tuple[tuple[ModuleType, str], ...] = (
    (state_machine, "STEP_RECORDS"),
    (transactions, "STEP_RECORDS"),
    (leases, "STEP_RECORDS"),
    (transactions, "SCANNED_RECORDS"),
    (transactions, "_SCANNED_PER_RECORD"),
)


def short_steps(records: int, kept: int = 0) -> AbstractContextManager[None]:
    """Let a step of a node apply about `records` during the block, and a command stop after each record. The answers to
    the last `kept` numbers of a lease are kept. 0 stands for the product's values."""
    if not records and not kept:
        return nullcontext()
    values: list[Constant] = [(module, name, 1) for module, name in _STEPS] if records else []
    if records:
        values += [(checkpointer, "APPLIED_RECORDS", records), (checkpointer, "FORGOTTEN", records)]
    if kept:
        values.append((idempotency, "KEPT", kept))
    return replaced(values)


@contextmanager
def replaced(constants: Iterable[Constant]) -> Iterator[None]:
    """During the block these constants have these values. It is called for every step, so it has to be quick."""
    before = []
    try:
        for module, name, value in constants:
            before.append((module, name, getattr(module, name)))
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
