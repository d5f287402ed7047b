"""Threads that answer what the code asks while it runs."""

from __future__ import annotations

import contextvars
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandkernel._sandkernel import InputRequest

__all__ = ["Attendants", "held_by"]

# At a time: what is asked beyond waits, up to so many bytes of it.
MAX_THREADS = 32
MAX_WAITING_BYTES = 256 << 20
# What a request takes beside what it holds.
REQUEST_OVERHEAD_BYTES = 1000


def held_by(request: InputRequest) -> int:
    """Return how many bytes of memory a request takes."""
    return request.size + REQUEST_OVERHEAD_BYTES


class Attendants:
    """Hands the requests of one execution to threads, as many as are asked at once.

    What answers may hang, and nobody can end a thread: so they are daemons, which are left to themselves when
    the execution ends, and never waited for. They see the context variables of whoever made this.

    Args:
        answer: Called with each request, and with what it calls when the request waits no more. It raises
            nothing.
    """

    def __init__(self, answer: Callable[[InputRequest, Callable[[], object]], object]) -> None:
        self._answer = answer
        self._context = contextvars.copy_context()
        self._requests: SimpleQueue[InputRequest | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0
        self._mutex = threading.Lock()
        self._waiting_bytes = 0
        self._closed = False

    def take(self, request: InputRequest) -> bool:
        """Have a request answered, unless too much waits already. Always called from the same thread."""
        size = held_by(request)
        with self._mutex:
            if self._waiting_bytes and self._waiting_bytes + size > MAX_WAITING_BYTES:
                return False
            self._waiting_bytes += size
        self._requests.put(request)
        if self._threads < MAX_THREADS and not self._idle.acquire(blocking=False):
            self._threads += 1
            threading.Thread(target=self._attend, name="sandkernel-attendant", daemon=True).start()
        return True

    def release(self, size: int) -> None:
        """Count so many bytes less as waiting."""
        with self._mutex:
            self._waiting_bytes -= size

    def close(self) -> None:
        """Let go of the threads; what is not begun is not answered any more."""
        self._closed = True
        for _ in range(self._threads):
            self._requests.put(None)

    def _attend(self) -> None:
        while not self._closed:
            try:
                request = self._requests.get_nowait()
            except Empty:
                self._idle.release()
                request = self._requests.get()
            if request is None:
                return
            waits = _Waits(self, held_by(request))
            try:
                self._context.copy().run(self._answer, request, waits.end)
            finally:
                waits.end()
            # A thread that waits for the next one holds nothing of this one.
            del request


class _Waits:
    """A request that waits."""

    def __init__(self, attendants: Attendants, size: int) -> None:
        self._attendants = attendants
        self._size = size

    def end(self) -> None:
        """Count it no more; after the first time, nothing changes."""
        size, self._size = self._size, 0
        self._attendants.release(size)
