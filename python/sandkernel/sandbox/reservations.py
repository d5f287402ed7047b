"""The memory that the arguments of calls under way take together."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Reservations", "Reserve"]

T = TypeVar("T")

# A call that waits for room looks this often whether its code is still there to be answered.
LOOK_SECONDS = 1.0
LITTLE_SHARE = 64


class Reserve(Protocol):
    """Reserves memory before it is taken."""

    def __call__(self, size: int) -> None:
        """Reserve `size` bytes more."""


class _NoRoom(BaseException):
    """There is no room at present, beside what others hold. No decoder takes it for an error of its own."""


class Reservations:
    """Bounds the memory that several readers, each in a thread of its own, hold at a time.

    A reader that finds no room lets go of what it holds, and begins anew when it is its turn. So no two
    readers wait for each other. A single reader always has room: its own limits bound it. So has one that
    holds little: it never waits for others.

    Args:
        most: The bytes that all readers hold together at most, beside those that hold no more than a 64th
            of it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._little = most // LITTLE_SHARE
        self._held = 0
        self._changed = threading.Condition()
        self._turn = threading.Lock()

    @contextmanager
    def reading(self, read: Callable[[Reserve], T], is_wanted: Callable[[], bool]) -> Iterator[T]:
        """Read something, and keep what was reserved for it until the context is left.

        Args:
            read: Makes what is read. It calls what it is given before it takes memory.
            is_wanted: Tells whether anybody still wants it.

        Yields:
            What `read` returned.

        Raises:
            TimeoutError: There was no room while anybody wanted it.
            Exception: What `read` raised.
        """
        mine = 0

        def reserve(size: int) -> None:
            nonlocal mine
            with self._changed:
                if not self._has_room(mine, size):
                    raise _NoRoom
                mine += size
                self._held += size

        def wait_and_reserve(size: int) -> None:
            nonlocal mine
            with self._changed:
                while is_wanted() and not self._has_room(mine, size):
                    self._changed.wait(LOOK_SECONDS)
                if not is_wanted():
                    raise TimeoutError("the code that called has ended")
                mine += size
                self._held += size

        def release() -> None:
            nonlocal mine
            with self._changed:
                self._held -= mine
                mine = 0
                self._changed.notify_all()

        try:
            try:
                value = read(reserve)
            except _NoRoom:
                release()
                with self._turn:
                    value = read(wait_and_reserve)
            yield value
        finally:
            release()

    def _has_room(self, mine: int, size: int) -> bool:
        return self._held == mine or self._held + size <= self._most or mine + size <= self._little
