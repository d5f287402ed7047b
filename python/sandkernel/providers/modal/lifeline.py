"""What keeps a sandbox from outliving its use: every way out of this process ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from sandkernel.concurrency import bridge, exit_handlers
from sandkernel.exceptions import ClosedError, ForkError, SandkernelError
from sandkernel.providers.modal import sdk

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Lifeline"]

TERMINATE_SECONDS = 15.0
UNWATCH_SECONDS = 5.0
log = logging.getLogger("sandkernel")


class Lifeline:
    """The duty to end a sandbox; it is this process's own, not that of a forked child.

    Args:
        sandbox: The `modal.Sandbox`.
        idle_timeout: The seconds after which Modal ends it should we fail to; `None`: unknown.
    """

    def __init__(self, sandbox: Any, idle_timeout: float | None) -> None:  # noqa: ANN401
        self.sandbox = sandbox
        self._idle_timeout = idle_timeout
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._watch: bridge.Run | None = None
        self.ended = False
        self.detached = False
        _alive.add(self)

    @property
    def owned(self) -> bool:
        """Whether it is ours to end, and not ended yet."""
        return not self.ended and not self.detached and os.getpid() == self._owner

    def require(self) -> None:
        """Raise unless it can be used.

        Raises:
            ClosedError: It was terminated, or detached.
            ForkError: It belongs to the process that this one was forked off.
        """
        if os.getpid() != self._owner:
            raise ForkError("a sandbox can't be used in a forked child: make a new one there")
        if self.ended or self.detached:
            what = "was terminated" if self.ended else "is detached"
            raise ClosedError(f"the sandbox {what}: make a new one, or reattach with from_id")

    def watch(self, wait: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run what waits for its end, until there is nothing to wait for any more."""
        self._watch = bridge.start(wait)

    async def end(self) -> None:
        """Terminate it; a failure is logged, and tried again at the exit of the interpreter."""
        if not self.owned:
            return
        self._stop_watching()
        try:
            await sdk.call(self.sandbox.terminate.aio(), TERMINATE_SECONDS, "terminating a sandbox")
        except (SandkernelError, Exception) as error:  # noqa: BLE001 nobody could do more about it
            reclaimed = f"; Modal ends it after {self._idle_timeout:g} s idle" if self._idle_timeout else ""
            log.warning("sandbox %s could not be terminated: %s%s", self.sandbox.object_id, error, reclaimed)
            return
        self.done()
        await self._let_go()

    def done(self) -> None:
        """Take note that it has ended."""
        self.ended = True
        _alive.discard(self)
        self._stop_watching()

    def _stop_watching(self) -> None:
        # What is under way in the SDK when that closes its connections would be reported as an error.
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.end(UNWATCH_SECONDS)

    async def _let_go(self) -> None:
        # Closes the SDK's connections; releases before 1.4 have no such thing.
        detach = getattr(self.sandbox, "detach", None)
        if detach is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(detach.aio(), TERMINATE_SECONDS)

    def terminate(self) -> None:
        """End it, and wait for that, `TERMINATE_SECONDS` at most. In a forked child: nothing."""
        if self.owned:
            with self._lock:
                bridge.run(self.end, cancellable=False)

    def abandon(self) -> None:
        """End it without waiting: for the garbage collector, which may run in an event loop's thread."""
        if self.owned:
            # An interpreter that exits starts no thread; then `_end_all` comes next.
            with contextlib.suppress(RuntimeError):
                bridge.start(self.end)

    def detach(self) -> None:
        """Leave it running."""
        self.detached = True
        _alive.discard(self)
        self._stop_watching()
        bridge.run(self._let_go, cancellable=False)


_alive: set[Lifeline] = set()


def _end_all() -> None:
    lifelines = [lifeline for lifeline in tuple(_alive) if lifeline.owned]
    if not lifelines:
        return

    async def end() -> None:
        await asyncio.gather(*(lifeline.end() for lifeline in lifelines))

    bridge.run(end, cancellable=False)


exit_handlers.register(_end_all, on_termination=True)
