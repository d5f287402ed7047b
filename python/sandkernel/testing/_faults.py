"""Faults that a local control plane makes on demand."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Literal

from grpclib import GRPCError, Status

Cut = Literal["close", "reset", "silence"]
"""How a connection breaks: an orderly close (FIN), a reset (RST), or no further byte in either direction."""

CREATE = ("SandboxCreate", "SandboxCreateV2")


@dataclass
class _CallFault:
    """What befalls the next calls of some methods; all attempts of one SDK call share an idempotency key."""

    methods: tuple[str, ...]
    status: Status | None
    message: str
    calls: int | None
    attempts: int | None
    after_work: bool
    delay: float
    seen: dict[str, int] = field(default_factory=dict)

    def applies(self, method: str, key: str) -> bool:
        if method not in self.methods:
            return False
        if key not in self.seen and self.calls is not None and len(self.seen) >= self.calls:
            return False
        attempt = self.seen[key] = self.seen.get(key, 0) + 1
        return self.attempts is None or attempt <= self.attempts


class Faults:
    """What goes wrong, from now on and until `clear()`.

    Faults of the tunnel apply to connections that are open already as well. All times are in seconds.
    Every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[_CallFault] = []
        self._reset()

    def _reset(self) -> None:
        self.boot_delay = 0.0
        self.tunnels_open = True
        self.refusal = 0.0
        self.bad_gateways = 0
        self.bad_gateway_while_booting = False
        self.round_trip = 0.0
        self.rate: float | None = None
        self.budget: int | None = None
        self.budget_cut: Cut = "reset"

    def clear(self) -> None:
        """Make nothing go wrong any more."""
        with self._lock:
            self._calls.clear()
            self._reset()

    # Calls to the control plane

    def call_fails(
        self,
        method: str,
        status: str = "UNAVAILABLE",
        message: str = "made to fail",
        *,
        times: int | None = 1,
        attempts: int | None = None,
        after_work: bool = False,
    ) -> None:
        """Let calls of a method fail.

        Args:
            method: The name of the remote procedure, such as `"AppGetOrCreate"`; see `LocalModal.calls`.
            status: The name of a gRPC status. The SDK repeats a call that fails with `UNAVAILABLE`,
                `INTERNAL`, `UNKNOWN`, `CANCELLED` or `DEADLINE_EXCEEDED`, and raises at once for others.
            message: What the error says.
            times: How many calls of the SDK fail, with all their attempts; `None` for all.
            attempts: How many attempts of each call fail, so that a repeated one gets through; `None` for
                all.
            after_work: Do the work, and lose only the answer.
        """
        self._add((method,), status, message, times, attempts, after_work=after_work)

    def call_takes(self, method: str, seconds: float, *, times: int | None = None) -> None:
        """Delay the work of calls of a method."""
        with self._lock:
            self._calls.append(_CallFault((method,), None, "", times, None, after_work=False, delay=seconds))

    def create_fails(
        self, status: str = "RESOURCE_EXHAUSTED", message: str = "made to fail", *, times: int | None = 1
    ) -> None:
        """Let `Sandbox.create` fail.

        Args:
            status: `"RESOURCE_EXHAUSTED"`, `"PERMISSION_DENIED"`, `"UNAUTHENTICATED"`, or another gRPC
                status.
            message: What the error says.
            times: How many calls fail; `None` for all.
        """
        self._add(CREATE, status, message, times, None, after_work=False)

    def create_answer_lost(self, *, times: int | None = 1) -> None:
        """Let `Sandbox.create` do its work, once, and lose the answer of every attempt."""
        self._add(CREATE, "UNAVAILABLE", "the answer was lost", times, None, after_work=True)

    def create_takes(self, seconds: float, *, times: int | None = None, after_work: bool = False) -> None:
        """Delay `Sandbox.create`, before its work or (`after_work`) only its answer."""
        with self._lock:
            self._calls.append(
                _CallFault(CREATE, None, "", times, None, after_work=after_work, delay=seconds)
            )

    def _add(
        self,
        methods: tuple[str, ...],
        status: str,
        message: str,
        calls: int | None,
        attempts: int | None,
        *,
        after_work: bool,
    ) -> None:
        fault = _CallFault(
            methods, Status[status], message, calls, attempts, after_work=after_work, delay=0.0
        )
        with self._lock:
            self._calls.append(fault)

    async def _strike(self, method: str, key: str, *, after_work: bool) -> None:
        with self._lock:
            due = [
                fault
                for fault in self._calls
                if fault.after_work is after_work and fault.applies(method, key)
            ]
        for fault in due:
            if fault.delay:
                await asyncio.sleep(fault.delay)
            if fault.status is not None:
                raise GRPCError(fault.status, fault.message)

    # Boot

    def slow_boot(self, seconds: float) -> None:
        """Start entrypoints so much later; `Sandbox.create` itself does not wait."""
        self.boot_delay = seconds

    def tunnel_never_opens(self) -> None:
        """Give out no tunnel: `Sandbox.tunnels` raises `SandboxTimeoutError` when its time is up."""
        self.tunnels_open = False

    def refuse_connections(self, seconds: float = float("inf")) -> None:
        """Refuse the connections to tunnels of new sandboxes for so long after their start."""
        self.refusal = seconds

    def bad_gateway(self, requests: int = 1, *, while_booting: bool = False) -> None:
        """Answer requests through tunnels with status 502.

        Args:
            requests: How many connections get that answer.
            while_booting: Give it, besides, to every connection for which nothing listens in the sandbox yet.
                By default such a connection is closed after the TLS handshake.
        """
        self.bad_gateways = requests
        self.bad_gateway_while_booting = while_booting

    # Tunnels

    def latency(self, round_trip: float) -> None:
        """Add so much to each round trip through tunnels, the TCP and TLS handshakes included."""
        self.round_trip = round_trip

    def throttle(self, bytes_per_second: float | None) -> None:
        """Limit the rate of each direction of each connection; `None` lifts the limit."""
        self.rate = bytes_per_second

    def cut_after(self, number_of_bytes: int, how: Cut = "reset") -> None:
        """Break each connection once so many bytes, encrypted, have gone through it, both ways together."""
        self.budget_cut = how
        self.budget = number_of_bytes
