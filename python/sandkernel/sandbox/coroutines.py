"""Runs the coroutines of tools on the host."""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

from sandkernel.exceptions import ClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["Coroutines"]

# How often whoever waits looks whether the loop is still there.
LOOK_SECONDS = 1.0


class Coroutines:
    """Awaits what tools return, in a loop that stays: what a tool opened in one call is there in the next.

    Code that is awaited (`arun`) has them run in the loop that awaits it. For all other code there is one
    loop, in a thread of its own that is begun when it is needed first: a caller's would stand still.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def finish(self, result: object, loop: asyncio.AbstractEventLoop | None) -> object:
        """Return a result, or what comes of it where that is to be awaited.

        Args:
            result: What a tool returned.
            loop: That awaits the code; `None` where none does.

        Raises:
            TypeError: It is an asynchronous generator.
            ClosedError: The sandbox is closed.
        """
        if inspect.isasyncgen(result):
            raise TypeError(
                "The tool returned an asynchronous generator, which can't be sent: have it return a list"
            )
        if not inspect.isawaitable(result):
            return result
        loop = self._own() if loop is None else loop
        # The context of this thread, which is the caller's, goes along.
        future = asyncio.run_coroutine_threadsafe(_await(result), loop)
        while not wait([future], LOOK_SECONDS).done:
            if loop.is_closed():
                raise ClosedError("The event loop of the tool was closed while it ran")
        return future.result()

    def close(self) -> None:
        """End the loop and what runs in it, without waiting."""
        with self._mutex:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            _stop(loop)

    def _own(self) -> asyncio.AbstractEventLoop:
        with self._mutex:
            if self._closed:
                raise ClosedError("The sandbox is closed: create a new one")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=_run, args=(self._loop,), name="sandkernel-tools", daemon=True
                ).start()
                weakref.finalize(self, _stop, self._loop).atexit = False
            return self._loop


async def _await(result: Awaitable[Any]) -> Any:  # noqa: ANN401 whatever a tool returns
    return await result


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(_end_tasks())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
