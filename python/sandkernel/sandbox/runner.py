"""Runs plans in the kernel of a sandbox, one after the other: what the `Sandbox` and all adapters share."""

from __future__ import annotations

import math
import threading
from contextlib import aclosing, closing
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

from sandkernel import plans
from sandkernel.concurrency.cancellation import Cancellation, in_thread
from sandkernel.concurrency.fair_lock import FairLock
from sandkernel.exceptions import ClosedError, ConfigurationError, ForkError, SandkernelError
from sandkernel.files import Files
from sandkernel.languages import runs_python
from sandkernel.plans import Deadline, Outcome, Plan, Work, adrive, drive, within
from sandkernel.providers.base import Provider, as_provider
from sandkernel.sandbox import final_answer, rebinding
from sandkernel.sandbox.kernels import Kernels
from sandkernel.sandbox.supervisor import SandboxSupervisor

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Mapping

    from sandkernel.sandbox.kernels import Closable
    from sandkernel.sandbox.setup import KernelSetup
    from sandkernel.session import Session

__all__ = ["KernelRunner", "booter", "is_public", "limit_of", "limited", "max_result_bytes"]

T = TypeVar("T")
K = TypeVar("K", bound="Closable")

# What `Session.connect` has for `max_result_bytes`.
DEFAULT_RESULT_BYTES = 256 << 20
# Results by which the kernel and the host tell each other something.
_PRIVATE = frozenset({final_answer.MIME, rebinding.MIME})


