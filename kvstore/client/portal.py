"""An event loop in a thread of its own, for blocking callers."""

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import uvloop

from kvstore.client.errors import UnknownOutcome
from kvstore.client.owner_process import OwnerProcess

T = TypeVar("T")

BUFFERED = 1000
"""Maximum number of buffered items of a stream; a full buffer stops the reading of the stream."""


class _End:
    """The end of a stream; `error` is the exception that ended it."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error


class Portal:
    """An event loop that runs coroutines for blocking callers in any thread, between `start` and `stop`.

    anyio's BlockingPortal does the same, but a caller waits for its event loop twice: for the start of the task, then
    for the result. With many threads it is four times slower, see `docs/decisions/0010-client.md`.
    """

    def __init__(self, owner: str) -> None:
        """`owner` is the name of the class that callers use, for messages."""
        self._owner = owner
        self._process: OwnerProcess | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._submitting = threading.RLock()
        """Lock held while a call is submitted: the event loop accepts the call before it stops, or not at all."""

    def start(self) -> None:
        """Start the thread and its event loop."""
        self._process = OwnerProcess(self._owner)
        _replace_lost_threads_at_exit()
        ready: Future[asyncio.AbstractEventLoop] = Future()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name=self._owner, daemon=True)
        self._thread.start()
        self._loop = ready.result()

    def stop(self) -> None:
        """Cancel all calls and end the thread; do nothing if the thread has ended, or in a forked process."""
        if self.is_forked:
            return
        with self._submitting:
            loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    @property
    def is_open(self) -> bool:
        """Whether calls are accepted."""
        return self._loop is not None and not self.is_forked

    @property
    def is_forked(self) -> bool:
        """Whether this is a process that was forked since `start`."""
        return self._process is not None and self._process.is_forked

    def _run(self, ready: Future[asyncio.AbstractEventLoop]) -> None:
        async def serve() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(self._report)
            ready.set_result(loop)
            await self._stopping.wait()

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # it cancels all tasks on exit
                runner.run(serve())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error of the event loop. In a forked process the only errors are those of connections that are not
        closed, and these belong to the process that opened the portal."""
        if not self.is_forked:
            loop.default_exception_handler(context)

    def submit(self, function: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Start `function()` in the event loop. Cancelling the returned future cancels the coroutine.

        Raises RuntimeError when the portal is not open, in its own thread, and in a forked process.
        """
        self._check_process()
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                f"{self._owner} must not be called from its own event-loop thread: call it from another thread"
            )
        with self._submitting:
            if self._loop is None:
                raise RuntimeError(f"{self._owner} is not open: use it in `with`")
            return asyncio.run_coroutine_threadsafe(function(), self._loop)

    def _check_process(self) -> None:
        if self._process is not None:
            self._process.check()

    def call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of `function()`, which is cancelled when the caller is interrupted."""
        future = self.submit(function)
        try:
            return future.result()
        except CancelledError:
            raise UnknownOutcome(
                f"{self._owner} was closed during the call; a write may or may not have been executed: read the key to "
                "find out"
            ) from None
        finally:
            if not self.is_forked:
                future.cancel()

    def wait_for_cancelled(self) -> None:
        """Wait for the ends of the calls that were cancelled, such as the release of a lock by an interrupted call."""
        self.call(_cancelled_tasks)

    @contextmanager
    def hold(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Enter and exit `manager` in the event loop; an exception of the block is not passed to `manager`."""
        held = self.call(manager.__aenter__)
        try:
            yield held
        finally:
            if not self.is_forked:  # the lease or lock belongs to the process that opened the portal
                self.call(partial(manager.__aexit__, None, None, None))

    def iterate(self, items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """Yield each of `items` as soon as it arrives."""
        queue: asyncio.Queue[T | _End] = asyncio.Queue(BUFFERED)
        filling = self.submit(partial(_fill, queue, items))
        try:
            while True:
                for item in self.call(partial(_take_all, queue)):
                    self._check_process()
                    if not isinstance(item, _End):
                        yield item
                    elif item.error is not None:
                        raise item.error
                    else:
                        return
        finally:
            if not self.is_forked:
                filling.cancel()  # without waiting: the garbage collector may run this in any thread


async def _cancelled_tasks() -> None:
    cancelled = [task for task in asyncio.all_tasks() if task.cancelling() and task is not asyncio.current_task()]
    if cancelled:
        await asyncio.wait(cancelled)


async def _fill(queue: "asyncio.Queue[T | _End]", items: AsyncGenerator[T, None]) -> None:
    end = _End(None)
    async with aclosing(items):
        try:
            async for item in items:
                await queue.put(item)
        except Exception as error:  # noqa: BLE001 - raised by `iterate`
            end = _End(error)
    await queue.put(end)


async def _take_all(queue: "asyncio.Queue[T | _End]") -> list[T | _End]:
    """Wait for an item, then return all queued items."""
    items = [await queue.get()]
    while not queue.empty():
        items.append(queue.get_nowait())
    return items


@cache
def _replace_lost_threads_at_exit() -> None:
    """Have each forked process resolve a name when it exits.

    At the exit of a process, libuv joins the threads with which it resolves names. A forked process lacks these threads
    and would crash. Resolving a name makes libuv start new ones.
    """

    def resolve() -> None:
        loop = uvloop.new_event_loop()
        loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 0))
        loop.close()

    os.register_at_fork(after_in_child=partial(atexit.register, resolve))
