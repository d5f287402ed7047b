"""How tests wait: for a condition, never for a time in which something is hoped to have happened."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# What takes a moment takes no longer than this on a machine under any load; it only bounds a test that fails.
PATIENCE = 60.0
# Options of a session whose code ends when interrupted: late, under load, but its kernel is not restarted.
UNHURRIED = {"interrupt_grace": PATIENCE}


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Whether a condition came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def until(condition: Callable[[], Any], within: float = PATIENCE) -> Any:
    """Wait for a condition to come true, and return its value."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)
    return value


async def auntil(condition: Callable[[], Any], within: float = PATIENCE) -> Any:
    """Wait as `until` does, while the event loop goes on."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not become true"
        await asyncio.sleep(0.01)
    return value


def time_limits() -> Iterator[float]:
    """Time limits for code that has to have begun when its time is over; tried until it had.

    On an idle machine the first one is enough. Under load it may be over before the kernel has come to the
    code, and then nothing can be said of it.
    """
    yield from (0.5, 2.0, 8.0, 30.0)
    raise AssertionError("the code did not begin within any of its time limits")


def write_line(text: str) -> str:
    """Code that writes a line as one message: `print` writes the end of a line by itself."""
    return f"__import__('sys').stdout.write({text + chr(10)!r}) and __import__('sys').stdout.flush()"


def wait_for_file(path: Path) -> str:
    """Code that waits for a file of this machine, by which a test lets it go on."""
    return f"import os, time\nwhile not os.path.exists({str(path)!r}): time.sleep(0.01)\n"
