"""Finds what holds an event loop up, by where its thread sleeps, not by how long a turn takes."""

from __future__ import annotations

import selectors
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# As many looks in a row, 10 ms apart, that find it asleep at the same place are a wait. A thread that only
# has to wait for a processor is not asleep; one that waits for the interpreter's lock gets it between looks.
LOOKS = 30


def _sleeps(thread: int) -> bool:
    """Whether a thread waits for something, and not just for a processor."""
    return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def _in_the_selector(frame: FrameType | None) -> bool:
    """Whether it waits where an event loop does."""
    return frame is not None and frame.f_code.co_filename == selectors.__file__


@contextmanager
def the_loop_goes_on() -> Iterator[None]:
    """Fail where the loop of this thread is held up meanwhile."""
    ident, native = threading.get_ident(), threading.get_native_id()
    over, waits = threading.Event(), list[str]()

    def watch() -> None:
        before, looks = None, 0
        while not over.is_set() and not waits:
            time.sleep(0.01)
            frame = sys._current_frames().get(ident)
            if frame is None or _in_the_selector(frame) or not _sleeps(native):
                before, looks = None, 0
                continue
            place = (id(frame), frame.f_lasti)
            looks = looks + 1 if place == before else 0
            before = place
            if looks >= LOOKS:
                waits.append("".join(traceback.format_stack(frame)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    assert not waits, f"the event loop was held up here:\n{waits[0]}"
