"""A sandbox and the session to its kernel, and those that take their place when the sandbox ends."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from sandkernel.concurrency.cancellation import Cancellation
from sandkernel.exceptions import (
    BootError,
    ClosedError,
    ConnectionLost,
    ForkError,
    GatewayError,
    KernelDied,
    KernelNotFoundError,
    ProtocolError,
    SandboxGone,
    SandkernelError,
)
from sandkernel.plans import Plan, Work
from sandkernel.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandkernel._sandkernel import Execution
    from sandkernel.providers.base import Provider

__all__ = ["SandboxSupervisor"]

T = TypeVar("T")

# What is raised also where the whole sandbox is gone.
SUSPICIOUS = (ConnectionLost, GatewayError, BootError, ProtocolError)
# Of a gateway that nobody else can tell about.
PROBE_SECONDS = 2.0


class SandboxSupervisor:
    """Has one sandbox at a time, and never leaves one behind.

    Args:
        connect: Opens a session in a sandbox.
        boot: Boots a sandbox.
        again: Whether a sandbox that has ended is followed by another one.
        on_session: Told each new sandbox, and its session.

    Attributes:
        sandbox: The one that runs, or that ran last; `None` before the first.
        session: The session in it; `None` before it is open, and after the end.
        closed: Whether this is the end: no sandbox is booted any more.
    """

    def __init__(
        self,
        connect: Callable[[Provider], Session],
        boot: Callable[[], Provider],
        on_session: Callable[[Provider, Session], object],
        *,
        again: bool,
    ) -> None:
        self._connect = connect
        self._boot = boot
        self._again = again
        self._owner = os.getpid()
        self._on_session = on_session
        # Held while the attributes change: they may be closed in one thread while another one boots.
        self._life = threading.Lock()
        self._booting: Cancellation | None = None
        self._gone: SandboxGone | None = None
        self.sandbox: Provider | None = None
        self.session: Session | None = None
        self.closed = False

    @property
    def is_due(self) -> bool:
        """Whether the sandbox is known to be gone."""
        return self._gone is not None

    @property
    def owned(self) -> bool:
        """Whether this is the process that booted the sandbox, and not a forked child of it."""
        return os.getpid() == self._owner

    def begin(self) -> None:
        """Boot the first sandbox."""
        self._replace()

    def ensure_alive(self) -> None:
        """Boot a new sandbox where the former one is gone; whatever fails, a later call can try again.

        Raises:
            SandboxGone: It is gone, and is not to be followed by another one.
            ClosedError: It was closed meanwhile.
        """
        if self._gone is None:
            return
        if not self._again:
            raise SandboxGone(str(self._gone))
        self._replace()

    def translate_errors(self, plan: Plan[T]) -> Plan[T]:
        """Carry out a plan; where its error is that the sandbox is gone, that is said instead."""
        try:
            return (yield from plan)
        except (*SUSPICIOUS, KernelDied) as error:
            if isinstance(error, KernelDied) and not self._shares_a_kernel():
                raise
            execution = getattr(error, "execution", None)
            gone = yield Work(lambda: self._exit_error(execution))
            if gone is None:
                raise
            raise gone from error

    def close(self) -> None:
        """End the session and the sandbox, and break off a boot that is under way in another thread."""
        with self._life:
            self.closed = True
            booting, session, sandbox = self._booting, self.session, self.sandbox
            self.session = None
        if booting is not None:
            booting.cancel()
        if sandbox is not None:
            self._end(sandbox, session)

    def detach(self) -> Session | None:
        """Have nothing to do with the sandbox any more, and leave it running; return the session."""
        with self._life:
            self.closed = True
            session, self.session = self.session, None
        return session

    def _replace(self) -> None:
        cancellation = Cancellation.current.get() or Cancellation()
        with self._life:
            self._require_open()
            former, session = self.sandbox, self.session
            self._booting = cancellation
        try:
            # Never two at once.
            if former is not None:
                self._end(former, session)
            with cancellation.applied():
                self._boot_one()
        except asyncio.CancelledError:
            self._require_open()
            raise
        finally:
            self._booting = None

    def _boot_one(self) -> None:
        sandbox = self._boot()
        session = None
        try:
            session = self._connect(sandbox)
            with self._life:
                Cancellation.check()
                self._require_open()
                self.sandbox, self.session, self._gone = sandbox, session, None
                self._on_session(sandbox, session)
            # An execution under way need not wait until the connection is found not to come back.
            sandbox.watch(_disconnecting(session))
        except BaseException:
            self._end(sandbox, session)
            raise

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedError("The sandbox was closed while it was booted: create a new one")

    @staticmethod
    def _end(sandbox: Provider, session: Session | None) -> None:
        try:
            if session is not None:
                session.close()
        finally:
            sandbox.terminate()

    def _shares_a_kernel(self) -> bool:
        """Whether the kernel is somebody else's: where its gateway has it no more, there is none to go on."""
        sandbox = self.sandbox
        return sandbox is not None and not sandbox.owns_kernel and bool(sandbox.endpoint.kernel_id)

    def _exit_error(self, execution: Execution | None) -> SandboxGone | None:
        """Find out whether the sandbox is gone: it knows that itself, or its gateway is asked."""
        sandbox, session = self.sandbox, self.session
        if self.closed or sandbox is None or session is None:
            return None
        if sandbox.knows_its_end:
            gone = sandbox.exit_error(execution)
        else:
            gone = self._probe(sandbox, session, execution) if self._again else None
        if gone is not None:
            self._gone = gone
            # Nothing of it is to stay until somebody calls again.
            sandbox.terminate()
        return gone

    def _probe(self, sandbox: Provider, session: Session, execution: Execution | None) -> SandboxGone | None:
        endpoint = sandbox.endpoint
        try:
            Session.connect(
                endpoint.url,
                endpoint.token or None,
                kernel_id=session.kernel_id,
                ca_certificates=endpoint.ca_certificates,
                connect_timeout=PROBE_SECONDS,
            ).close()
        except KernelNotFoundError as error:
            # One that the session created, it creates anew.
            reason = str(error) if endpoint.kernel_id is not None else ""
        except BootError as error:
            reason = str(error)
        except SandkernelError:
            reason = ""
        else:
            reason = ""
        if not reason:
            return None
        return SandboxGone(f"The gateway or its kernel is gone, with all state: {reason}", execution)


def _disconnecting(session: Session) -> Callable[[], None]:
    # The watch must not keep the session open.
    reference = weakref.ref(session)

    def disconnect() -> None:
        session = reference()
        if session is not None:
            with suppress(ForkError):
                session.disconnect()

    return disconnect
