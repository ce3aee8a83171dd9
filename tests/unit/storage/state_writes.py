"""A process that other tests kill: it stores the transactions of `states.numbered`, tidies between them, and reports
the number of each that is durable. Arguments: the directory, the bytes of each value. It continues where the data ends.
"""

import sys
from itertools import islice
from pathlib import Path

from storage.sqlite import open_storage
from tests.unit.storage.numbered_writes import MEMBERS, report
from tests.unit.storage.states import numbered


def main(directory: Path, size: int) -> None:
    storage = open_storage(directory, "test", "n1", MEMBERS)
    report("open")
    first = storage.recovered().promised.round
    for number, writes in enumerate(islice(numbered(size), first, None), first + 1):
        storage.write(writes)
        report(number)
        storage.maintain()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
