"""Which threads wait for this one."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from concurrent.futures import Future, thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

__all__ = ["depends_on_this_thread"]


def depends_on_this_thread(threads: Iterable[int]) -> bool:
    """Whether a thread waits for this one to end, or for what it computes, itself or through others.

    It is seen in what `Thread.join`, `Future.result` and the other functions of `concurrent.futures` wait
    for; a wait on a bare lock, event or queue does not say for whom it is.

    Args:
        threads: Their identifiers.
    """
    # Copies of frames that go on meanwhile: each look at them may be out of date, but not those of threads
    # that wait for good.
    frames = sys._current_frames()  # noqa: SLF001 the way to have them
    running = {
        id(future): thread for thread, frame in frames.items() for future in _computed_by(_stack(frame))
    }
    this, seen, pending = threading.get_ident(), set[int](), list(threads)
    while pending:
        waiting = pending.pop()
        if waiting in seen or waiting not in frames:
            continue
        seen.add(waiting)
        for awaited in _awaited_by(_stack(frames[waiting])):
            found = awaited.ident if isinstance(awaited, threading.Thread) else running.get(id(awaited))
            if found == this:
                return True
            if found is not None:
                pending.append(found)
    return False


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _computed_by(stack: Iterator[FrameType]) -> Iterator[object]:
    """The futures that a thread of a pool computes."""
    for frame in stack:
        if frame.f_code is _RUN:
            yield getattr(frame.f_locals.get("self"), "future", None)


def _awaited_by(stack: Iterator[FrameType]) -> Iterator[object]:
    """The threads and futures that a thread waits for."""
    for frame in stack:
        name = _WAITS.get(frame.f_code)
        if name is None:
            continue
        awaited = frame.f_locals.get(name)
        if isinstance(awaited, (threading.Thread, Future)):
            yield awaited
        elif isinstance(awaited, (set, list, tuple)):
            yield from awaited


_RUN = getattr(getattr(thread, "_WorkItem", None), "run", depends_on_this_thread).__code__
# Each function that waits, and the variable that says for what.
_WAITS = {
    threading.Thread.join.__code__: "self",
    Future.result.__code__: "self",
    Future.exception.__code__: "self",
    concurrent.futures.wait.__code__: "fs",
    concurrent.futures.as_completed.__code__: "fs",
}
