"""First come, first served, for threads and for tasks alike."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class Turns:
    """A lock that is handed on in the order of the calls.

    `threading.Lock` keeps no order, and `asyncio.Lock` knows no threads.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_taken = False
        self._waiting: deque[Future[None]] = deque()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait in this thread for the turn."""
        turn = self._queue()
        if turn is not None:
            try:
                turn.result()
            except BaseException:
                self._leave(turn)
                raise
        try:
            yield
        finally:
            self._hand_on()

    @asynccontextmanager
    async def atake(self) -> AsyncIterator[None]:
        """Wait in this task for the turn."""
        turn = self._queue()
        if turn is not None:
            try:
                # Shielded: who gives the turn is not to find it cancelled.
                await asyncio.shield(asyncio.wrap_future(turn))
            except BaseException:
                self._leave(turn)
                raise
        try:
            yield
        finally:
            self._hand_on()

    def _queue(self) -> Future[None] | None:
        """Take the turn where it is free, or stand in the queue for it."""
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return None
            turn: Future[None] = Future()
            self._waiting.append(turn)
            return turn

    def _leave(self, turn: Future[None]) -> None:
        """Break the waiting off; the turn may just have come."""
        with self._mutex:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return
        self._hand_on()

    def _hand_on(self) -> None:
        with self._mutex:
            if not self._waiting:
                self._is_taken = False
                return
            turn = self._waiting.popleft()
        turn.set_result(None)
