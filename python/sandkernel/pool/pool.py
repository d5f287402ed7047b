"""Sandboxes, and executors, that are booted ahead and handed out in milliseconds."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sandkernel.concurrency.exit_handlers import watch_for_termination
from sandkernel.exceptions import ConfigurationError
from sandkernel.pool.keeper import Keeper, Poolable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["SandboxPool"]

E = TypeVar("E", bound=Poolable)


class SandboxPool(Generic[E]):
    """Keeps sandboxes, or executors, ready, and hands them out.

    A sandbox, or an executor, that it hands out is an ordinary one, which belongs to whoever acquired it: its
    `close()` ends the sandbox and returns nothing to the pool, since code that is not trusted has run in it.
    In its place the pool boots a new one. It is thread-safe, and starts to boot at once; close it with
    `close()`, or use it as a context manager, sync or async.

    Args:
        size: How many are to be ready.
        factory: Boots one, in a thread of the pool's; `ModalExecutor` by default, and for example
            `lambda: Sandbox.create("local", packages=["numpy"])` or `LocalExecutor`.
        maximum: How many may be alive at once, those that are booted and those that were handed out and not
            cleaned up included; `None` for no bound.
        minimum_lifetime: The seconds that must be left of a sandbox's lifetime when it is handed out; those
            with less are replaced. At most half of the whole lifetime counts.
        check_interval: The seconds between checks of those that are ready.

    Raises:
        ConfigurationError: `maximum` is smaller than `size`, or `size` than 1.
    """

    def __init__(
        self,
        size: int,
        factory: Callable[[], E] | None = None,
        *,
        maximum: int | None = None,
        minimum_lifetime: float = 60.0,
        check_interval: float = 10.0,
    ) -> None:
        if size < 1:
            raise ConfigurationError(f"a pool has a size of 1 or more, not {size}")
        if maximum is not None and maximum < size:
            raise ConfigurationError(f"maximum is {maximum}, and size is {size}: it can't be smaller")
        watch_for_termination()
        if factory is None:
            from sandkernel.integrations.smolagents import ModalExecutor  # noqa: PLC0415 it takes half a second

            factory = ModalExecutor
        self._keeper: Keeper[Any] = Keeper(size, factory, maximum, minimum_lifetime, check_interval)
        self._finalizer = weakref.finalize(self, self._keeper.abandon)
        self._finalizer.atexit = False
        self._keeper.start()

    def acquire(self, timeout: float | None = None) -> E:
        """Take an executor; one that was found alive just now.

        Args:
            timeout: The seconds to wait for one, `None` for no limit.

        Raises:
            BootError: None was ready in time; or what the factory raised, where that is why.
            ClosedError: The pool is closed.
            ForkError: The pool belongs to the process that this one was forked off.
        """
        executor: E = self._keeper.acquire(timeout, threading.Event())
        return executor

    async def aacquire(self, timeout: float | None = None) -> E:
        """Do what `acquire` does, without holding up the event loop."""
        given_up = threading.Event()
        loop = asyncio.get_running_loop()
        acquiring = loop.run_in_executor(None, self._keeper.acquire, timeout, given_up)
        try:
            executor: E = await asyncio.shield(acquiring)
        except asyncio.CancelledError:
            self._keeper.give_up(given_up)
            await asyncio.wait({acquiring})
            if acquiring.exception() is None:
                await asyncio.to_thread(acquiring.result().close)
            raise
        return executor

    @property
    def ready(self) -> int:
        """How many are ready."""
        return len(self._keeper.ready)

    @property
    def alive(self) -> int:
        """How many there are: booting, ready, and handed out."""
        return self._keeper.alive

    def close(self) -> None:
        """End all sandboxes, also those that were handed out; a second call does nothing."""
        self._keeper.close()
        self._finalizer.detach()

    async def aclose(self) -> None:
        """Do what `close` does, without holding up the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<SandboxPool {self.ready} of {self._keeper.size} ready, {self.alive} alive>"
