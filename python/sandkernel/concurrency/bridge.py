"""Runs coroutines from anywhere: with or without an event loop in the calling thread, and interruptible."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future

# An alias of the other ones from Python 3.11 on.
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, TypeVar

from sandkernel.concurrency.cancellation import UNDO_SECONDS, Cancellation

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Run", "run", "start"]

T = TypeVar("T")


class Run:
    """One coroutine, and the event loop that is made for it.

    Attributes:
        outcome: What the coroutine returned or raised.
    """

    def __init__(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._function = function
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._begun = threading.Event()
        self.outcome: Future[Any] = Future()

    async def _main(self) -> Any:  # noqa: ANN401 whatever the coroutine returns
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._begun.set()
        return await self._function()

    def __call__(self) -> None:
        """Run it in this thread, to its end."""
        try:
            self.outcome.set_result(asyncio.run(self._main()))
        except BaseException as error:  # noqa: BLE001 the caller's
            self.outcome.set_exception(error)
        finally:
            self._begun.set()

    def end(self, seconds: float) -> None:
        """Cancel the coroutine, and wait for its end, so long at most."""
        self.cancel()
        # Not `result`: what went wrong while it was undone is not what the caller is told.
        with contextlib.suppress(FutureTimeoutError):
            self.outcome.exception(seconds)

    def cancel(self) -> None:
        """Cancel the coroutine, without waiting for its end."""
        self._begun.wait()
        if self._loop is not None and self._task is not None:
            # It may have ended by now, and its loop been closed.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)


def run(function: Callable[[], Coroutine[Any, Any, T]], *, cancellable: bool = True) -> T:
    """Run a coroutine to its end in a thread of its own, and wait for it.

    So the calling thread may have a running event loop, and Ctrl-C interrupts nothing but the waiting: the
    coroutine is cancelled, and given half a minute to undo what it began. A second Ctrl-C ends that too.

    Args:
        function: Makes the coroutine.
        cancellable: Whether a `Cancellation` is heeded: not by what undoes things.
    """
    this = Run(function)
    try:
        threading.Thread(target=this, name="sandkernel-call", daemon=True).start()
    except RuntimeError:
        # An interpreter that exits starts no thread; then there is no event loop either.
        this()
        return this.outcome.result()  # type: ignore[no-any-return]
    following = Cancellation.following(this.cancel) if cancellable else contextlib.nullcontext()
    try:
        with following:
            return this.outcome.result()  # type: ignore[no-any-return]
    except BaseException:
        if not this.outcome.done():
            this.end(UNDO_SECONDS)
        raise


def start(function: Callable[[], Coroutine[Any, Any, object]]) -> Run:
    """Run a coroutine in a thread of its own, without waiting; its errors are nobody's.

    Raises:
        RuntimeError: No thread can be started, since the interpreter exits.
    """
    this = Run(function)
    threading.Thread(target=this, name="sandkernel-call", daemon=True).start()
    return this
