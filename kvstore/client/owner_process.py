"""The process that opened a client. Neither its threads nor its event loop exist in a forked process, and its
connections belong to both processes: requests of the one would be answered to the other."""

import os


class OwnerProcess:
    """The process in which an object of the kind `kind` was opened: the present one."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._id = os.getpid()

    @property
    def is_left(self) -> bool:
        """True in a process that was forked since."""
        return os.getpid() != self._id

    def check(self) -> None:
        """Raise RuntimeError in a forked process."""
        if self.is_left:
            raise RuntimeError(
                f"{self._kind} was opened in process {self._id} and cannot be used after a fork: open another one in "
                "this process. With gunicorn, open it in the hook post_fork, or omit --preload; with multiprocessing, "
                "open it in the child, or use the start method `spawn`"
            )
