"""Functions that are called when the process ends: at the exit of the interpreter, and by SIGTERM.

Exit handlers run in the order opposite to that of their registration. Modal's SDK registers its own when it
is imported, which is when the first sandbox is booted: the handlers here that use the SDK are registered
again then, so that they are called before the SDK undoes itself.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["come_first", "register", "unregister", "watch_for_termination"]

# In the order of their registration. The value: whether SIGTERM calls the function too.
_callbacks: dict[Callable[[], object], bool] = {}


def register(callback: Callable[[], object], *, on_termination: bool = False) -> None:
    """Have a function called at the exit of the interpreter.

    Args:
        callback: The function.
        on_termination: Whether SIGTERM calls it too, where `watch_for_termination` took that signal. The
            function is then called in the main thread, in the midst of whatever runs there.
    """
    _callbacks[callback] = on_termination
    atexit.register(callback)


def unregister(callback: Callable[[], object]) -> None:
    """Undo `register`."""
    _callbacks.pop(callback, None)
    atexit.unregister(callback)


def come_first() -> None:
    """Have all that is registered here called before what was registered elsewhere until now."""
    for callback in tuple(_callbacks):
        atexit.unregister(callback)
        atexit.register(callback)


def watch_for_termination() -> None:
    """Make SIGTERM end the sandboxes first, if nobody else has an interest in it.

    By default SIGTERM ends a process at once, without its exit handlers. Where it has a handler, or this is
    not the main thread, all is left as it is, and a sandbox that still runs is ended by its idle timeout.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    with contextlib.suppress(ValueError, OSError):
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _on_termination)


def _on_termination(number: int, _: FrameType | None) -> None:
    # Whoever waits for this process is to see that the signal ended it.
    signal.signal(number, signal.SIG_DFL)
    try:
        for callback in [callback for callback, on_termination in _callbacks.items() if on_termination]:
            callback()
    finally:
        os.kill(os.getpid(), number)
