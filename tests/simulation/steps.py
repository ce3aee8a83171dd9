"""Short steps, so that a log entry of a few commands is applied in part."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from kvstore.replica import checkpointer
from kvstore.state_machine import leases, state_machine, transactions


@contextmanager
def short_steps(records: int) -> Iterator[None]:
    """During the block a step of a node applies about `records`, and a command stops after each; 0 for the product."""
    with ExitStack() as patches:
        if records:
            for module in (state_machine, transactions, leases):
                patches.enter_context(patch.object(module, "STEP_RECORDS", 1))
            for name, value in (("SCANNED_RECORDS", 1), ("_SCANNED_PER_RECORD", 1)):
                patches.enter_context(patch.object(transactions, name, value))
            patches.enter_context(patch.object(checkpointer, "APPLIED_RECORDS", records))
        yield
