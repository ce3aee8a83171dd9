"""A member of a PySyncObj cluster that replicates a dictionary: `python -m bench.compare.pysyncobj_member`.

The member prints `ready` once there is a leader, and then reads loads from standard input, one line of JSON each. The
leader runs the load in its own process, without a client, which is the best case of PySyncObj. Nothing is durable: term
and vote are in memory, and the journal is off.
"""

import sys
import threading
import time

import msgspec
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.batteries import ReplDict

from bench.compare.pysyncobj import MemberOptions, SetLoad, SetLoadResult

POLL_S = 0.02
TUNED = {
    "autoTickPeriod": 0.001,
    "appendEntriesPeriod": 0.02,
    "appendEntriesBatchSizeBytes": 1 << 20,
    "logCompactionMinEntries": 10_000_000,
    "sendBufferSize": 1 << 20,
    "recvBufferSize": 1 << 20,
}
"""The fastest known settings: no compaction within a run, larger batches, a shorter tick."""


class SetLoop:
    """A closed loop of set operations: the next one starts when one is applied."""

    def __init__(self, store: ReplDict, load: SetLoad) -> None:
        self._store = store
        self._load = load
        self._value = "v" * load.value_bytes
        self._number = 0
        self._in_flight = 0
        self._ended = threading.Event()
        self._measured_from = time.perf_counter() + load.warm_up_s
        self._until = self._measured_from + load.seconds
        self._result = SetLoadResult(leads=True)

    def run(self) -> SetLoadResult:
        """Run the load."""
        for _ in range(self._load.outstanding):
            self._in_flight += 1
            self._set()
        self._ended.wait(self._load.warm_up_s + 2 * self._load.seconds + 10)
        self._result.latencies_ms.sort()
        return self._result

    def _set(self) -> None:
        self._number += 1
        began = time.perf_counter()
        key = f"key-{self._number % self._load.keys:05d}"
        self._store.set(key, self._value, callback=lambda _, error: self._applied(began, error))

    def _applied(self, began: float, error: int) -> None:
        now = time.perf_counter()
        if self._measured_from <= now < self._until:
            if error:
                self._result.failed += 1
            else:
                self._result.sets += 1
                self._result.latencies_ms.append(1000 * (now - began))
        if now < self._until:
            self._set()
            return
        self._in_flight -= 1
        if not self._in_flight:
            self._ended.set()


def main() -> None:
    """Join the other members, and run loads until standard input ends."""
    options = msgspec.json.decode(sys.argv[1], type=MemberOptions)
    store = ReplDict()
    configuration = SyncObjConf(**(TUNED if options.tuned else {}))
    member = SyncObj(options.own, options.others, conf=configuration, consumers=[store])
    while not member.isReady():
        time.sleep(POLL_S)
    print("ready", flush=True)
    for line in sys.stdin:
        load = msgspec.json.decode(line, type=SetLoad)
        leads = member._getLeader() == member.selfNode  # noqa: SLF001 - there is no public way to ask
        result = SetLoop(store, load).run() if leads else SetLoadResult(leads=False)
        print(msgspec.json.encode(result).decode(), flush=True)


if __name__ == "__main__":
    main()
