"""An HTTP proxy before a real gateway that makes of it another server: what it takes, and how it answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandkernel.testing._closing import connections_gone, stop_accepting

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from typing_extensions import Self

END = b"\r\n\r\n"


@dataclass
class Head:
    """The first line and the headers of a request or an answer."""

    first: str
    headers: list[tuple[str, str]]

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        return cls(
            first, [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        )

    def get(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)

    def drop(self, *names: str) -> None:
        self.headers = [pair for pair in self.headers if pair[0].lower() not in names]

    def set(self, name: str, value: str) -> None:
        self.drop(name.lower())
        self.headers.append((name, value))

    @property
    def path(self) -> str:
        return self.first.split(" ")[1]

    @path.setter
    def path(self, path: str) -> None:
        method, _, version = self.first.split(" ")
        self.first = f"{method} {path} {version}"

    def __bytes__(self) -> bytes:
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers)]
        return "\r\n".join(lines).encode("latin-1") + END


def answer(status: int, body: str = "", *headers: tuple[str, str]) -> bytes:
    """A whole answer, after which the connection is closed."""
    head = Head(f"HTTP/1.1 {status} Any", [*headers, ("Content-Length", str(len(body.encode())))])
    head.headers.append(("Connection", "close"))
    return bytes(head) + body.encode()


@dataclass
class Behaviour:
    """What the proxy does to the requests and the answers.

    Attributes:
        refuse: Gives an answer in the place of the gateway's, where it gives one; may change the request.
        rewrite: Changes the head and the body of an answer of REST.
        upgrade: Changes the head of the answer to an upgrade, as text.
        byte_by_byte: Whether that head is sent so.
        closes_behind: Whether it says that it keeps a connection, and closes it just behind the answer.
        serve: Answers in the place of the gateway, bit by bit; whether it did.
    """

    refuse: Callable[[Head], bytes | None] = lambda _: None
    rewrite: Callable[[Head, bytes], bytes] = lambda head, body: bytes(head) + body
    upgrade: Callable[[str], str] = lambda head: head
    byte_by_byte: bool = False
    closes_behind: bool = False
    serve: Callable[[Head, asyncio.StreamWriter], Awaitable[bool]] | None = None


class RewritingProxy:
    """The proxy, in a thread of its own.

    Attributes:
        url: Its address; `https://` where it was given a context for TLS.
        port: Its port.
        requests: The first lines of the requests until now.
    """

    def __init__(
        self,
        port: int,
        behaviour: Behaviour,
        host: str = "127.0.0.1",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._target = port
        self._behaviour = behaviour
        self._context = context
        self.requests: list[str] = []
        self._writers: set[asyncio.StreamWriter] = set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family)
        name = f"[{host}]" if ":" in host else host
        self.port: int = self._socket.getsockname()[1]
        self.url = f"{'http' if context is None else 'https'}://{name}:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._start())

    def close(self) -> None:
        """End every connection, and the thread."""
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, coroutine: Awaitable[None]) -> None:
        async def run() -> None:
            await coroutine

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._socket, ssl=self._context)

    async def _stop(self) -> None:
        await stop_accepting(self._server)
        # Those that are in a handshake with TLS are among them.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await connections_gone(self._server)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while await self._serve(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether another one may follow."""
        head = Head.parse(await reader.readuntil(END))
        self.requests.append(head.first)
        body = await reader.readexactly(int(head.get("content-length") or 0))
        refusal = self._behaviour.refuse(head)
        if refusal is not None:
            writer.write(refusal)
            await writer.drain()
            return False
        if self._behaviour.serve is not None and await self._behaviour.serve(head, writer):
            return False
        if head.get("upgrade") is not None:
            await self._serve_websocket(head, reader, writer)
            return False
        head.set("Connection", "close")
        gateway_reader, gateway_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            gateway_writer.write(bytes(head) + body)
            answered = Head.parse(await gateway_reader.readuntil(END))
            content = await gateway_reader.read()
        finally:
            gateway_writer.close()
        answered.set("Connection", "keep-alive")
        writer.write(self._behaviour.rewrite(answered, content))
        await writer.drain()
        if self._behaviour.closes_behind:
            # Only when the next request is on its way: the race, and always lost.
            next_request = asyncio.create_task(reader.read(1))
            await asyncio.wait([next_request], timeout=0.5)
            next_request.cancel()
            return False
        return True

    async def _serve_websocket(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        gateway_reader, gateway_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            gateway_writer.write(bytes(head))
            upgraded = self._behaviour.upgrade((await gateway_reader.readuntil(END)).decode("latin-1"))
            if self._behaviour.byte_by_byte:
                for byte in upgraded.encode("latin-1"):
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0)
            else:
                writer.write(upgraded.encode("latin-1"))
            ways = [_pump(reader, gateway_writer), _pump(gateway_reader, writer)]
            tasks = [asyncio.create_task(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            gateway_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
