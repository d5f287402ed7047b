"""A tunnel: a public TLS endpoint whose plain text goes to a port in a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from sandkernel.testing._closing import connections_gone, stop_accepting
from sandkernel.testing._faults import Faults
from sandkernel.testing._link import Link

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from sandkernel.testing._address import Address
    from sandkernel.testing._faults import Cut
    from sandkernel.testing._link import Streams

BAD_GATEWAY = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: 11\r\nConnection: close\r\n\r\n"
    b"bad gateway"
)
# The inner half of a connection; the faults are made in the outer one.
FAULTLESS = Faults()
# For what is written already to leave, when the tunnel closes.
FLUSH = 1.0


class Tunnel:
    """One tunnel.

    A connection passes two servers: the outer one takes the bytes as they are on the wire, so that faults and
    latency apply to handshakes too; the inner one, on a socket in the file system, ends TLS.

    Attributes:
        container_port: The port in the sandbox, as the SDK names it.
        local_port: The port of this machine that stands for it.
        connections: How many are open.
        accepted: How many there have been.
    """

    def __init__(
        self,
        address: Address,
        *,
        container_port: int,
        local_port: int,
        context: ssl.SSLContext | None,
        path: Path,
        faults: Faults,
        activity: Callable[[], None],
    ) -> None:
        self.address = address
        self.container_port = container_port
        self.local_port = local_port
        self.accepted = 0
        self._bytes_of_closed = 0
        self._context = context
        self._path = path
        self._faults = faults
        self._activity = activity
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._opening: asyncio.Task[None] | None = None
        self._closing = False
        self.connections = 0

    @property
    def bytes_passed(self) -> int:
        """How many bytes came through, in both directions."""
        return self._bytes_of_closed + sum(link.passed for link in tuple(self._links))

    @property
    def encrypted(self) -> bool:
        """Whether it speaks TLS."""
        return self._context is not None

    async def open(self) -> None:
        """Start to listen, at once or after the time for which connections are to be refused."""
        if self._faults.refusal:
            self._opening = asyncio.create_task(self._open(self._faults.refusal))
        else:
            await self._open(0)

    async def _open(self, delay: float) -> None:
        if delay == float("inf"):
            return
        await asyncio.sleep(delay)
        # Each is kept before it listens: this may be cancelled from then on.
        if self._context is not None:
            inner = await asyncio.start_unix_server(
                self._enter(self._inner), path=self._path, ssl=self._context, start_serving=False
            )
            self._servers.append(inner)
            await inner.start_serving()
        outer = await asyncio.start_server(
            self._enter(self._outer), sock=self.address.socket, start_serving=False
        )
        self._servers.append(outer)
        await outer.start_serving()

    def _enter(
        self, handle: Callable[[Streams, list[asyncio.StreamWriter]], Coroutine[None, None, None]]
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        async def serve(client: Streams) -> None:
            writers = [client[1]]
            try:
                await handle(client, writers)
            finally:
                await _close(writers)

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._closing:
                writer.transport.abort()
                return
            task = asyncio.create_task(serve((reader, writer)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            # Also when the task was cancelled before it began.
            task.add_done_callback(lambda _: writer.transport.abort())

        return accept

    async def _outer(self, client: Streams, writers: list[asyncio.StreamWriter]) -> None:
        self.accepted += 1
        self.connections += 1
        self._activity()
        try:
            if self._context is None:
                server = await self._connect()
            else:
                server = await asyncio.open_unix_connection(self._path)
            if server is None:
                return
            writers.append(server[1])
            link = Link(client, server, self._faults)
            self._links.add(link)
            try:
                await link.run()
            finally:
                self._links.discard(link)
                self._bytes_of_closed += link.passed
        finally:
            self.connections -= 1
            self._activity()

    async def _inner(self, client: Streams, writers: list[asyncio.StreamWriter]) -> None:
        if self._faults.bad_gateways > 0:
            self._faults.bad_gateways -= 1
            await _refuse(client)
            return
        server = await self._connect()
        if server is None:
            if self._faults.bad_gateway_while_booting:
                await _refuse(client)
            return
        writers.append(server[1])
        await Link(client, server, FAULTLESS).run()

    async def _connect(self) -> Streams | None:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection("127.0.0.1", self.local_port)
        return None

    def cut(self, how: Cut) -> int:
        """Break the open connections, and tell how many they were."""
        links = list(self._links)
        for link in links:
            link.cut(how)
        return len(links)

    async def close(self) -> None:
        """Close the endpoint and all its connections."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self._closing = True
        for server in self._servers:
            await stop_accepting(server)
        while self._tasks:
            # The first time ends the work on a connection, the next one the wait for whom it writes to.
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(set(self._tasks), timeout=FLUSH)
        await asyncio.gather(*map(connections_gone, self._servers))
        self.address.socket.close()
        self._path.unlink(missing_ok=True)


async def _close(writers: Sequence[asyncio.StreamWriter]) -> None:
    """Close connections, and wait until what was written has left; when cancelled, no longer."""
    try:
        for writer in writers:
            # Of a connection with TLS that is closed twice asyncio keeps nothing by which to abort it.
            if not writer.is_closing():
                writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
    finally:
        for writer in writers:
            writer.transport.abort()


async def _refuse(client: Streams) -> None:
    reader, writer = client
    with contextlib.suppress(
        OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError
    ):
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout=10)
        writer.write(BAD_GATEWAY)
        await writer.drain()
