"""Connections that come up while a server closes: none is left open, whatever turn of the loop it is."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import warnings
from typing import TYPE_CHECKING

import pytest

from fault_proxy import FaultProxy
from rewriting_proxy import Behaviour, RewritingProxy
from sandkernel.testing import _tunnel
from sandkernel.testing._address import reserve, reserve_plain
from sandkernel.testing._certificates import Certificates
from sandkernel.testing._faults import Faults
from sandkernel.testing._service import GrpcServer
from sandkernel.testing._tunnel import Tunnel
from waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

# A connection through a tunnel is up, TLS included, after a third of them.
TURNS = 60
# More than the buffers on the way take.
MUCH = bytes(32 * 1024 * 1024)


@contextlib.contextmanager
def nothing_unclosed() -> Iterator[None]:
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


class Client:
    """Connects, sends something, and reads until its connection ends."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, data: bytes) -> None:
        self.connected = False
        self._task = asyncio.create_task(self._run(host, port, context, data))

    async def _run(self, host: str, port: int, context: ssl.SSLContext | None, data: bytes) -> None:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            self.connected = True
            try:
                writer.write(data)
                await reader.read()
            finally:
                writer.transport.abort()

    async def ends(self) -> None:
        await asyncio.wait_for(self._task, PATIENCE)
        await turns(2)


def tunnel_of(certificates: Certificates | None, local_port: int, path: Path) -> Tunnel:
    address = reserve_plain() if certificates is None else reserve("port")
    return Tunnel(
        address,
        container_port=8888,
        local_port=local_port,
        context=None if certificates is None else certificates.server_context([address.name]),
        path=path,
        faults=Faults(),
        activity=lambda: None,
    )


@contextlib.asynccontextmanager
async def gateway(*, reads: bool) -> AsyncIterator[int]:
    """What stands behind a tunnel: it answers with much that nobody reads, or reads nothing itself."""
    writers = []

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if reads:
            writer.write(b"answer")
        else:
            writer.transport.pause_reading()  # type: ignore[attr-defined]

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await turns(2)


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("behind", ["nothing", "reads", "reads nothing"])
def test_a_tunnel(
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encrypted: bool,  # noqa: FBT001
    behind: str,
) -> None:
    monkeypatch.setattr(_tunnel, "FLUSH", 0.01)
    context = ssl.create_default_context(cafile=certificates.authority) if encrypted else None
    connected = []

    async def close_after(number: int, port: int, data: bytes) -> None:
        tunnel = tunnel_of(certificates if encrypted else None, port, tmp_path / "tunnel")
        await tunnel.open()
        client = Client("127.0.0.1", tunnel.address.socket.getsockname()[1], context, data)
        await turns(number)
        await tunnel.close()
        assert tunnel.connections == 0
        await client.ends()
        connected.append(client.connected)

    async def run(number: int) -> None:
        if behind == "nothing":
            await close_after(number, 1, b"request")
        else:
            async with gateway(reads=behind == "reads") as port:
                await close_after(number, port, b"request" if behind == "reads" else MUCH)

    with nothing_unclosed():
        for number in range(TURNS):
            asyncio.run(run(number))
    # Some came too early, and some late enough.
    assert set(connected) == {False, True}


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_tunnel_whose_gateway_ends_while_it_reads_nothing(
    certificates: Certificates,
    tmp_path: Path,
    encrypted: bool,  # noqa: FBT001
) -> None:
    context = ssl.create_default_context(cafile=certificates.authority) if encrypted else None

    async def run() -> None:
        async with gateway(reads=False) as port:
            tunnel = tunnel_of(certificates if encrypted else None, port, tmp_path / "tunnel")
            await tunnel.open()
            client = Client("127.0.0.1", tunnel.address.socket.getsockname()[1], context, MUCH)
            passed = -1
            while passed != tunnel.bytes_passed or not passed:
                passed = tunnel.bytes_passed
                await asyncio.sleep(0.2)
        await client.ends()
        await tunnel.close()

    with nothing_unclosed():
        asyncio.run(run())


def test_a_tunnel_that_just_opens(certificates: Certificates, tmp_path: Path) -> None:
    async def run(number: int) -> None:
        tunnel = tunnel_of(certificates, 1, tmp_path / "tunnel")
        tunnel._faults.refuse_connections(0.0001)
        await tunnel.open()
        assert tunnel._opening is not None
        await asyncio.sleep(0.0005)
        await turns(number)
        await tunnel.close()
        # Where it listened, another one can.
        server = await asyncio.start_unix_server(lambda *_: None, path=tmp_path / "tunnel")
        server.close()
        (tmp_path / "tunnel").unlink(missing_ok=True)

    with nothing_unclosed():
        for number in range(12):
            asyncio.run(run(number))


def test_a_control_plane() -> None:
    async def run(number: int) -> None:
        server = GrpcServer([])
        await server.start("127.0.0.1", 0)
        assert server._server is not None
        port = server._server.sockets[0].getsockname()[1]
        client = Client("127.0.0.1", port, None, b"")
        await turns(number)
        await asyncio.wait_for(server.stop(), PATIENCE)
        await client.ends()

    with nothing_unclosed():
        for number in range(20):
            asyncio.run(run(number))


async def close_among_clients(
    proxy: RewritingProxy | FaultProxy, context: ssl.SSLContext | None, number: int
) -> None:
    """Close a proxy, whose loop is in another thread, while some of many clients come."""
    clients = [Client("127.0.0.1", proxy.port, context, b"request") for _ in range(8)]
    await turns(number)
    await asyncio.to_thread(proxy.close)
    for client in clients:
        await client.ends()


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_rewriting_proxy(certificates: Certificates, encrypted: bool) -> None:  # noqa: FBT001
    context = certificates.server_context(["127.0.0.1"]) if encrypted else None
    trusting = ssl.create_default_context(cafile=certificates.authority) if encrypted else None

    async def run(number: int) -> None:
        await close_among_clients(RewritingProxy(1, Behaviour(), context=context), trusting, number)

    with nothing_unclosed():
        for number in range(20):
            asyncio.run(run(number))


def test_a_fault_proxy() -> None:
    async def run(number: int) -> None:
        async with gateway(reads=True) as port:
            await close_among_clients(FaultProxy(port), None, number)

    with nothing_unclosed():
        for number in range(40):
            asyncio.run(run(number))
