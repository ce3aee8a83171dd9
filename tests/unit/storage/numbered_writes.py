"""A process that other tests kill or watch: it stores numbered transactions and reports each one that is durable.

Arguments: the directory, the number of transactions, the bytes of each value. Lines on standard output: `open`, then
`1`, `2` .. for each transaction t, which raises the promise to round t and fills the slots 2t-1 and 2t; `votes` after
a write without records; at last the message of a StorageError, or `end`. It continues where the directory's data ends.
"""

import os
import sys
from pathlib import Path

from paxos.messages import Accepted
from paxos.ready import Envelope, Write
from paxos.types import Ballot, PValue, Slot
from storage.base import StorageError
from storage.sqlite import open_storage

MEMBERS = ("n1", "n2", "n3")


def transaction(number: int, size: int) -> list[Write]:
    first, second = slots(number)
    return [
        Write(promise=Ballot(number, "n1"), accepts=[entry(first, size)]),
        Write(accepts=[entry(second, size)], chosen=second),
    ]


def slots(number: int) -> tuple[Slot, Slot]:
    return 2 * number - 1, 2 * number


def entry(slot: Slot, size: int) -> PValue:
    return PValue(slot, Ballot((slot + 1) // 2, "n1"), slot.to_bytes(8, "big") * (size // 8))


def report(line: object) -> None:
    os.write(1, f"{line}\n".encode())


def main(directory: Path, count: int, size: int) -> None:
    storage = open_storage(directory, "test", "n1", MEMBERS)
    report("open")
    first = storage.recovered().promised.round + 1
    for number in range(first, first + count):
        storage.write(transaction(number, size))
        report(number)
    storage.write([Write(votes=[Envelope("n2", Accepted(Ballot(1, "n1"), 1))])])
    report("votes")
    storage.close()
    report("end")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    except StorageError as error:
        report(error)
