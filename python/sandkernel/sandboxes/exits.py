"""What is done at the exit of the interpreter, before what is imported later undoes itself.

Exit handlers run in the order opposite to that of their registration. Modal's SDK registers its own when it
is imported, which is when the first sandbox is booted: what uses it at the exit is registered again then.
"""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["come_first", "register", "unregister"]

# In the order of their registration.
_callbacks: dict[Callable[[], object], None] = {}


def register(callback: Callable[[], object]) -> None:
    """Have a function called at the exit of the interpreter."""
    _callbacks[callback] = None
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