class KernelRunner:
    """A sandbox, the session to its kernel, and the queue of those who want something of it.

    Args:
        boot: Boots the sandbox.
        setup: Gives the kernel what it needs.
        name: What errors call this: the name of a class.
        owner: What it is, in one word: "sandbox", "executor".
        auto_reboot: Whether a sandbox that has ended is followed by another one.
        session_options: What else `Session.connect` takes.

    Attributes:
        setup: The same.
        lock: Lets one in at a time, in the order of the calls.
        supervisor: Has the sandbox.
        kernels: The further kernels of the sandbox.
        session_options: The same.
        auto_reboot: The same.
    """

    def __init__(
        self,
        boot: Callable[[], Provider],
        setup: KernelSetup,
        *,
        name: str,
        owner: str,
        auto_reboot: bool,
        session_options: Mapping[str, Any],
    ) -> None:
        self.setup = setup
        self.session_options = session_options
        self.auto_reboot = auto_reboot
        self._name = name
        self._owner = owner
        self._close_callbacks: list[Callable[[], object]] = []
        self.kernels = Kernels()
        self.lock = FairLock(setup.host_tools.threads.copy, owner)
        self.supervisor = SandboxSupervisor(self._connect, boot, setup.move, again=auto_reboot)

    # Its life

    def begin(self, connected: Callable[[], object]) -> None:
        """Boot the first sandbox.

        Args:
            connected: Called when the first session is open; closing the session breaks it off.
        """
        self.supervisor.begin()
        with Cancellation.following(self.open().close):
            connected()

    def _connect(self, sandbox: Provider) -> Session:
        return sandbox.connect(self.options_of_kernel())

    def options_of_kernel(self) -> dict[str, Any]:
        """Return the options of a session whose kernel is to be of the same kind as this one."""
        name = None if self.session is None else self.session.kernel_name
        return {**self.session_options, "kernel_name": self.session_options.get("kernel_name") or name}

    @property
    def provider(self) -> Provider | None:
        """The sandbox that runs, or that ran last; `None` before the first."""
        return self.supervisor.sandbox

    @property
    def session(self) -> Session | None:
        """The session to its kernel; `None` before it is open, and after the end."""
        return self.supervisor.session

    def require_open(self) -> None:
        """Raise where nothing can be asked of the kernel.

        Raises:
            ClosedError: This is closed.
            ForkError: It belongs to the process that this one was forked off.
            ConfigurationError: The code in the kernel waits for whoever asks.
        """
        if self.supervisor.closed:
            raise self.closed_error()
        if not self.supervisor.owned:
            raise ForkError(
                f"This {self._name} belongs to the process that this one was forked off: create a new "
                "one here"
            )
        if self.setup.host_tools.is_answering():
            article = "an" if self._owner[0] in "aeiou" else "a"
            what = "tool, or the managed agent," if self._owner == "executor" else "function"
            waiting = "tool" if self._owner == "executor" else "function"
            raise ConfigurationError(
                f"This {self._name} runs the code that waits for this {waiting}: give the {what} {article} "
                f"{self._owner} of its own, such as one of new_kernel()"
            )

    def open(self) -> Session:
        """Return the session.

        Raises:
            ClosedError: This is closed.
        """
        session = self.session
        if session is None:
            raise self.closed_error()
        return session

    def closed_error(self) -> ClosedError:
        """Return the error of who uses this after its end."""
        return ClosedError(f"This {self._name} is closed: create a new one")

    def close(self) -> None:
        """Delete the kernels and end the sandbox; a second call, and one in a forked child, does nothing."""
        if not self.supervisor.owned:
            # Before any lock: another thread of the parent's may have held one when the child was forked.
            return
        try:
            self.kernels.close()
        finally:
            try:
                self.setup.host_tools.close()
                self.supervisor.close()
            finally:
                self.lock.close()
                self.tell_closed()

    def add_close_callback(self, callback: Callable[[], object]) -> None:
        """Have a function called, once, after this was closed; at once where it is closed already."""
        self._close_callbacks.append(callback)
        if self.supervisor.closed:
            self.tell_closed()

    def tell_closed(self) -> None:
        """Call those who are to be told of the end."""
        while self._close_callbacks:
            self._close_callbacks.pop()()

    def is_alive(self, timeout: float) -> bool:
        """Whether the kernel answers, within some seconds and after what it is doing.

        Raises:
            ConfigurationError: What it is doing waits for this very call, so that it can't be asked.
        """
        if not self.supervisor.owned:
            return False
        try:
            self.require_open()
            with self.lock.take():
                session = self.open()
                nothing = "pass" if runs_python(session) else ""
                session.run(nothing, timeout=timeout, silent=True, store_history=False)
        except ConfigurationError:
            raise
        except SandkernelError:
            return False
        return True

    # Plans

    def drive(self, plan: Plan[T]) -> T:
        """Carry out a plan in this thread, when its turn has come and the sandbox is there."""
        self.require_open()
        with self.lock.take():
            self.supervisor.ensure_alive()
            return drive(self.supervisor.translate_errors(plan), self.open())

    async def adrive(self, plan: Plan[T]) -> T:
        """Carry out a plan in this task, when its turn has come and the sandbox is there."""
        self.require_open()
        async with self.lock.atake():
            await self._ensure_alive()
            return await adrive(self.supervisor.translate_errors(plan), self.open())

    def drive_beside(self, plan: Plan[T]) -> T:
        """Carry out a plan in this thread at once, whatever runs in the kernel."""
        self.require_open()
        if self.supervisor.is_due:
            with self.lock.take():
                self.supervisor.ensure_alive()
        return drive(self.supervisor.translate_errors(plan), self.open())

    async def adrive_beside(self, plan: Plan[T]) -> T:
        """Carry out a plan in this task at once, whatever runs in the kernel."""
        self.require_open()
        if self.supervisor.is_due:
            async with self.lock.atake():
                await self._ensure_alive()
        return await adrive(self.supervisor.translate_errors(plan), self.open())

    def stream(self, plan: Plan[Any]) -> Generator[Any, None, None]:
        """Carry out a plan in this thread, and yield the events of its code; at last, what it returns.

        Others have their turn when all is yielded, or the generator is closed.
        """
        self.require_open()
        with self.lock.take() as turn:
            self.supervisor.ensure_alive()
            with closing(plans.stream(self.supervisor.translate_errors(plan), self.open())) as events:
                for event in events:
                    told = event.value if isinstance(event, Outcome) else event
                    if told is not event or is_public(event):
                        yield told
                        # Whichever thread asks for the next one has the turn now.
                        turn.thread = threading.get_ident()

    async def astream(self, plan: Plan[Any], limit: float | None) -> AsyncGenerator[Any, None]:
        """Carry out a plan in this task, and yield the events of its code; at last, what it returns.

        Others have their turn when all is yielded, or the generator is closed; after so many seconds of
        `limit`, also while nobody asks for the next event.
        """
        self.require_open()
        async with self.lock.atake() as turn:
            await self._ensure_alive()
            with self.lock.lending(turn, limit):
                guarded = self.supervisor.translate_errors(plan)
                async with aclosing(plans.astream(guarded, self.open())) as events:
                    async for event in events:
                        told = event.value if isinstance(event, Outcome) else event
                        if told is not event or is_public(event):
                            turn.suspended = True
                            yield told
                            await self.lock.go_on(turn)

    async def _ensure_alive(self) -> None:
        if self.supervisor.is_due:
            await in_thread(self.supervisor.ensure_alive)

    @property
    def files(self) -> Files:
        """The files of the sandbox; what is done with them is done by the kernel, in turn with the rest."""
        files = self.setup.files
        return Files(lambda plan: self.drive(files(plan)), lambda plan: self.adrive(files(plan)))

    def start_kernel(self, construct: Callable[[Provider], K]) -> Plan[K]:
        """Start a further kernel in the sandbox.

        Args:
            construct: Makes the object that has it, in the sandbox that it is given.
        """

        def start() -> K:
            sandbox = self.provider
            if sandbox is None:
                raise self.closed_error()
            return construct(sandbox)

        started: K = yield Work(lambda: self.kernels.start(start))
        return started


