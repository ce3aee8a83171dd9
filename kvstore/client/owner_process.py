"""The process that opened a client.

A forked process has neither the threads nor the event loop of its parent. It shares the connections of its parent, so
that either process could receive the response to a request of the other.
"""

import os


class OwnerProcess:
    """The process in which an object was opened. `kind` is the class of the object, for messages."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._id = os.getpid()

    @property
    def is_forked(self) -> bool:
        """True in a process that was forked after the object was opened."""
        return os.getpid() != self._id

    def check(self) -> None:
        """Raise RuntimeError in a forked process."""
        if self.is_forked:
            raise RuntimeError(
                f"{self._kind} was opened in process {self._id} and cannot be used after a fork: open another one in "
                "this process. With gunicorn, open it in the hook post_fork, or omit --preload; with multiprocessing, "
                "open it in the child, or use the start method `spawn`"
            )
