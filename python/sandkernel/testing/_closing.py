"""How a server of asyncio's is closed without losing a connection."""

from __future__ import annotations

import asyncio
import contextlib
import sys

# An end to waiting for what ends by itself, under any load.
PATIENCE = 10.0


async def stop_accepting(server: asyncio.AbstractServer) -> None:
    """Close what a server listens on, once the protocols know of each connection that was accepted.

    `Server.close` alone loses a connection that was accepted just before it: asyncio makes its transport in
    the next turn of the loop, a closed server refuses that, and only the garbage collector closes the socket.
    """
    loop = asyncio.get_running_loop()
    for each in server.sockets if isinstance(server, asyncio.Server) else ():
        loop.remove_reader(each.fileno())
    # In the first turn the transports are made, in the second the protocols are told.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    server.close()


async def connections_gone(server: asyncio.AbstractServer) -> None:
    """Wait until a closed server has no connection, those in the middle of a handshake among them."""
    if sys.version_info >= (3, 12, 1):
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(server.wait_closed(), PATIENCE)
        return
    # There `wait_closed` does not wait.
    for _ in range(int(100 * PATIENCE)):
        if not getattr(server, "_active_count", 0):
            return
        await asyncio.sleep(0.01)
