"""A TCP proxy that makes faults: it cuts connections, falls silent, delays and throttles."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from typing_extensions import Self

Cut = Literal["fin", "reset", "silence"]
"""Both sides are closed in order; or reset; or nothing passes any more, and nobody is told."""

Toward = Literal["client", "gateway"]

PIECE = 16 * 1024
# As on a real way, little is on it at a time: what the proxy holds back does not wait in the system.
BUFFER = 32 * 1024


class _Connection:
    """A client and the gateway, as the proxy stands between them."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, gateway: socket.socket) -> None:
        self.ends: dict[Toward, socket.socket] = {"client": client, "gateway": gateway}
        self._proxy = proxy
        self._how: Cut = "fin"
        self._cut = asyncio.Event()
        self._over = asyncio.Event()

    def cut(self, how: Cut) -> None:
        """End it; one that is silent can still be ended otherwise."""
        self._how = how
        self._cut.set()
        if how != "silence":
            self._over.set()

    async def serve(self) -> None:
        pumps = [asyncio.create_task(self._pump(toward)) for toward in self.ends]
        waiting = asyncio.create_task(self._cut.wait())
        try:
            await asyncio.wait([*pumps, waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*pumps, waiting):
                task.cancel()
            await asyncio.gather(*pumps, waiting, return_exceptions=True)
        if self._how == "silence":
            await self._over.wait()
        for end in self.ends.values():
            if self._how == "reset":
                # Closing discards what is unsent, and sends RST.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()

    async def _pump(self, toward: Toward) -> None:
        loop = asyncio.get_running_loop()
        source = self.ends["gateway" if toward == "client" else "client"]
        target = self.ends[toward]
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(source, PIECE):
                if toward == "gateway" and b"upgrade: websocket" in data.lower():
                    self._proxy.websockets += 1
                if self._proxy.delay:
                    await asyncio.sleep(self._proxy.delay)
                if self._proxy.rate is not None:
                    await asyncio.sleep(len(data) / self._proxy.rate)
                allowed, how = self._proxy._count(toward, len(data))
                await loop.sock_sendall(target, data[:allowed])
                if how is not None:
                    self._proxy._cut_all(how)
                    return


class FaultProxy:
    """A proxy in front of a port of this machine.

    Everything may be called, read and set from any thread, and applies to connections that are open as well.

    Attributes:
        delay: Seconds by which each piece comes later, in both directions.
        rate: The most bytes in a second, in each direction of each connection; `None`: no limit.
        refusing: Whether new connections are closed at once.
        target: The port that new connections are taken to.
        passed: The bytes that passed, by where they went.
        cuts: How often it has cut.
        websockets: How many have been asked for; those by TLS are not seen.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0
        self.rate: float | None = None
        self.refusing = False
        self.passed: dict[Toward, int] = {"client": 0, "gateway": 0}
        self.cuts = self.websockets = 0
        self._plan: tuple[Toward, int, Cut] | None = None
        self._each: tuple[Toward, int, Cut] | None = None
        self._connections: set[_Connection] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._ending = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)  # noqa: FBT003
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        # Not by `sock_accept`: a connection that it has taken when it is cancelled is lost.
        self._loop.add_reader(self._listener, self._accept)
        self._thread.start()

    def cut(self, how: Cut = "reset") -> int:
        """Cut every open connection; return how many there were."""

        async def cut() -> int:
            return self._cut_all(how)

        return self._wait(cut()) or 0

    def cut_after(self, number_of_bytes: int, toward: Toward = "client", how: Cut = "reset") -> None:
        """Cut every connection once so many bytes more have gone one way."""
        self._plan = (toward, number_of_bytes, how)

    def cut_each(self, number_of_bytes: int, toward: Toward = "client", how: Cut = "reset") -> None:
        """Cut every connection each time that so many bytes more have gone one way, until it is healed."""
        self._each = (toward, number_of_bytes, how)
        self._plan = self._each

    def disarm(self) -> bool:
        """Forget a planned cut; whether it had come about."""
        planned, self._plan = self._plan, None
        return planned is None

    def heal(self) -> None:
        """Make no more faults; connections that are silent are reset."""
        self.delay, self.rate, self.refusing, self._plan, self._each = 0.0, None, False, None, None

        async def end_silence() -> None:
            for connection in self._connections:
                if connection._cut.is_set():
                    connection.cut("reset")

        self._wait(end_silence())

    def close(self) -> None:
        """End every connection, and the thread."""
        if self._loop.is_closed():
            return
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._loop.is_closed():
            # There is nothing to cut any more.
            coroutine.close()
            return None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        if self.refusing:
            client.close()
            return
        task = self._loop.create_task(self._serve(client))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, client: socket.socket) -> None:
        gateway = socket.socket()
        for end in (client, gateway):
            end.setblocking(False)  # noqa: FBT003
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.sock_connect(gateway, ("127.0.0.1", self.target))
        except OSError:
            client.close()
            gateway.close()
            return
        connection = _Connection(self, client, gateway)
        if self._ending:
            connection.cut("fin")
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    async def _end(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._ending = True
        self._cut_all("fin")
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _cut_all(self, how: Cut) -> int:
        self.cuts += 1
        for connection in self._connections:
            connection.cut(how)
        return len(self._connections)

    def _count(self, toward: Toward, size: int) -> tuple[int, Cut | None]:
        """How many bytes may pass, and how the connections are cut after them."""
        if self._plan is not None and self._plan[0] == toward:
            _, remaining, how = self._plan
            if size >= remaining:
                self._plan = self._each
                self.passed[toward] += remaining
                return remaining, how
            self._plan = (toward, remaining - size, how)
        self.passed[toward] += size
        return size, None
