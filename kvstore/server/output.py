"""Standard output and standard error that never block the program.

A pipe whose reader has stopped, a terminal that is halted with Ctrl-S and a disk that does not answer block a write(2).
A replica that waited there would serve no request. So a thread of its own writes, and a bounded queue takes the text.
"""

import atexit
import io
import os
import select
import sys
import threading
from collections import deque
from typing import Literal

MAX_QUEUE_BYTES = 256 * 1024
"""Bytes that wait for the reader. Beyond this bound the oldest text is dropped: the newest says why a program ended."""
DRAIN_S = 1.0
"""Time for which the end of the program waits until the queue is written."""
_GAP = "kvstore: {} lines are missing here: this output was not read in time\n"


class NonblockingOutput(io.TextIOBase):
    """A text stream to a file descriptor whose `write` never waits. `dropped_lines` counts the lines that were not
    written, because the queue was full or write(2) failed."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._changed = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._queue_bytes = 0
        self._is_writing = False
        """True while the thread writes a text that it has taken from the queue."""
        self.dropped_lines = 0
        self._reported = 0
        """Dropped lines that the output itself has reported."""
        threading.Thread(target=self._run, name="output", daemon=True).start()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a property there, too, which typeshed has as an attribute
        """See io.TextIOBase."""
        return self._encoding

    def writable(self) -> bool:
        """See io.IOBase."""
        return True

    def fileno(self) -> int:
        """See io.IOBase."""
        return self._descriptor

    def isatty(self) -> bool:
        """See io.IOBase."""
        return os.isatty(self._descriptor)

    def flush(self) -> None:
        """Do nothing: libraries flush after each line, and must not wait. See `drain`."""

    def write(self, text: str, /) -> int:
        """Queue `text`, and drop the oldest text if the queue is full."""
        data = text.encode(self._encoding, "backslashreplace")
        with self._changed:
            self._queue.append(data)
            self._queue_bytes += len(data)
            while self._queue_bytes > MAX_QUEUE_BYTES and len(self._queue) > 1:
                self._drop(self._take())
            self._changed.notify_all()
        return len(text)

    def drain(self, timeout_s: float = DRAIN_S) -> bool:
        """Wait until the queue is written, for `timeout_s` at most. Return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._is_writing, timeout_s)

    def _take(self) -> bytes:
        data = self._queue.popleft()
        self._queue_bytes -= len(data)
        return data

    def _drop(self, data: bytes) -> None:
        self.dropped_lines += data.count(b"\n")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue)
                dropped, data = self.dropped_lines, self._take()
                self._is_writing = True
            try:
                if dropped > self._reported:
                    self._write_all(_GAP.format(dropped - self._reported).encode())
                    self._reported = dropped
                self._write_all(data)
            except OSError:  # the reader has ended, or the disk is full
                with self._changed:
                    self._drop(data)

    def _write_all(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another program has made this pipe or terminal non-blocking
                select.select([], [self._descriptor], [])


def install(name: Literal["stdout", "stderr"]) -> None:
    """Replace `sys.stdout` or `sys.stderr` of this process by a NonblockingOutput, until the process ends, and write
    the queued text at the end of the process. A stream in memory, as in tests, stays."""
    stream = getattr(sys, name)
    if isinstance(stream, NonblockingOutput):
        return
    if stream is None:  # the process was started without this descriptor
        output = NonblockingOutput(os.open(os.devnull, os.O_WRONLY), "utf-8")
    else:
        stream.flush()
        try:
            output = NonblockingOutput(stream.fileno(), stream.encoding)
        except io.UnsupportedOperation:
            return
    setattr(sys, name, output)
    atexit.register(output.drain)


def drain() -> None:
    """Write the queued text. Call this where a process ends without running the functions of atexit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, NonblockingOutput):
            stream.drain()


def dropped_log_lines() -> int:
    """Return the number of lines for standard error that were not written."""
    return sys.stderr.dropped_lines if isinstance(sys.stderr, NonblockingOutput) else 0