def booter(sandbox: object, *, auto_reboot: bool) -> Callable[[], Provider]:
    """Return a function that boots a sandbox.

    Args:
        sandbox: A sandbox, or a function that boots one.
        auto_reboot: Whether it may be called again.

    Raises:
        ConfigurationError: It is a sandbox, which can't be booted again; or nothing of both.
    """
    if callable(sandbox):
        return lambda: as_provider(sandbox())
    if auto_reboot:
        raise ConfigurationError("auto_reboot=True takes a function that boots a sandbox, not a sandbox")
    provider = as_provider(sandbox)
    return lambda: provider


def is_public(event: object) -> bool:
    """Whether an event is one of the code's, not one by which the kernel tells the host something."""
    return _PRIVATE.isdisjoint(getattr(event, "mime_types", ()))


def limit_of(timeout: object) -> float | None:
    """Return a time limit in seconds; `None` for none.

    Raises:
        ConfigurationError: It is no number above 0.
    """
    if timeout is None or timeout == math.inf:
        return None
    seconds: Any = timeout
    if not isinstance(seconds, (int, float, Real)) or not seconds > 0:  # type: ignore[operator]
        raise ConfigurationError(f"timeout is a number of seconds above 0, not {seconds!r:.60}")
    return float(seconds)


def max_result_bytes(session_options: Mapping[str, Any]) -> int:
    """Return the bytes of results that a session keeps: no value that is fetched from its kernel has more."""
    return int(session_options.get("max_result_bytes", DEFAULT_RESULT_BYTES))


def limited(limit: float | None, plan_of: Callable[[Deadline | None], Plan[T]]) -> Plan[T]:
    """Carry out a plan within a time limit, which counts from its beginning.

    Args:
        limit: The seconds; `None` for no limit.
        plan_of: Makes the plan, and is told when it has to have ended.
    """
    if limit is None:
        return (yield from plan_of(None))
    # From here on: its turn has come, and its sandbox is there.
    deadline = Deadline(limit)
    return (yield from within(deadline, plan_of(deadline)))
