"""One member of a PySyncObj cluster that replicates a dictionary: `python -m bench.peers.pysyncobj_node`.

It says `ready` once there is a leader, and then reads orders from standard input, a line of JSON each. The load is made
in the process of the leader, without any client between: what PySyncObj can do at best. Nothing of it is durable:
PySyncObj keeps its term and vote in memory, and its journal, which is off, is not synced.
"""

import sys
import threading
import time

import msgspec
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.batteries import ReplDict

from bench.peers.pysyncobj import Done, Order

POLL_S = 0.02
TUNED = {
    "autoTickPeriod": 0.001,
    "appendEntriesPeriod": 0.02,
    "appendEntriesBatchSizeBytes": 1 << 20,
    "logCompactionMinEntries": 10_000_000,
    "sendBufferSize": 1 << 20,
    "recvBufferSize": 1 << 20,
}
"""As fast as its settings made it: no compaction within a run, larger batches, a shorter tick."""


class Start(msgspec.Struct):
    """The argument: this member, the others, and whether its settings are `TUNED` or its defaults."""

    own: str
    others: list[str]
    tuned: bool


class Load:
    """Sets, each of which is followed by another one when it was applied."""

    def __init__(self, store: ReplDict, order: Order) -> None:
        self._store = store
        self._order = order
        self._value = "v" * order.value_bytes
        self._number = 0
        self._under_way = 0
        self._ended = threading.Event()
        self._measured_from = time.perf_counter() + order.warm_up_s
        self._until = self._measured_from + order.seconds
        self.done = Done(leads=True, seconds=order.seconds)

    def run(self) -> Done:
        """All of it."""
        for _ in range(self._order.outstanding):
            self._under_way += 1
            self._set()
        self._ended.wait(self._order.warm_up_s + 2 * self._order.seconds + 10)
        self.done.latencies_ms.sort()
        return self.done

    def _set(self) -> None:
        self._number += 1
        began = time.perf_counter()
        key = f"key-{self._number % self._order.keys:05d}"
        self._store.set(key, self._value, callback=lambda _, error: self._applied(began, error))

    def _applied(self, began: float, error: int) -> None:
        now = time.perf_counter()
        if self._measured_from <= now < self._until:
            if error:
                self.done.failed += 1
            else:
                self.done.operations += 1
                self.done.latencies_ms.append(1000 * (now - began))
        if now < self._until:
            self._set()
            return
        self._under_way -= 1
        if not self._under_way:
            self._ended.set()


def main() -> None:
    """Join the others, and do what is asked until standard input ends."""
    start = msgspec.json.decode(sys.argv[1], type=Start)
    store = ReplDict()
    member = SyncObj(start.own, start.others, conf=SyncObjConf(**(TUNED if start.tuned else {})), consumers=[store])
    while not member.isReady():  # nobody tells
        time.sleep(POLL_S)
    print("ready", flush=True)
    for line in sys.stdin:
        order = msgspec.json.decode(line, type=Order)
        leads = member._getLeader() == member.selfNode  # noqa: SLF001 - it has no other way to ask
        done = Load(store, order).run() if leads else Done(leads=False)
        print(msgspec.json.encode(done).decode(), flush=True)


if __name__ == "__main__":
    main()
