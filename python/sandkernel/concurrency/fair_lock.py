"""First come, first served, for threads and for tasks alike."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future

# An alias of the other one from Python 3.11 on.
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from sandkernel.concurrency.wait_graph import depends_on_this_thread
from sandkernel.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator

__all__ = ["FairLock", "Turn"]

# How often who waits looks whether anybody in front waits for the waiting one itself: soon, then less often.
FIRST_LOOK_SECONDS = 0.05
LONGEST_LOOK_SECONDS = 1.0

# How often a turn that is past its time is looked at.
LEND_SECONDS = 1.0


class Turn:
    """A place in the queue, or at its head.

    Attributes:
        thread: The thread that calls, or that runs the event loop of the task that calls.
        task: That task; `None` where a thread itself calls.
        came: Done when the turn has come; `None` where it came at once.
        suspended: Whether it is that of a generator that nobody asks for the next value at the moment.
    """

    __slots__ = ("came", "suspended", "task", "thread")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.thread = threading.get_ident()
        self.task = task
        self.came: Future[None] | None = None
        self.suspended = False

    def is_forsaken(self) -> bool:
        """Whether nobody can ever end it: its event loop is closed."""
        return self.task is not None and self.task.get_loop().is_closed()

    def obstacle(self, waiting: Turn, owner: str) -> str:
        """Return why this one can't end while another one waits for it; empty where it can.

        Args:
            waiting: The one that waits.
            owner: What has the lock, for the reason: "executor".
        """
        if self.thread != waiting.thread:
            return ""
        if self.task is None:
            # Both in one thread: the earlier call is further up the stack.
            return (
                f"this thread is in the middle of another call of this {owner}, which it has to end before "
                f"this one can begin. In a callback, do nothing with the {owner} that calls it, or "
                + _instead(owner)
            )
        if waiting.task is None and self.task is not _current_task():
            return (
                f"a task of this thread's event loop has called this {owner}, and can't go on while this "
                "call waits in the same thread. Await the async twin instead, such as arun(), or make the "
                "call in a thread of its own (asyncio.to_thread)"
            )
        if waiting.task is None or self.task is waiting.task:
            return (
                f"this very task has an astream() of this {owner} that has not ended. Take all of its "
                f"events, or close it (contextlib.aclosing), before the next call, or {_instead(owner)}"
            )
        if self.task.get_loop() is not waiting.task.get_loop():
            return (
                f"a task of another event loop of this thread has called this {owner}, and can't go on while "
                f"this loop runs. Run both in one loop, or {_instead(owner)}"
            )
        return ""


class FairLock:
    """A lock that is handed on in the order of the calls.

    `threading.Lock` keeps no order, and `asyncio.Lock` knows no threads. And neither says that it will never
    be had: here, whoever would wait for somebody who waits for the waiting one is told so.

    Args:
        helpers: Returns the threads that work for the one whose turn it is.
        owner: What has the lock, for the errors: "executor".
    """

    def __init__(self, helpers: Callable[[], Collection[int]] = tuple, owner: str = "executor") -> None:
        self._owner = owner
        self._mutex = threading.Lock()
        self._helpers = helpers
        self._turn: Turn | None = None
        self._waiting: deque[Turn] = deque()
        self._ended = False

    @contextmanager
    def take(self) -> Iterator[Turn]:
        """Wait in this thread for the turn.

        Raises:
            ConfigurationError: It would never come: who has it, or is in front, waits for this thread.
        """
        turn = self._queue(Turn(None))
        came, pause = turn.came, FIRST_LOOK_SECONDS
        try:
            while came is not None:
                try:
                    came.result(pause)
                    break
                except FutureTimeoutError:
                    self._look(turn)
                    pause = min(2 * pause, LONGEST_LOOK_SECONDS)
            yield turn
        finally:
            self.end(turn)

    @asynccontextmanager
    async def atake(self) -> AsyncIterator[Turn]:
        """Wait in this task for the turn.

        Raises:
            ConfigurationError: It would never come: who has it, or is in front, waits for this task.
        """
        turn = self._queue(Turn(_current_task()))
        try:
            if turn.came is not None:
                await self._wait(turn, turn.came)
            yield turn
        finally:
            self.end(turn)

    @contextmanager
    def lending(self, turn: Turn, limit: float | None) -> Iterator[None]:
        """Hand a turn on, after so many seconds, while it is suspended; `go_on` has it come again."""
        if limit is None:
            yield
            return
        loop = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = []

        def lend() -> None:
            if turn.suspended:
                self.end(turn)
            timers[:] = [loop.call_later(LEND_SECONDS, lend)]

        timers.append(loop.call_later(limit + LEND_SECONDS, lend))
        try:
            yield
        finally:
            timers[0].cancel()

    async def go_on(self, turn: Turn) -> None:
        """Go on with a turn that was suspended, in whichever task this is; wait where it was handed on.

        Raises:
            ConfigurationError: It would never come, as for `atake`.
        """
        turn.task, turn.suspended = _current_task(), False
        if self._turn is not turn:
            turn.came = None
            came = self._queue(turn).came
            if came is not None:
                await self._wait(turn, came)

    async def _wait(self, turn: Turn, came: Future[None]) -> None:
        coming, pause = asyncio.wrap_future(came), FIRST_LOOK_SECONDS
        # `wait` cancels nothing: who gives the turn is not to find it cancelled.
        while not (await asyncio.wait({coming}, timeout=pause))[0]:
            self._look(turn)
            pause = min(2 * pause, LONGEST_LOOK_SECONDS)

    def close(self) -> None:
        """Let everybody in at once, now and later: there is nothing left to take turns with."""
        with self._mutex:
            self._ended = True
            waiting = list(self._waiting)
            self._waiting.clear()
        for turn in waiting:
            _call(turn)

    def end(self, turn: Turn) -> None:
        """Hand the turn on, or leave the queue. A second call does nothing."""
        with self._mutex:
            if self._turn is not turn:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                return
            following = self._turn = self._waiting.popleft() if self._waiting else None
        if following is not None:
            _call(following)

    def _queue(self, turn: Turn) -> Turn:
        """Take the turn where it is free, or stand in the queue for it."""
        with self._mutex:
            if self._turn is None or self._turn.is_forsaken():
                self._turn = turn
            elif not self._ended:
                for each in (self._turn, *self._waiting):
                    if reason := each.obstacle(turn, self._owner):
                        raise ConfigurationError(f"This call would never get its turn: {reason}")
                turn.came = Future()
                self._waiting.append(turn)
        return turn

    def _look(self, turn: Turn) -> None:
        """Find out whether somebody in front waits for this thread."""
        with self._mutex:
            if self._turn is None or turn not in self._waiting:
                return
            if self._turn.is_forsaken():
                self._turn = following = self._waiting.popleft()
                _call(following)
                return
            in_front = [self._turn, *self._waiting]
        threads = {each.thread for each in in_front[: in_front.index(turn)]}
        if depends_on_this_thread(threads.union(self._helpers())):
            raise ConfigurationError(
                f"This call would never get its turn: the code that runs on this {self._owner} waits, in a "
                f"function of this process or a callback, for this thread. Do not use the {self._owner} "
                f"there, or {_instead(self._owner)}"
            )


def _instead(owner: str) -> str:
    article = "an" if owner[0] in "aeiou" else "a"
    return f"give it {article} {owner} of its own, such as one of new_kernel()"


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        # There is no event loop in this thread.
        return None


def _call(turn: Turn) -> None:
    if turn.came is not None:
        turn.came.set_result(None)
