"""What makes a stock gateway fast: each part guarded, as it depends on the gateway's version."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def tune(tuning: Any, *arguments: Any) -> bool:
    """Apply what depends on the version of the gateway, or go without it."""
    try:
        tuning(*arguments)
    except Exception as error:
        print("bootstrap: %s does not fit this gateway: %r" % (tuning.__name__, error), file=sys.stderr)
        return False
    return True


def tune_websocket() -> None:
    """Make small writes go out at once: with Nagle's algorithm an execution takes 40 ms more."""
    handler: Any = importlib.import_module("jupyter_server.services.kernels.websocket").KernelWebsocketHandler
    opened = handler.open

    async def open_without_delay(self: Any, *arguments: Any, **options: Any) -> None:
        self.set_nodelay(True)
        await opened(self, *arguments, **options)

    handler.open = open_without_delay


def tune_nudge() -> None:
    """Make the first retry of the probe of a new kernel come after 20 ms, not after half a second."""
    channels: Any = importlib.import_module("jupyter_server.services.kernels.connection.channels")
    original = channels.IOLoop

    class ImpatientLoop:
        def __init__(self, loop: Any) -> None:
            self.loop = loop

        def __getattr__(self, name: str) -> Any:
            return getattr(self.loop, name)

        def call_later(self, delay: float, callback: Any, *arguments: Any, **options: Any) -> Any:
            if getattr(callback, "__name__", "") == "nudge" and arguments:
                delay = min(delay, 0.02 * 1.5 ** arguments[0])
            return self.loop.call_later(delay, callback, *arguments, **options)

    class ImpatientIOLoop:
        @staticmethod
        def current(*arguments: Any, **options: Any) -> ImpatientLoop:
            return ImpatientLoop(original.current(*arguments, **options))

    channels.IOLoop = ImpatientIOLoop
