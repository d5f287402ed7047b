"""What the tests of the executors share: a model with a script, and a stock gateway."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from smolagents import CodeAgent
from smolagents.monitoring import LogLevel

from sandkernel import LocalExecutor
from sandkernel.pytest_plugin.model import ScriptedModel
from sandkernel.testing._address import free_port
from waiting import UNHURRIED, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def agent_of(executor: Any, *steps: str, **options: Any) -> CodeAgent:
    tools = options.pop("tools", [])
    return CodeAgent(tools, ScriptedModel(*steps), executor=executor, verbosity_level=LogLevel.OFF, **options)


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    """One executor for the tests of a file: what they bind they name apart."""
    with LocalExecutor(timeout=60, session_options=UNHURRIED) as executor:
        yield executor


@dataclass(frozen=True)
class StockGateway:
    url: str
    token: str = field(repr=False)


@contextmanager
def running_gateway(token: str = "", options: Sequence[str] = ()) -> Iterator[StockGateway]:
    """A kernel gateway as its own command starts it, with its output limits."""
    token = token or secrets.token_hex()
    variables = {"KG_AUTH_TOKEN": token, "KG_PORT_RETRIES": "0"}
    with _running(token, ["kernelgateway", *options], variables) as gateway:
        yield gateway


@contextmanager
def running_server(token: str = "") -> Iterator[StockGateway]:
    """A Jupyter server as its own command starts it, without a browser."""
    token = token or secrets.token_hex()
    command = ["server", "--no-browser", "--ServerApp.allow_root=True", "--ServerApp.port_retries=0"]
    with _running(token, command, {"JUPYTER_TOKEN": token}) as server:
        yield server


@contextmanager
def _running(token: str, command: list[str], variables: dict[str, str]) -> Iterator[StockGateway]:
    # Another process may have taken the port by then: it is told by its token, which is no other's.
    for _ in range(5):
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter", *command, "--ip=127.0.0.1", f"--port={port}"],
            env={**os.environ, **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            gateway = StockGateway(f"http://127.0.0.1:{port}", token)
            until(lambda: status(gateway, "/api") == 200 or process.poll() is not None, 100)  # noqa: B023
            if process.poll() is None:
                yield gateway
                return
        finally:
            process.terminate()
            process.wait(60)
    raise AssertionError("the gateway ended")


def status(gateway: StockGateway, path: str) -> int:
    request = urllib.request.Request(gateway.url + path, headers={"Authorization": f"token {gateway.token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


@contextmanager
def recording_proxy(port: int) -> Iterator[tuple[str, list[bytearray]]]:  # noqa: C901 two small loops
    """A TCP proxy in front of a port; for each connection it keeps the first 64 KiB that the client sent."""
    connections: list[bytearray] = []
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def pump(source: socket.socket, target: socket.socket, record: bytearray | None) -> None:
        try:
            while data := source.recv(65536):
                if record is not None and len(record) < 65536:
                    record += data
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets.extend((client, server))
            connections.append(bytearray())
            for arguments in ((client, server, connections[-1]), (server, client, None)):
                threads.append(threading.Thread(target=pump, args=arguments))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
        finally:
            # `close` alone leaves the thread in `accept`.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(10)
            for end in sockets:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(10)
            for end in sockets:
                end.close()
