"""A connection that is passed on byte by byte, as slow and as faulty as is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandkernel.testing._faults import Cut, Faults

CHUNK = 64 * 1024
# What may be under way in one direction, when it is delayed.
WINDOW = 8 * 1024 * 1024
RESET = struct.pack("ii", 1, 0)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """Joins a client's connection with one to the server, until either ends."""

    def __init__(self, client: Streams, server: Streams, faults: Faults) -> None:
        self._client = client
        self._server = server
        self._faults = faults
        self._passed = 0
        self._silent = False
        self._closed = asyncio.Event()

    async def run(self) -> None:
        """Pass everything on, until one side ends, `cut`, or cancellation; then close both."""
        up = asyncio.create_task(self._pass(self._client[0], self._server[1], handshake=True))
        down = asyncio.create_task(self._pass(self._server[0], self._client[1], handshake=False))
        closed = asyncio.create_task(self._closed.wait())
        tasks = {up, down, closed}
        try:
            # A silent connection stays open, whatever the server does; only its client ends it.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._silent and not up.done():
                await asyncio.wait({up, closed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for _, writer in (self._client, self._server):
                writer.close()

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

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, handshake: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        faults = self._faults
        pending = 0
        room = asyncio.Event()
        last = 0.0

        def release(piece: bytes) -> None:
            nonlocal pending
            pending -= len(piece)
            room.set()
            if not (self._silent or writer.is_closing()):
                writer.write(piece)

        with contextlib.suppress(ConnectionError, OSError):
            while data := await reader.read(CHUNK):
                self._passed += len(data)
                if faults.budget is not None and self._passed > faults.budget:
                    self.cut(faults.budget_cut)
                if self._silent:
                    continue
                if self._closed.is_set():
                    return
                now = loop.time()
                # One round trip more before the first byte: the TCP handshake, which the system does by itself.
                due = max(now + faults.round_trip * (1.5 if handshake else 0.5), last)
                handshake = False
                if faults.rate:
                    due = max(due, last) + len(data) / faults.rate
                if due <= now and not pending:
                    writer.write(data)
                    await writer.drain()
                    continue
                last = due
                pending += len(data)
                loop.call_at(due, release, data)
                while pending > WINDOW:
                    room.clear()
                    await room.wait()
        while pending:
            room.clear()
            await room.wait()
        with contextlib.suppress(ConnectionError, OSError):
            await writer.drain()
