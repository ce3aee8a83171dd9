"""The one thread that owns a Storage, so that the event loop never waits for the disk.

    event loop                       writer thread                    storage
        | submit(write) ...               |                              |
        |-------------------------------->| all writes that are queued   |
        |                                 |----------------------------->| one transaction
        |      on_durable(writes, seconds)|                              |
        |<--------------------------------|                              |

While one transaction is under way the next one gathers: no delay is added at low load, commits are shared at high load.
When nothing was asked for a while the thread tidies the storage, slice by slice: a write waits for one of them at most.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import NamedTuple

from paxos.ready import Write
from paxos.types import PValue, Slot
from storage.base import StatePage, Storage, has_records

IDLE_S = 0.1
"""After so long without a job the storage is tidied, until there is one. Under load it tidies in its own writes, and
does less: of a key that is written again meanwhile it need not store what it held before."""


class _Read(NamedTuple):
    run: Callable[[], Callable[[], None]]
    """Reads, and gives what to post."""


class _Stop:
    pass


_Job = Write | _Read | _Stop


class Writer:
    """Stores and reads in the order of the calls, and reports through `post`, which may be called from any thread and
    runs callbacks in their order in the caller's thread (an event loop's `call_soon_threadsafe`):

    - `on_durable(writes, seconds)`: these writes are durable, in the order of their `submit`. They shared a transaction
      that took `seconds`; 0.0 when none of them held a record, so that the disk was not touched.
    - `on_failure(error)`: storage failed (rule 4), and the transaction under way may be durable or not. It comes once;
      nothing is stored, read or reported any more, and the storage is left as it is: the process has to end.
    """

    def __init__(
        self,
        storage: Storage,
        post: Callable[[Callable[[], None]], object],
        on_durable: Callable[[list[Write], float], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._storage = storage
        self._post = post
        self._on_durable = on_durable
        self._on_failure = on_failure
        # Measured against a deque under a Condition, submit to on_durable under uvloop: 10 to 25 % less at the median.
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._taken: deque[_Job] = deque()
        self._needs_maintenance = True
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)
        self._thread.start()

    def submit(self, write: Write) -> None:
        """Store `write` after all that was submitted before it."""
        self._queue.put(write)

    def read(self, from_slot: Slot, upto: Slot, max_bytes: int, done: Callable[[list[PValue]], None]) -> None:
        """`Storage.read` once all that was submitted before is durable; the entries go to `done`."""
        self._queue.put(_Read(lambda: partial(done, self._storage.read(from_slot, upto, max_bytes))))

    def read_state(
        self, after: int, max_bytes: int, done: Callable[[StatePage], None], *, staged: bool = False
    ) -> None:
        """`Storage.read_state` once all that was submitted before is durable; the page goes to `done`."""
        self._queue.put(_Read(lambda: partial(done, self._storage.read_state(after, max_bytes, staged=staged))))

    def stop(self) -> None:
        """Finish what is queued, close the storage and wait for that. What is submitted later is never stored."""
        self._queue.put(_Stop())
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._work():
                pass
            self._storage.close()
        except Exception as error:  # noqa: BLE001 -- whatever it is, a storage that failed is not used again
            self._post(partial(self._on_failure, error))

    def _work(self) -> bool:
        """One transaction, one read, or the end (False)."""
        self._take()
        job = self._taken.popleft()
        if isinstance(job, _Stop):
            return False
        if isinstance(job, _Read):
            self._post(job.run())
        else:
            self._store([job, *self._further_writes()])
        return True

    def _take(self) -> None:
        """Take all that is queued; wait only when there is nothing to do, and tidy meanwhile."""
        wait_s: float = IDLE_S
        while not self._taken:
            try:
                self._taken.append(self._queue.get(timeout=wait_s if self._needs_maintenance else None))
            except Empty:
                self._needs_maintenance = self._storage.maintain()
                wait_s = 0
        for _ in range(self._queue.qsize()):
            self._taken.append(self._queue.get_nowait())

    def _further_writes(self) -> Iterator[Write]:
        while self._taken and isinstance(job := self._taken[0], Write):
            self._taken.popleft()
            yield job

    def _store(self, writes: list[Write]) -> None:
        seconds = 0.0
        if any(map(has_records, writes)):
            start = perf_counter()
            self._storage.write(writes)
            self._needs_maintenance = True
            seconds = perf_counter() - start
        self._post(partial(self._on_durable, writes, seconds))
