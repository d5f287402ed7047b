"""First come, first served, for threads and for tasks alike."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class Turns:
    """A lock that is handed on in the order of the calls.

    `threading.Lock` keeps no order, and `asyncio.Lock` knows no threads. Each caller waits for the one before
    it.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._last: Future[None] = Future()
        self._last.set_result(None)

    def _queue(self) -> tuple[Future[None], Future[None]]:
        mine: Future[None] = Future()
        with self._mutex:
            before, self._last = self._last, mine
        return before, mine

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait in this thread for the turn."""
        before, mine = self._queue()
        try:
            before.result()
            yield
        finally:
            _hand_on(before, mine)

    @asynccontextmanager
    async def atake(self) -> AsyncIterator[None]:
        """Wait in this task for the turn."""
        before, mine = self._queue()
        try:
            # Shielded: cancelling this task must not cancel the turn of the one before it.
            await asyncio.shield(asyncio.wrap_future(before))
            yield
        finally:
            _hand_on(before, mine)


def _hand_on(before: Future[None], mine: Future[None]) -> None:
    # At once where the turn was had; after the one before where the waiting was broken off.
    before.add_done_callback(lambda _: mine.set_result(None))
