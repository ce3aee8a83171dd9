"""An event loop in a thread of its own, for those who have none."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, TypeVar

import uvloop

from kvstore.client.errors import UnknownOutcome

T = TypeVar("T")

BUFFERED = 1000
"""So many items of a stream wait at most for who takes them."""


class _End:
    """Of a stream; `error` is what ended it."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Portal:
    """Runs coroutines for any thread. It is there from `start` to `stop`."""

    def __init__(self, name: str) -> None:
        """`name` is the thread's."""
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._submitting = threading.RLock()
        """What is handed to the loop is handed to it before it stops, or not at all."""

    def start(self) -> None:
        """Once."""
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """What is still under way in it is cancelled."""
        with self._submitting:
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """What `coroutine` will give, or raise."""
        with self._submitting:
            if self._loop is None:
                coroutine.close()
                raise RuntimeError("it is not open: use it in `with`")
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What `coroutine` gives, or raises; it is cancelled when the caller is interrupted."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("what the client itself calls cannot wait for the client: call it from another thread")
        future = self.submit(coroutine)
        try:
            return future.result()
        except CancelledError:
            raise UnknownOutcome("the client was closed meanwhile") from None
        finally:
            future.cancel()

    @contextmanager
    def hold(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """`manager` as one for `with`. It is not told of errors."""
        held = self.run(_enter(manager))
        try:
            yield held
        finally:
            self.run(_leave(manager))

    def iterate(self, items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """`items`, each as soon as it is there."""
        queue: asyncio.Queue[T | _End] = asyncio.Queue(BUFFERED)
        filling = self.run(_start(_fill(queue, items)))
        try:
            while True:
                for item in self.run(_all_there(queue)):
                    if not isinstance(item, _End):
                        yield item
                    elif item.error is not None:
                        raise item.error
                    else:
                        return
        finally:
            with suppress(RuntimeError):  # it is over already when the client was closed
                self.submit(_cancel(filling))  # not waited for: this may be the collector of garbage, in any thread


async def _enter(manager: AbstractAsyncContextManager[T]) -> T:
    return await manager.__aenter__()


async def _leave(manager: AbstractAsyncContextManager[Any]) -> None:
    await manager.__aexit__(None, None, None)


async def _start(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(coroutine)


async def _fill(queue: "asyncio.Queue[T | _End]", items: AsyncGenerator[T, None]) -> None:
    try:
        async for item in items:
            await queue.put(item)
    except Exception as error:  # noqa: BLE001 - it is for whoever takes the items
        await queue.put(_End(error))
    else:
        await queue.put(_End(None))
    finally:
        await items.aclose()


async def _all_there(queue: "asyncio.Queue[T | _End]") -> list[T | _End]:
    """At least one."""
    items = [await queue.get()]
    while not queue.empty():
        items.append(queue.get_nowait())
    return items


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)
    await asyncio.get_running_loop().shutdown_asyncgens()
