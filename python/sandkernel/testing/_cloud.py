"""The local control plane as one object that is started and stopped."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from modal_proto.api_grpc import ModalClientBase
from modal_proto.task_command_router_grpc import TaskCommandRouterBase

from sandkernel.exceptions import ForkError
from sandkernel.gateway.removal import remove_tree
from sandkernel.testing._activation import activated
from sandkernel.testing._address import bind
from sandkernel.testing._certificates import Certificates
from sandkernel.testing._command_router import CommandRouter
from sandkernel.testing._control_plane import ControlPlane
from sandkernel.testing._faults import Faults
from sandkernel.testing._records import SandboxRecord
from sandkernel.testing._sandbox import Machine
from sandkernel.testing._service import Call, GrpcServer, Journal, Service
from sandkernel.testing._store import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from sandkernel.testing._address import Addressing

T = TypeVar("T")

ENVIRONMENT_NAME = "main"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0


class LocalModal:
    """A stand-in for Modal's servers on this machine: test what uses Modal sandboxes, without an account.

    The unmodified `modal` package talks to it over gRPC. `Sandbox.create` runs the real entrypoint as a
    process of this machine, in a process group, home directory and environment of its own, with the
    environment variables that the sandbox's secrets and `env=` set; each tunnel is a real TLS endpoint.

        with LocalModal() as cloud, cloud.activate():
            app = modal.App.lookup("demo", create_if_missing=True)
            server = ["python", "-m", "http.server", "8000"]
            sandbox = modal.Sandbox.create(*server, app=app, encrypted_ports=[8000])
            requests.get(sandbox.tunnels()[8000].url)
            sandbox.terminate()
            cloud.assert_no_running_sandboxes()

    It is no container: an entrypoint sees this machine's files and network, and no image is built. `python`
    and what else is installed beside it (such as `jupyter`) come from the environment of `python=`. Files and
    volumes of an image are recorded, not mounted. A port that an entrypoint is told to listen on is replaced
    by a free one of this machine. Code that you would not run on this machine should not be run in it.

    Everything runs in a thread of its own. What it started has ended when `stop()` returns, and soon after
    its process was killed otherwise.

    Args:
        python: The interpreter whose environment takes the place of an image's; by default the running one.
            Packages that `pip` installs in a sandbox go into the sandbox's own directory; `uv` writes to this
            environment.
        environment: Variables that all sandboxes have besides their own.
        addressing: How tunnels are told apart. `"address"`: by an address each in 127.0.0.0/8, on port 443,
            so that `tunnel.host` and `tunnel.port` are what they are on Modal; that needs Linux, and root or
            a `net.ipv4.ip_unprivileged_port_start` of at most 443. `"port"`: by a port of 127.0.0.1, which is
            part of `tunnel.host`, so that `https://{tunnel.host}/` works. `"auto"`: by address where that is
            possible.

    Attributes:
        faults: What is to go wrong.
    """

    def __init__(
        self,
        *,
        python: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        addressing: Addressing = "auto",
    ) -> None:
        self.faults = Faults()
        self._python = os.fspath(python or sys.executable)
        self._environment = dict(environment or {})
        self._addressing = addressing
        self._journal = Journal()
        self._token_id = new_id("ak")
        self._token_secret = new_id("as")
        # All its sandboxes' ids start with this, so that their processes can be found should this one be
        # killed.
        self._prefix = new_id("x", length=8)[2:]
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._plane: ControlPlane | None = None
        self._reaper: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._url = ""

    # Start and stop

    def start(self) -> Self:
        """Start it.

        Raises:
            RuntimeError: It was started before.
        """
        if self._thread is not None:
            raise RuntimeError("this local control plane was started before; make another")
        self._directory = Path(tempfile.mkdtemp(prefix="sandkernel-modal-"))
        self._certificates = Certificates(self._directory)
        self._reaper = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                str(Path(__file__).with_name("_reaper.py")),
                f"sb-{self._prefix}",
                str(self._directory),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop,), name="sandkernel-modal", daemon=True
        )
        self._thread.start()
        atexit.register(self.stop)
        try:
            self._wait(self._open(), START_TIMEOUT)
        except BaseException:
            self.stop()
            raise
        return self

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.close()

    async def _open(self) -> None:
        if self._directory is None:
            raise AssertionError
        listener = bind("127.0.0.1", 0)
        self._url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        machine = Machine(
            directory=self._directory,
            python=self._python,
            certificates=self._certificates,
            faults=self.faults,
            addressing=self._addressing,
            environment=self._environment,
            environment_name=ENVIRONMENT_NAME,
        )
        plane = ControlPlane(machine, self._url, self._prefix)
        self._server = GrpcServer(
            [
                Service(
                    ModalClientBase,
                    plane,
                    journal=self._journal,
                    faults=self.faults,
                    authorize=self._knows_token,
                ),
                Service(
                    TaskCommandRouterBase,
                    CommandRouter(plane),
                    journal=self._journal,
                    faults=self.faults,
                    authorize=lambda metadata: (
                        metadata.get("authorization") == f"Bearer {plane.router_token}"
                    ),
                ),
            ]
        )
        await self._server.start(sock=listener)
        self._plane = plane

    def _knows_token(self, metadata: dict[str, str]) -> bool:
        # Whoever reaches the port could run programs as this user otherwise.
        given = (metadata.get("x-modal-token-id", ""), metadata.get("x-modal-token-secret", ""))
        return secrets.compare_digest("".join(given), self._token_id + self._token_secret)

    def stop(self) -> None:
        """End all sandboxes, close all connections, remove all files; harmless if it was stopped before."""
        if os.getpid() != self._pid:
            return
        atexit.unregister(self.stop)
        loop, thread, self._loop = self._loop, self._thread, None
        if loop is not None and thread is not None:
            with contextlib.suppress(TimeoutError, concurrent.futures.TimeoutError):
                _result(self._close(), loop, STOP_TIMEOUT)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(STOP_TIMEOUT)
        reaper, self._reaper = self._reaper, None
        if reaper is not None and reaper.stdin is not None:
            reaper.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                reaper.wait(STOP_TIMEOUT)
        if self._directory is not None:
            remove_tree(str(self._directory))

    async def _close(self) -> None:
        if self._plane is not None:
            await self._plane.close()
            await self._server.stop()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        loop = asyncio.get_running_loop()
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()
        # Transports that were closed just now close their sockets in the next round of the loop.
        await asyncio.sleep(0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<LocalModal {self._url or 'not started'}>"

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if os.getpid() != self._pid:
            raise ForkError("this local control plane is of the process that this one was forked off")
        if self._loop is None:
            raise RuntimeError("this local control plane does not run; use it in a `with` statement")
        return self._loop

    def _wait(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        try:
            loop = self._running_loop()
        except BaseException:
            # Python warns of one that nobody awaits.
            coroutine.close()
            raise
        return _result(coroutine, loop, timeout)

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._wait(call(), STOP_TIMEOUT)

    # How to use it

    def environment(self) -> dict[str, str]:
        """Make the environment variables by which a process uses it.

        They point the `modal` package here, and make `requests`, `websocket-client`, OpenSSL and rustls trust
        the tunnels besides what is trusted anyway.
        """
        bundle = str(self._certificates.bundle)
        variables = {
            "MODAL_SERVER_URL": self._url,
            "MODAL_TOKEN_ID": self._token_id,
            "MODAL_TOKEN_SECRET": self._token_secret,
            "MODAL_ENVIRONMENT": ENVIRONMENT_NAME,
            "REQUESTS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
            "WEBSOCKET_CLIENT_CA_BUNDLE": bundle,
        }
        if any(name.lower().endswith("_proxy") for name in os.environ):
            excepted = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
            tunnels = ",".join(part for part in (excepted, "127.0.0.1", "127.0.0.0/8", "localhost") if part)
            variables.update(NO_PROXY=tunnels, no_proxy=tunnels)
        return variables

    def activate(self) -> contextlib.AbstractContextManager[None]:
        """Let this process use it, within a `with` statement.

        Sets the variables of `environment()` and takes the place of the client that the `modal` package
        keeps; restores both at the end. Images, apps and other objects of Modal's that were used with one
        control plane belong to it.
        """
        return activated(self.environment())

    @property
    def ca_certificates(self) -> str:
        """The path of a PEM file with the certificate authority of the tunnels, and nothing else."""
        return str(self._certificates.authority)

    @property
    def ca_bundle(self) -> str:
        """The path of a PEM file with that authority and the roots that are trusted anyway."""
        return str(self._certificates.bundle)

    def add_secret(self, name: str, values: Mapping[str, str]) -> None:
        """Add a named secret, for `modal.Secret.from_name(name)`."""
        if self._plane is None:
            raise RuntimeError("this local control plane does not run; use it in a `with` statement")
        store = self._plane.store
        self._call(lambda: store.add_secret(name, values))

    # What happened

    @property
    def calls(self) -> list[Call]:
        """The calls that clients made, in order; all attempts of a call are there."""
        return self._journal.all()

    @property
    def sandboxes(self) -> list[SandboxRecord]:
        """All sandboxes that were created, in order."""
        sandboxes = self._plane.sandboxes.copy().values() if self._plane else ()
        return [SandboxRecord(sandbox, self._call) for sandbox in sandboxes]

    def running_sandboxes(self) -> list[SandboxRecord]:
        """The sandboxes that have not ended."""
        return [sandbox for sandbox in self.sandboxes if sandbox.state != "ended"]

    def assert_no_running_sandboxes(self, *, within: float = 5.0) -> None:
        """Assert that every sandbox has ended.

        Args:
            within: How long to wait for that, in seconds.

        Raises:
            AssertionError: A sandbox still runs.
        """
        deadline = time.monotonic() + within
        while running := self.running_sandboxes():
            if time.monotonic() >= deadline:
                described = "; ".join(
                    f"{each!r}, tags {each.tags}, entrypoint {each.entrypoint[:1]}" for each in running
                )
                raise AssertionError(
                    f"{len(running)} of {len(self.sandboxes)} sandboxes still run: {described}"
                )
            time.sleep(0.01)

    def reset(self) -> None:
        """End all sandboxes, forget them and the calls, and make no more faults: for use between tests."""
        self.faults.clear()
        if self._plane is None:
            return
        self._wait(self._plane.close(), STOP_TIMEOUT)
        self._call(self._plane.forget)
        self._journal.clear()


def _result(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop, timeout: float) -> T:
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout)
