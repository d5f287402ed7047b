"""Breaks off, from one thread, what another one waits for."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["Cancellation", "in_thread", "regardless"]

T = TypeVar("T")

# How long what was broken off may take to undo what it began.
UNDO_SECONDS = 30.0


class Cancellation:
    """Lets another thread cancel what waits in a context.

    Set `Cancellation.current` in the context that calls it; what waits says there how it is broken off.
    """

    current: contextvars.ContextVar[Cancellation | None] = contextvars.ContextVar(
        "sandkernel_cancellation", default=None
    )

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._callbacks: list[Callable[[], object]] = []
        self.cancelled = False

    def cancel(self) -> None:
        """Break off what waits, and whatever waits later."""
        with self._lock:
            self.cancelled = True
            for callback in tuple(self._callbacks):
                callback()

    @contextlib.contextmanager
    def follow(self, callback: Callable[[], object]) -> Iterator[None]:
        """Have a function called, from another thread, when this is cancelled, or at once if it is."""
        with self._lock:
            self._callbacks.append(callback)
            if self.cancelled:
                callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)

    @classmethod
    def following(cls, callback: Callable[[], object]) -> contextlib.AbstractContextManager[None]:
        """Do what `follow` does, with the cancellation of this context if there is one."""
        current = cls.current.get()
        return contextlib.nullcontext() if current is None else current.follow(callback)

    @classmethod
    def check(cls) -> None:
        """Raise where this context is cancelled.

        Raises:
            asyncio.CancelledError: It is.
        """
        current = cls.current.get()
        if current is not None and current.cancelled:
            raise asyncio.CancelledError

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Have what this block calls follow it."""
        token = self.current.set(self)
        try:
            yield
        finally:
            self.current.reset(token)


async def in_thread(function: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Call a function that waits, in a thread of its own; cancelling the task cancels what it waits for.

    Args:
        function: What to call.
        undo: Undoes what it returned, where the task is cancelled and the function succeeded all the same.
    """
    cancellation = Cancellation()
    context = contextvars.copy_context()
    context.run(Cancellation.current.set, cancellation)
    work = _begin(lambda: context.run(function))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await regardless(_break_off(work, cancellation, undo))
        raise


async def _break_off(
    work: asyncio.Future[T], cancellation: Cancellation, undo: Callable[[T], object] | None
) -> None:
    # What breaks it off may wait, too.
    await asyncio.gather(_begin(cancellation.cancel), return_exceptions=True)
    await asyncio.wait({work}, timeout=UNDO_SECONDS)
    if work.done() and not work.cancelled() and work.exception() is None and undo is not None:
        await _begin(lambda: undo(work.result()))


def _begin(function: Callable[[], T]) -> asyncio.Future[T]:
    """Call a function in a thread: not in one of asyncio's pool, all of whose threads may be waiting."""
    outcome: Future[T] = Future()

    def call() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001 the caller's
            outcome.set_exception(error)

    threading.Thread(target=call, name="sandkernel-call", daemon=True).start()
    return asyncio.wrap_future(outcome)


async def regardless(awaitable: Awaitable[Any]) -> Any:  # noqa: ANN401 what it returns
    """Await what must be done, also when this task is cancelled meanwhile."""
    work = asyncio.ensure_future(awaitable)
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})
    return work.result()
