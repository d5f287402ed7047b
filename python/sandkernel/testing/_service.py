"""Serves a gRPC service with plain methods: one for each remote procedure, found by its name."""

from __future__ import annotations

import functools
import inspect
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from grpclib import GRPCError, Status
from grpclib.server import Server

from sandkernel.testing._closing import stop_accepting

if TYPE_CHECKING:
    from grpclib.const import Handler
    from grpclib.protocol import H2Protocol
    from grpclib.server import Stream

    from sandkernel.testing._faults import Faults


@dataclass(frozen=True)
class Call:
    """A call that a client made.

    Attributes:
        method: The name of the remote procedure, such as `"SandboxCreateV2"`.
        request: The message. It is in no representation, since it may hold the values of secrets.
        at: When, in seconds since the epoch.
        key: The same for all attempts of one call of the SDK; empty where the SDK sets none.
        error: The name of the gRPC status that it was answered with, if it failed.
    """

    method: str
    request: Any = field(repr=False)
    at: float = field(repr=False)
    key: str = field(repr=False)
    error: list[str] = field(default_factory=list, repr=False)


class Journal:
    """The calls so far; read from any thread."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    def add(self, call: Call) -> None:
        """Add a call."""
        with self._lock:
            self._calls.append(call)

    def all(self) -> list[Call]:
        """Copy the calls so far."""
        with self._lock:
            return list(self._calls)

    def clear(self) -> None:
        """Forget the calls so far."""
        with self._lock:
            self._calls.clear()


Authorize = Callable[[dict[str, str]], bool]


class Service:
    """Adapts `implementation` to a service base class that the modal wheel ships.

    The remote procedure `SandboxGetTaskId` is the method `sandbox_get_task_id(request)`, which returns the
    answer or, as an asynchronous generator, yields the answers. One that is marked with `@takes_stream` gets
    the stream instead. What has no method is answered with `UNIMPLEMENTED`.
    """

    def __init__(
        self, base: type, implementation: object, *, journal: Journal, faults: Faults, authorize: Authorize
    ) -> None:
        self._base = base
        self._implementation = implementation
        self._journal = journal
        self._faults = faults
        self._authorize = authorize

    def __mapping__(self) -> dict[str, Handler]:
        # The generated base asks its instance for one attribute per procedure, and nothing else.
        mapping: dict[str, Handler] = self._base.__mapping__(self)  # type: ignore[attr-defined]
        return mapping

    def __getattr__(self, name: str) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        if not name[:1].isupper():
            raise AttributeError(name)
        return functools.partial(self._serve, name)

    async def _serve(self, method: str, stream: Stream[Any, Any]) -> None:
        implementation = getattr(self._implementation, snake_case(method), None)
        request = None
        if not getattr(implementation, "takes_stream", False):
            request = await stream.recv_message()
        metadata = {name: value for name, value in (stream.metadata or {}).items() if isinstance(value, str)}
        call = Call(method, request, time.time(), metadata.get("x-idempotency-key", ""))
        self._journal.add(call)
        try:
            await self._answer(call, implementation, stream, metadata)
        except GRPCError as error:
            call.error.append(error.status.name)
            raise

    async def _answer(
        self,
        call: Call,
        implementation: Callable[..., Any] | None,
        stream: Stream[Any, Any],
        metadata: dict[str, str],
    ) -> None:
        if not self._authorize(metadata):
            raise GRPCError(Status.UNAUTHENTICATED, "the token is not one of this local control plane's")
        if implementation is None:
            raise GRPCError(Status.UNIMPLEMENTED, f"sandkernel.testing does not offer {call.method}")
        key = call.key or f"{call.method}-{id(call)}"
        await self._faults._strike(call.method, key, after_work=False)  # noqa: SLF001
        if inspect.isasyncgenfunction(implementation):
            answers: AsyncIterator[Any] = implementation(call.request)
            async for answer in answers:
                await stream.send_message(answer)
            return
        if call.request is None:
            answer = await implementation(stream)
        elif "key" in inspect.signature(implementation).parameters:
            answer = await implementation(call.request, key=key)
        else:
            answer = await implementation(call.request)
        await self._faults._strike(call.method, key, after_work=True)  # noqa: SLF001
        await stream.send_message(answer)


def takes_stream(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Mark a method whose remote procedure takes a stream of requests."""
    method.takes_stream = True  # type: ignore[attr-defined]
    return method


def snake_case(name: str) -> str:
    """Turn `SandboxCreateV2` into `sandbox_create_v2`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


class GrpcServer(Server):
    """A server whose end also ends the connections of clients that would rather stay."""

    def __init__(self, services: list[Service]) -> None:
        super().__init__(services)
        self._protocols: list[H2Protocol] = []

    def _protocol_factory(self) -> H2Protocol:
        protocol = super()._protocol_factory()
        self._protocols.append(protocol)
        return protocol

    async def stop(self) -> None:
        """Cancel what is being served, and close everything."""
        if self._server is not None:
            await stop_accepting(self._server)
        self.close()
        for protocol in self._protocols:
            # It has a connection from the moment when it is connected.
            if connection := getattr(protocol, "connection", None):
                connection.close()
        await self.wait_closed()
