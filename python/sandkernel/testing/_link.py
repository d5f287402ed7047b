"""A connection that is passed on byte by byte, as slow and as faulty as is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandkernel.testing._faults import Cut, Faults

CHUNK = 64 * 1024
# What may be under way in one direction, when it is delayed.
WINDOW = 8 * 1024 * 1024
RESET = struct.pack("ii", 1, 0)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """Joins a client's connection with one to the server, until either ends.

    Attributes:
        passed: How many bytes have arrived, in both directions.
    """

    def __init__(self, client: Streams, server: Streams, faults: Faults) -> None:
        self._client = client
        self._server = server
        self._faults = faults
        self.passed = 0
        self._silent = False
        self._closed = asyncio.Event()

    async def run(self) -> None:
        """Pass everything on, until one side ends, `cut`, or cancellation; then close both."""
        up = asyncio.create_task(self._pass(self._client[0], self._server[1], first=True))
        down = asyncio.create_task(self._pass(self._server[0], self._client[1], first=False))
        closed = asyncio.create_task(self._closed.wait())
        tasks = {up, down, closed}
        try:
            # A silent connection stays open, whatever the server does; only its client ends it.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._silent and not up.done():
                await asyncio.wait({up, closed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Before anything is waited for, since that may be cancelled.
            for _, writer in (self._client, self._server):
                writer.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self, how: Cut) -> None:
        """Break the client's connection."""
        if how == "silence":
            self._silent = True
            return
        if how == "reset":
            client = self._client[1]
            with contextlib.suppress(OSError):
                client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.transport.abort()
        self._closed.set()

    def _take(self, data: bytes) -> bytes:
        """Count what arrived, and give back what of it is to be passed on."""
        self.passed += len(data)
        faults = self._faults
        if faults.budget is not None and self.passed > faults.budget:
            self.cut(faults.budget_cut)
        return b"" if self._silent or self._closed.is_set() else data

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, first: bool) -> None:
        """Pass one direction on to its end; `first` if it is the one in which the first byte goes."""
        delay = _Delay(writer, self._faults, lambda: self._silent)
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if data := self._take(data):
                    # One round trip more before the first byte: the TCP handshake, done by the system.
                    await delay.write(data, round_trips=1.5 if first else 0.5)
                    first = False
            await delay.drain()


class _Delay:
    """Writes later, and not faster than is asked for."""

    def __init__(self, writer: asyncio.StreamWriter, faults: Faults, silent: Callable[[], bool]) -> None:
        self._writer = writer
        self._faults = faults
        self._silent = silent
        self._loop = asyncio.get_running_loop()
        self._last = 0.0
        self._pending = 0
        self._released = asyncio.Event()

    async def write(self, data: bytes, *, round_trips: float) -> None:
        now = self._loop.time()
        due = max(now + round_trips * self._faults.round_trip, self._last)
        if self._faults.rate:
            due += len(data) / self._faults.rate
        if due <= now and not self._pending:
            self._writer.write(data)
            await self._writer.drain()
            return
        self._last = due
        self._pending += len(data)
        self._loop.call_at(due, self._release, data)
        await self._until(WINDOW)

    def _release(self, data: bytes) -> None:
        self._pending -= len(data)
        self._released.set()
        if not (self._silent() or self._writer.is_closing()):
            self._writer.write(data)

    async def _until(self, most: int) -> None:
        while self._pending > most:
            self._released.clear()
            await self._released.wait()

    async def drain(self) -> None:
        """Wait until all is written."""
        await self._until(0)
        await self._writer.drain()
