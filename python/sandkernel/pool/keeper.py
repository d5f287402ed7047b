"""What the threads of a pool do: boot, check, hand out, end."""

from __future__ import annotations

import contextvars
import functools
import itertools
import os
import threading
import time
import weakref
from collections import deque
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from sandkernel.concurrency import exit_handlers
from sandkernel.concurrency.cancellation import Cancellation
from sandkernel.exceptions import BootError, ClosedError, ForkError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Keeper", "Poolable"]


class Poolable(Protocol):
    """What a pool can hand out: a `Sandbox`, or an executor. It may have `expires_at` and `booted_at`."""

    def close(self) -> None:
        """End it."""

    def is_alive(self, timeout: float = ..., /) -> bool:
        """Whether it answers, within some seconds."""

    def add_close_callback(self, callback: Callable[[], object], /) -> None:
        """Have a function called after it was closed."""


E = TypeVar("E", bound=Poolable)

PING_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
CLOSE_SECONDS = 60.0
# The boot of its successor is not to compete with the first execution of what was handed out.
REFILL_DELAY = 0.2


class Keeper(Generic[E]):
    """What the threads of a pool share; it does not know the pool, which can so be collected."""

    def __init__(
        self,
        size: int,
        factory: Callable[[], E],
        maximum: int | None,
        minimum_lifetime: float,
        check_interval: float,
    ) -> None:
        self.size = size
        self.ready: deque[E] = deque()
        self._factory = factory
        self._maximum = maximum
        self._minimum_lifetime = minimum_lifetime
        self._check_interval = check_interval
        self._changed = threading.Condition()
        self._owner = os.getpid()
        self._closed = False
        self._keys = itertools.count()
        self._boots: dict[int, Cancellation] = {}
        self._lent: dict[int, weakref.ref[E]] = {}
        # Being checked or being ended.
        self._busy = 0
        self._waiting = 0
        self._failures = 0
        self._error: BaseException | None = None
        self._pause_until = 0.0
        self._refill_at = 0.0
        self._check_at = time.monotonic() + check_interval
        self._threads: set[threading.Thread] = set()

    @property
    def alive(self) -> int:
        """How many there are: booting, ready, handed out, being checked or ended."""
        return len(self.ready) + len(self._boots) + len(self._lent) + self._busy

    def start(self) -> None:
        """Begin to boot."""
        exit_handlers.register(self.close)
        self._thread(self._keep, "sandkernel-pool")

    def _thread(self, function: Callable[..., None], name: str, *arguments: object) -> None:
        def work() -> None:
            try:
                function(*arguments)
            finally:
                with self._changed:
                    self._threads.discard(threading.current_thread())
                    self._changed.notify_all()

        thread = threading.Thread(target=work, name=name, daemon=True)
        with self._changed:
            self._threads.add(thread)
        thread.start()

    # Handing out

    def acquire(self, timeout: float | None, given_up: threading.Event) -> E:
        """Hand one out that was found alive just now, unless it is given up meanwhile."""
        if os.getpid() != self._owner:
            raise ForkError("a pool can't be used in a forked child: make a new one there")
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            executor = self._take(end, timeout, given_up)
            key = next(self._keys)
            if self._is_fit(executor):
                with self._changed:
                    self._busy -= 1
                    self._lent[key] = weakref.ref(executor)
                executor.add_close_callback(functools.partial(self._returned, key))
                weakref.finalize(executor, self._returned, key).atexit = False
                return executor
            self._thread(self._end, "sandkernel-pool-end", executor)

    def _take(self, end: float | None, timeout: float | None, given_up: threading.Event) -> E:
        """Wait for an executor; it counts as busy from then on."""
        with self._changed:
            failures = self._failures
            self._waiting += 1
            self._changed.notify_all()
            try:
                while not self.ready:
                    if self._closed:
                        raise ClosedError("this pool is closed: make a new one")
                    if given_up.is_set():
                        raise BootError("no sandbox is wanted any more")
                    if self._failures != failures and not self._boots and self._error is not None:
                        raise self._error
                    remaining = None if end is None else end - time.monotonic()
                    if remaining is not None and remaining <= 0:
                        raise BootError(
                            f"no sandbox was ready within {timeout:g} s ({self.alive} alive, maximum "
                            f"{self._maximum}): make the pool larger, or close those that are done"
                        ) from self._error
                    self._changed.wait(remaining)
                self._busy += 1
                self._refill_at = time.monotonic() + REFILL_DELAY
                return self.ready.popleft()
            finally:
                self._waiting -= 1
                self._changed.notify_all()

    def give_up(self, given_up: threading.Event) -> None:
        """Make an `acquire` in another thread end."""
        with self._changed:
            given_up.set()
            self._changed.notify_all()

    def _returned(self, key: int) -> None:
        if os.getpid() != self._owner:
            return  # by a forked child, whose lock may be held for ever
        with self._changed:
            self._lent.pop(key, None)
            self._changed.notify_all()

    def _is_fit(self, executor: E) -> bool:
        return not self._is_expiring(executor) and executor.is_alive(PING_SECONDS)

    def _is_expiring(self, executor: E) -> bool:
        expires_at: datetime | None = getattr(executor, "expires_at", None)
        if expires_at is None:
            return False
        booted_at: datetime = getattr(executor, "booted_at", expires_at)
        whole = (expires_at - booted_at).total_seconds()
        left = (expires_at - datetime.now(timezone.utc)).total_seconds()
        return left < min(self._minimum_lifetime, whole / 2)

    # Keeping it filled

    def _keep(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                begin_at = max(self._pause_until, 0.0 if self._waiting else self._refill_at)
                missing = self._missing() if now >= begin_at else 0
                keys = [next(self._keys) for _ in range(missing)]
                for key in keys:
                    self._boots[key] = Cancellation()
                checking = now >= self._check_at
                if not keys and not checking:
                    due = [self._check_at]
                    if begin_at > now and self._missing():
                        due.append(begin_at)
                    self._changed.wait(min(due) - now)
                    continue
            for key in keys:
                self._thread(self._boot, "sandkernel-pool-boot", key)
            if checking:
                self._check()

    def _missing(self) -> int:
        """How many to boot."""
        wanted = max(self.size, self._waiting) - len(self.ready) - len(self._boots)
        room = wanted if self._maximum is None else self._maximum - self.alive
        return max(0, min(wanted, room))

    def _boot(self, key: int) -> None:
        cancellation = self._boots[key]
        context = contextvars.copy_context()
        context.run(Cancellation.current.set, cancellation)
        executor: E | None = None
        error: BaseException | None = None
        try:
            executor = context.run(self._factory)
        except BaseException as failure:  # noqa: BLE001 raised by `acquire`
            error = failure
        with self._changed:
            del self._boots[key]
            unwanted = None
            if executor is not None and not self._closed:
                self.ready.append(executor)
                self._failures, self._error, self._pause_until = 0, None, 0.0
            elif executor is not None:
                self._busy += 1
                unwanted = executor
            else:
                self._error = error
                self._pause_until = time.monotonic() + min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
                self._failures += 1
            self._changed.notify_all()
        if unwanted is not None:
            self._end(unwanted)

    def _check(self) -> None:
        """Replace those that died or are about to expire."""
        for _ in range(len(self.ready)):
            with self._changed:
                if self._closed or not self.ready:
                    break
                executor = self.ready.popleft()
                self._busy += 1
            if self._is_fit(executor):
                with self._changed:
                    # It may be closed by now: `close` waits for this thread, and ends what is ready then.
                    self._busy -= 1
                    self.ready.append(executor)
                    self._changed.notify_all()
            else:
                self._thread(self._end, "sandkernel-pool-end", executor)
        self._check_at = time.monotonic() + self._check_interval

    def _end(self, executor: E) -> None:
        """End one that counts as busy."""
        try:
            executor.close()
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    # The end

    def abandon(self) -> None:
        """Close without waiting: for the garbage collector."""
        if os.getpid() != self._owner:
            return
        threading.Thread(target=self.close, name="sandkernel-pool-end", daemon=True).start()

    def close(self) -> None:
        """End all of them; in a forked child: nothing."""
        if os.getpid() != self._owner:
            return
        exit_handlers.unregister(self.close)
        with self._changed:
            self._closed = True
            for cancellation in self._boots.values():
                cancellation.cancel()
            lent = [executor for reference in self._lent.values() if (executor := reference()) is not None]
            self._changed.notify_all()
        self._end_all(lent)
        with self._changed:
            self._changed.wait_for(lambda: not self._threads, CLOSE_SECONDS)
            rest = list(self.ready)
            self.ready.clear()
        self._end_all(rest)

    @staticmethod
    def _end_all(executors: list[E]) -> None:
        """End executors all at once; one after the other where the interpreter starts no thread any more."""
        threads = []
        for executor in executors:
            thread = threading.Thread(target=executor.close, name="sandkernel-pool-end", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                executor.close()
            else:
                threads.append(thread)
        for thread in threads:
            thread.join(CLOSE_SECONDS)
