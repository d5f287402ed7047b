"""A sandbox with a kernel in it, for any program and any framework."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sandkernel import arguments
from sandkernel import packages as package_names
from sandkernel.concurrency import bridge
from sandkernel.concurrency.cancellation import in_thread
from sandkernel.exceptions import (
    ConfigurationError,
    ExecutionTimeout,
    SandkernelError,
    StateLost,
)
from sandkernel.plans import Deadline, Plan, Work
from sandkernel.providers.shared import SharedSandbox
from sandkernel.sandbox import kernels, variables
from sandkernel.sandbox.functions import FunctionPlacement, check_functions, check_name, invoke
from sandkernel.sandbox.messages import explain_unprepared
from sandkernel.sandbox.options import CreateOptions, blueprint
from sandkernel.sandbox.runner import KernelRunner, booter, limit_of, limited, max_result_bytes
from sandkernel.sandbox.setup import KernelSetup
from sandkernel.serialization import PayloadLimits
from sandkernel.session import ConnectOptions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
    from datetime import datetime
    from types import EllipsisType, TracebackType

    from typing_extensions import Self, Unpack

    from sandkernel._sandkernel import (
        ClearOutput,
        Execution,
        ExecutionError,
        Output,
        Result,
        Skipped,
    )
    from sandkernel.files import Files
    from sandkernel.providers.base import Provider
    from sandkernel.sandbox.kernels import RunOutcome
    from sandkernel.sandbox.options import Backend
    from sandkernel.shipment import Progress

__all__ = ["Sandbox"]

T = TypeVar("T")

LAST_PORT = (1 << 16) - 1


class Sandbox:
    """A sandbox with a Jupyter kernel in it, which keeps its state from one run to the next.

    `Sandbox.create` makes one on this machine, on Modal, or in a gateway that runs already; the constructor
    takes a sandbox of a class of your own. An error that the code raises is data (`Execution.error`); an
    error underneath raises one of `sandkernel.exceptions`. Calls are served one after the other, in the order
    in which they come, whichever threads and tasks make them. Each verb has its async twin with an `a` before
    it.

    Close it with `close()` or `aclose()`, or use it as a context manager, sync or async: that ends the
    sandbox and everything in it. A sandbox also ends at garbage collection and at the exit of the
    interpreter. In a forked child, every call raises `ForkError`, but for `close`, which does nothing there.

    Values travel in a safe form both ways, and none is ever unpickled on this side: texts, numbers, lists,
    dicts, sets, dates, arrays, frames, images and dataclasses.

    Args:
        sandbox: A `Provider`, or a function that boots one. This ends it.
        packages: Packages to install, by the names under which they are imported, or as requirements.
        environment: Environment variables of the kernel, by their names; `None` removes one. They are there
            in each kernel that takes the place of this one, and in those of `new_kernel()`.
        timeout: The seconds that a run may take which names no timeout of its own; `None`, the default, for
            no limit. They count from when its turn has come and the sandbox is there.
        auto_reboot: Whether a sandbox that has ended is followed by another one. The execution that was under
            way ends with `SandboxGone`, and is not run again; the next call boots a new sandbox, with the
            packages, variables and functions that it was given. `sandbox` is a function then.
        payload_limits: What a value of `get`, and the arguments of each call of a function of this process,
            may hold: a `PayloadLimits`, or a dict of those of its limits that differ from the defaults.
        session_options: What else `Session.connect` takes, for example `max_output_bytes`.

    Attributes:
        timeout: The same; it may be set at any time.
        payload_limits: The same, as a `PayloadLimits`.
        installed_packages: The requirements that were installed.
        runner: What runs plans in the kernel; for adapters to frameworks.
        last_execution: The last execution of code, also of one that was cut short; `None` before the first.

    Raises:
        ConfigurationError: An argument can't work.
        SandkernelError: The sandbox, or its kernel, can't be had. Nothing is left running.
    """

    def __init__(
        self,
        sandbox: Provider | Callable[[], Provider],
        *,
        packages: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        timeout: float | None = None,
        auto_reboot: bool = False,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        session_options: ConnectOptions | Mapping[str, Any] | None = None,
    ) -> None:
        packages = arguments.texts(packages, "packages")
        package_names.requirements(packages)
        limit_of(timeout)
        self.timeout = timeout
        self.payload_limits = PayloadLimits.of(payload_limits)
        options = _session_options(session_options)
        setup = KernelSetup(
            arguments.variables(environment, "environment"),
            FunctionPlacement(),
            invoke,
            _say_nothing,
            allow_pickle=False,
            with_modules=False,
        )
        setup.host_tools.limits = self.payload_limits
        self.last_execution: Execution | None = None
        self.installed_packages = setup.installed_packages
        self._max_value_bytes = max_result_bytes(options)
        self.runner = KernelRunner(
            booter(sandbox, auto_reboot=auto_reboot),
            setup,
            name=type(self).__name__,
            owner="sandbox",
            auto_reboot=auto_reboot,
            session_options=options,
        )
        try:
            self.runner.begin(lambda: None)
            if packages:
                self.install(packages)
        except BaseException:
            self.close()
            raise

    @overload
    @classmethod
    def create(
        cls,
        backend: Backend,
        *,
        packages: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        timeout: float | None = None,
        auto_reboot: bool = False,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        session_options: ConnectOptions | Mapping[str, Any] | None = None,
        **options: Unpack[CreateOptions],
    ) -> Self: ...

    @overload
    @classmethod
    def create(
        cls,
        *,
        url: str,
        packages: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        timeout: float | None = None,
        auto_reboot: bool = False,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        session_options: ConnectOptions | Mapping[str, Any] | None = None,
        **options: Unpack[CreateOptions],
    ) -> Self: ...

    @classmethod
    def create(
        cls,
        backend: Backend | None = None,
        *,
        url: str | None = None,
        packages: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        timeout: float | None = None,
        auto_reboot: bool = False,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        session_options: ConnectOptions | Mapping[str, Any] | None = None,
        **options: Unpack[CreateOptions],
    ) -> Self:
        """Make a sandbox, and wait until its gateway is ready.

        Args:
            backend: "local": on this machine, as your user. That is no isolation boundary. "modal": in a
                sandbox on Modal.
            url: In place of a backend: the address of a kernel gateway or Jupyter server that runs already,
                `http://` or `https://`, without a token. A kernel of its own is started there.
            packages: Packages to install, by the names under which they are imported, or as requirements (PEP
                508).
            environment: Environment variables of the kernels; see the class.
            timeout: The seconds that a run may take; see the class. Default: no limit.
            auto_reboot: Whether a sandbox that has ended is followed by another one; see the class.
            payload_limits: What values may hold; see the class.
            session_options: What else `Session.connect` takes; see the class.
            options: The options of the backend: `BootOptions` and `LocalOptions` of "local", `BootOptions`
                and `ModalOptions` of "modal", `GatewayOptions` (such as `token`) of a `url`; see
                `sandkernel.sandbox.options`.

        Returns:
            The sandbox. Its kernel may still be starting: the first run waits for it.

        Raises:
            ConfigurationError: There is no such backend, both or neither of backend and url, an option that
                the backend does not have, or an argument that can't work. Nothing is begun then.
            BootError: The sandbox, or its gateway, did not become ready; `.output` has its last output.
            AuthError: The gateway refuses the token.
            CredentialsError: Modal refuses the credentials.
            PackageInstallError: A package can't be installed; `.output` has the installer's words.
            ModuleNotFoundError: The extra of the backend is not installed.
        """
        packages = arguments.texts(packages, "packages")
        plan = blueprint(backend, url, options, wanted=packages, environment=environment)
        sandbox = cls(
            plan["sandbox"],
            packages=plan["packages"],
            environment=plan["environment"],
            timeout=timeout,
            auto_reboot=auto_reboot,
            payload_limits=payload_limits,
            session_options={**plan["session_options"], **(session_options or {})},
        )
        sandbox.installed_packages += plan["installed"]
        return sandbox

    @overload
    @classmethod
    async def acreate(
        cls,
        backend: Backend,
        *,
        packages: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        timeout: float | None = None,
        auto_reboot: bool = False,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        session_options: ConnectOptions | Mapping[str, Any] | None = None,
        **options: Unpack[CreateOptions],
    ) -> Self: ...

    @overload
    @classmethod
    async def acreate(
        cls,
        *,
        url: str,
        packages: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        timeout: float | None = None,
        auto_reboot: bool = False,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        session_options: ConnectOptions | Mapping[str, Any] | None = None,
        **options: Unpack[CreateOptions],
    ) -> Self: ...

    @classmethod
    async def acreate(
        cls,
        backend: Backend | None = None,
        *,
        url: str | None = None,
        packages: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        timeout: float | None = None,
        auto_reboot: bool = False,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        session_options: ConnectOptions | Mapping[str, Any] | None = None,
        **options: Unpack[CreateOptions],
    ) -> Self:
        """Make a sandbox as `create` does, with the same arguments, without holding up the event loop.

        Cancelling it undoes what was begun: nothing is left running.
        """
        if backend == "modal":
            # SIGTERM can be taken in the main thread only.
            from sandkernel.concurrency.exit_handlers import watch_for_termination  # noqa: PLC0415

            watch_for_termination()
        create: Callable[[], Self] = functools.partial(
            cls.create,
            backend,
            url=url,
            packages=packages,
            environment=environment,
            timeout=timeout,
            auto_reboot=auto_reboot,
            payload_limits=payload_limits,
            session_options=session_options,
            **options,
        )
        return await in_thread(create, cls.close)

    # Code

    def run(
        self,
        code: str,
        *,
        timeout: float | EllipsisType | None = ...,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        on_result: Callable[[Result], object] | None = None,
    ) -> Execution:
        """Run code to its end.

        Ctrl-C interrupts the kernel too.

        Args:
            code: Python, or the language of the kernel.
            timeout: The seconds that it may take; `None` for no limit. Then it is interrupted, and where that
                does not help, the kernel is restarted. Default: the sandbox's own `timeout`.
            on_stdout: Called with text as it is written to standard output, in this thread.
            on_stderr: The same for standard error.
            on_result: Called with each result as it is displayed.

        Returns:
            The execution: output, results, and the error of the code if it raised one.

        Raises:
            ConfigurationError: An argument can't work, or the code in the kernel waits for this very call.
            ExecutionTimeout: It took longer than its timeout; `.restarted` says whether the state is lost.
            KernelDied: The kernel's process ended. The next run has a new kernel.
            ConnectionLost: The connection to the kernel broke, and did not come back.
            SandboxGone: The sandbox ended, and all its state is lost.
            ClosedError: The sandbox is closed.
            ForkError: The sandbox belongs to the process that this one was forked off.
            Exception: What a callback raised, once the execution has ended.
        """
        callbacks = _callbacks(on_stdout, on_stderr, on_result)
        return self.runner.drive(self._execution(code, timeout, callbacks))

    async def arun(
        self,
        code: str,
        *,
        timeout: float | EllipsisType | None = ...,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        on_result: Callable[[Result], object] | None = None,
    ) -> Execution:
        """Run code to its end, as `run` does; cancelling the task interrupts the kernel.

        Args:
            code: As for `run`.
            timeout: As for `run`.
            on_stdout: As for `run`, but called in the event loop.
            on_stderr: The same for standard error.
            on_result: The same for results.

        Returns:
            The execution.

        Raises:
            SandkernelError: As `run` does.
        """
        callbacks = _callbacks(on_stdout, on_stderr, on_result)
        return await self.runner.adrive(self._execution(code, timeout, callbacks))

    def stream(
        self, code: str, *, timeout: float | EllipsisType | None = ...
    ) -> Generator[Output | Result | ExecutionError | ClearOutput | Skipped | Execution, None, None]:
        """Run code, and yield its events as they come.

        Others have their turn when all is yielded, or the generator is closed (`contextlib.closing`), which
        interrupts the kernel.

        Args:
            code: As for `run`.
            timeout: As for `run`.

        Yields:
            Each `Output`, `Result`, `ExecutionError`, `ClearOutput` and `Skipped`; at last the `Execution`.

        Raises:
            SandkernelError: As `run` does.
        """
        return self.runner.stream(self._execution(code, timeout, {}))

    def astream(
        self, code: str, *, timeout: float | EllipsisType | None = ...
    ) -> AsyncGenerator[Output | Result | ExecutionError | ClearOutput | Skipped | Execution, None]:
        """Run code, and yield its events as they come: `stream`, for `async for`.

        Others have their turn when all is yielded, or the generator is closed (`contextlib.aclosing`), which
        interrupts the kernel; once `timeout` is over, also while nobody asks for the next event.

        Args:
            code: As for `run`.
            timeout: As for `run`.

        Yields:
            The events, and at last the `Execution`.

        Raises:
            SandkernelError: As `run` does.
        """
        return self.runner.astream(self._execution(code, timeout, {}), self._limit(timeout))

    # Variables

    def set(
        self,
        values: Mapping[str, Any] | None = None,
        /,
        *,
        on_progress: Progress | None = None,
        **named: Any,  # noqa: ANN401 any value may be sent
    ) -> None:
        """Bind variables in the kernel: all of them, or none where that fails.

        They are kept here, and given again to a kernel that has lost its state: do not change large ones
        until all is sent.

        Args:
            values: The values by name, where a name is one of the arguments of this method.
            on_progress: Called after each piece with the bytes that the kernel has and those of all. What it
                raises breaks the sending off.
            named: The values by name.

        Raises:
            ConfigurationError: A name is no name of Python's, or that of a provided function.
            PayloadError: A value can't be sent; the message says which, and what in it can't.
        """
        self.runner.drive(self._setting({**(values or {}), **named}, on_progress))

    async def aset(
        self,
        values: Mapping[str, Any] | None = None,
        /,
        *,
        on_progress: Progress | None = None,
        **named: Any,  # noqa: ANN401 any value may be sent
    ) -> None:
        """Bind variables in the kernel, as `set` does; cancelling the task breaks it off.

        Args:
            values: As for `set`.
            on_progress: As for `set`, but called in the event loop.
            named: As for `set`.

        Raises:
            SandkernelError: As `set` does.
        """
        await self.runner.adrive(self._setting({**(values or {}), **named}, on_progress))

    def get(self, name: str) -> Any:  # noqa: ANN401 any value may come
        """Return the value of a variable of the kernel. It is never unpickled.

        Args:
            name: The variable's name.

        Raises:
            ConfigurationError: That is no name of Python's.
            VariableNotFoundError: The kernel has no such variable.
            PayloadError: Its value has no safe form, or is beyond `payload_limits`.
        """
        return self.runner.drive(self._getting(name))

    async def aget(self, name: str) -> Any:  # noqa: ANN401 any value may come
        """Return the value of a variable of the kernel, as `get` does.

        Args:
            name: The variable's name.

        Raises:
            SandkernelError: As `get` does.
        """
        return await self.runner.adrive(self._getting(name))

    # Functions of this process

    def provide(
        self, functions: Mapping[str, Callable[..., Any]] | None = None, /, **named: Callable[..., Any]
    ) -> None:
        """Let code in the sandbox call functions of this process.

        A function runs here, in a thread of its own, and has what this process has: the code in the sandbox
        decides when it is called, and with which arguments. What it returns, or raises, is what the code
        gets. A coroutine function is awaited: by the event loop that awaits the code, or by one of the
        sandbox's. The functions stay when the kernel is restarted, or another sandbox takes the place of this
        one. Code that binds the name to something else finds the function again in the next run.

        Args:
            functions: Functions by name.
            named: The same.

        Raises:
            ConfigurationError: A name is no name of Python's, or what has it can't be called, or its
                signature can't be described.
            UnsupportedKernelError: The kernel can't call this process: it runs no ipykernel.
        """
        self.runner.drive(self._providing({**(functions or {}), **named}))

    async def aprovide(
        self, functions: Mapping[str, Callable[..., Any]] | None = None, /, **named: Callable[..., Any]
    ) -> None:
        """Let code in the sandbox call functions of this process, as `provide` does.

        Args:
            functions: Functions by name.
            named: The same.

        Raises:
            SandkernelError: As `provide` does.
        """
        await self.runner.adrive(self._providing({**(functions or {}), **named}))

    # Files, packages, ports

    @property
    def files(self) -> Files:
        """The files of the sandbox, as its code sees them.

        The kernel itself works with them, in turn with the executions.
        """
        return self.runner.files

    def install(self, packages: Sequence[str]) -> list[str]:
        """Install packages where the kernel can import them.

        Args:
            packages: Names under which packages are imported, or requirements (PEP 508).

        Returns:
            The requirements that were not there already.

        Raises:
            PackageInstallError: One can't be installed; `.output` has the installer's words.
            ConfigurationError: One is no requirement.
        """
        wanted = arguments.texts(packages, "packages")
        return self.runner.drive(self.runner.setup.install_packages(wanted))

    async def ainstall(self, packages: Sequence[str]) -> list[str]:
        """Install packages where the kernel can import them, as `install` does.

        Args:
            packages: As for `install`.

        Returns:
            The requirements that were not there already.

        Raises:
            SandkernelError: As `install` does.
        """
        wanted = arguments.texts(packages, "packages")
        return await self.runner.adrive(self.runner.setup.install_packages(wanted))

    def port_url(self, port: int) -> str:
        """Return the address at which a server in the sandbox is reached from here.

        Args:
            port: Where the server listens in the sandbox. On Modal, it is one of `encrypted_ports` and the
                like of `create_kwargs`.

        Raises:
            ConfigurationError: It is no number of a port, or Modal opened no tunnel to it.
            UnsupportedError: Only whoever runs the gateway knows.
        """
        return self.runner.drive_beside(self._port_url(port))

    async def aport_url(self, port: int) -> str:
        """Return the address at which a server in the sandbox is reached from here, as `port_url` does.

        Args:
            port: As for `port_url`.

        Raises:
            SandkernelError: As `port_url` does.
        """
        return await self.runner.adrive_beside(self._port_url(port))

    # Kernels

    def new_kernel(self, *, inherit: bool = False) -> Sandbox:
        """Start a further kernel in the same sandbox, which runs code at the same time as this one.

        It has a state of its own: variables, imports, functions, working directory. It shares the files, the
        packages, the processor and the memory. A kernel takes half a second of a processor to start, and some
        60 MB.

        Args:
            inherit: Whether it is given the variables and functions that this one was given so far.

        Returns:
            A `Sandbox` with this one's settings. Closing it deletes the kernel and nothing else; closing this
            one closes it too.

        Raises:
            ClosedError: This one is closed.
            SandkernelError: The kernel can't be had.
        """
        kernel = self.runner.drive_beside(self.runner.start_kernel(self._new_kernel))
        if inherit:
            try:
                setup = self.runner.setup
                kernel.set(setup.variables)
                kernel.provide(setup.functions)
            except BaseException:
                kernel.close()
                raise
        return kernel

    async def anew_kernel(self, *, inherit: bool = False) -> Sandbox:
        """Start a further kernel, as `new_kernel` does. Cancelling it leaves no kernel behind.

        Args:
            inherit: As for `new_kernel`.

        Raises:
            SandkernelError: As `new_kernel` does.
        """
        return await in_thread(lambda: self.new_kernel(inherit=inherit), Sandbox.close)

    def run_many(
        self,
        codes: Sequence[str],
        *,
        timeout: float | EllipsisType | None = ...,
        max_kernels: int = 4,
        inherit: bool = True,
    ) -> list[RunOutcome[Execution]]:
        """Run pieces of code at the same time, each in a kernel of its own that is deleted afterwards.

        None sees what another one does to its variables. An error of one is data, and stops no other. Ctrl-C
        stops all.

        Args:
            codes: The pieces of code.
            timeout: The seconds that each may take, as for `run`.
            max_kernels: How many there are at once. More than the sandbox has processors seldom help.
            inherit: Whether they are given the variables and functions that this one was given so far. A
                function is called from several threads then.

        Returns:
            An outcome for each, in their order: its `output` is the `Execution`.

        Raises:
            ConfigurationError: An argument can't work.
            ClosedError: The sandbox is closed.
        """
        many = self._run_many(codes, timeout, max_kernels, inherit=inherit)
        return bridge.run(lambda: many)

    async def arun_many(
        self,
        codes: Sequence[str],
        *,
        timeout: float | EllipsisType | None = ...,
        max_kernels: int = 4,
        inherit: bool = True,
    ) -> list[RunOutcome[Execution]]:
        """Run pieces of code at the same time, as `run_many` does. Cancelling it stops all of them.

        Args:
            codes: As for `run_many`.
            timeout: As for `run_many`.
            max_kernels: As for `run_many`.
            inherit: As for `run_many`.

        Returns:
            An outcome for each, in their order.

        Raises:
            SandkernelError: As `run_many` does.
        """
        return await self._run_many(codes, timeout, max_kernels, inherit=inherit)

    def interrupt(self) -> None:
        """Interrupt the code that the kernel runs, from any thread: there it looks like Ctrl-C.

        Raises:
            GatewayError: The gateway refuses.
            ClosedError: The sandbox is closed.
        """
        self.runner.drive_beside(self._interrupting())

    async def ainterrupt(self) -> None:
        """Interrupt the code that the kernel runs, as `interrupt` does.

        Raises:
            SandkernelError: As `interrupt` does.
        """
        await self.runner.adrive_beside(self._interrupting())

    def restart(self) -> None:
        """Restart the kernel, whatever it runs: its state is gone.

        An execution under way ends with `KernelDied`. The variables of `set` and the functions of `provide`
        are there again in the next run.

        Raises:
            GatewayError: The gateway refuses.
            ClosedError: The sandbox is closed.
        """
        self.runner.drive_beside(self._restarting())

    async def arestart(self) -> None:
        """Restart the kernel, as `restart` does.

        Raises:
            SandkernelError: As `restart` does.
        """
        await self.runner.adrive_beside(self._restarting())

    def is_alive(self, timeout: float = 5.0) -> bool:
        """Whether the kernel answers, within some seconds and after what it is doing.

        Args:
            timeout: The seconds.

        Raises:
            ConfigurationError: The code that it runs waits for this very call, so that it can't be asked.
        """
        return self.runner.is_alive(timeout)

    # What it is

    @property
    def provider(self) -> Provider | None:
        """The sandbox as its provider has it, such as a `ModalSandbox`; also after the end."""
        return self.runner.provider

    @property
    def auto_reboot(self) -> bool:
        """Whether a sandbox that has ended is followed by another one."""
        return self.runner.auto_reboot

    @property
    def closed(self) -> bool:
        """Whether the sandbox was closed."""
        return self.runner.supervisor.closed

    @property
    def expires_at(self) -> datetime | None:
        """When the provider will end the sandbox; `None` where it does not, or does not say."""
        return getattr(self.provider, "expires_at", None)

    @property
    def booted_at(self) -> datetime | None:
        """When the sandbox was booted, where it expires."""
        return getattr(self.provider, "booted_at", None)

    # Its end

    def close(self) -> None:
        """End the sandbox and everything in it; a kernel of `new_kernel()` alone is deleted.

        A second call does nothing, nor does one in a forked child: the sandbox belongs to the parent.
        """
        self.runner.close()

    async def aclose(self) -> None:
        """End the sandbox as `close` does, without holding up the event loop."""
        await asyncio.to_thread(self.close)

    def add_close_callback(self, callback: Callable[[], object]) -> None:
        """Have a function called, once, after the sandbox was closed; at once where it is closed already.

        Args:
            callback: The function.
        """
        self.runner.add_close_callback(callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = " (closed)" if self.closed else ""
        return f"<{type(self).__name__} in {self.provider!r}{state}>"

    # Plans. None of these is a generator: an argument that can't work is refused before anything is begun.

    def _limit(self, timeout: float | EllipsisType | None) -> float | None:
        return limit_of(self.timeout if timeout is ... else timeout)

    def _execution(
        self, code: str, timeout: float | EllipsisType | None, callbacks: Mapping[str, Any]
    ) -> Plan[Execution]:
        if not isinstance(code, str):
            raise ConfigurationError(f"The code is a str, not {type(code).__name__}")
        limit = self._limit(timeout)
        return limited(limit, lambda deadline: self._run_in_ready_kernel(code, deadline, callbacks))

    def _run_in_ready_kernel(
        self, code: str, deadline: Deadline | None, callbacks: Mapping[str, Any]
    ) -> Plan[Execution]:
        limit = None if deadline is None else deadline.limit
        begun = False

        def request() -> Plan[Execution]:
            nonlocal begun
            begun = True
            asked = self.runner.setup.request(code, limit, ours=False)
            if callbacks:
                asked = dataclasses.replace(asked, callbacks={**callbacks, "timeout": limit})
            try:
                execution: Execution = yield asked
            except StateLost:
                begun = False
                raise
            return execution

        try:
            execution = yield from self.runner.setup.run_when_ready(request)
        except ExecutionTimeout as error:
            self._remember_cut(error)
            if begun:
                raise
            raise explain_unprepared(error, limit) from error
        except Exception as error:
            self._remember_cut(error)
            raise
        self.last_execution = execution
        return execution

    def _remember_cut(self, error: Exception) -> None:
        # Of an execution that was cut short, or whose callback raised an error.
        execution: Execution | None = getattr(error, "execution", None)
        if execution is not None:
            self.last_execution = execution

    def _setting(self, values: Mapping[str, Any], on_progress: Progress | None) -> Plan[None]:
        setup = self.runner.setup
        for name in values:
            check_name(name, "A variable")
            if name in setup.functions:
                raise ConfigurationError(
                    f"{name!r} is the name of a function that was provided: choose another"
                )
        return setup.send_variables(values, on_progress)

    def _getting(self, name: str) -> Plan[Any]:
        check_name(name, "A variable")
        return variables.fetch(
            self.runner.setup, name, limits=self.payload_limits, max_bytes=self._max_value_bytes
        )

    def _providing(self, functions: Mapping[str, Callable[..., Any]]) -> Plan[None]:
        check_functions(functions)
        return self.runner.setup.provide(functions)

    def _port_url(self, port: int) -> Plan[str]:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= LAST_PORT:
            raise ConfigurationError(f"A port is a number from 1 to {LAST_PORT}, not {port!r:.60}")

        def ask() -> str:
            provider = self.provider
            if provider is None:
                raise self.runner.closed_error()
            return provider.port_url(port)

        return _work(ask)

    def _interrupting(self) -> Plan[None]:
        return _work(lambda: self.runner.open().interrupt())

    def _restarting(self) -> Plan[None]:
        return _work(lambda: self.runner.open().restart())

    def _new_kernel(self, sandbox: Provider) -> Sandbox:
        kernel = Sandbox(
            SharedSandbox(sandbox),
            environment=self.runner.setup.environment,
            timeout=self.timeout,
            payload_limits=self.payload_limits,
            session_options=self.runner.options_of_kernel(),
        )
        kernel.installed_packages += self.installed_packages
        return kernel

    def _run_many(
        self, codes: Sequence[str], timeout: float | EllipsisType | None, max_kernels: int, *, inherit: bool
    ) -> Coroutine[Any, Any, list[RunOutcome[Execution]]]:
        codes = kernels.check(codes, max_kernels)
        self._limit(timeout)
        self.runner.require_open()

        async def run(kernel: Sandbox, code: str) -> Execution:
            return await kernel.arun(code, timeout=timeout)

        return kernels.run_many(
            codes, lambda: self.anew_kernel(inherit=inherit), run, max_kernels, (SandkernelError,)
        )


def _work(function: Callable[[], T]) -> Plan[T]:
    done: T = yield Work(function)
    return done


def _callbacks(
    on_stdout: Callable[[str], object] | None,
    on_stderr: Callable[[str], object] | None,
    on_result: Callable[[Result], object] | None,
) -> dict[str, Any]:
    given = {"on_stdout": on_stdout, "on_stderr": on_stderr, "on_result": on_result}
    return {name: callback for name, callback in given.items() if callback is not None}


def _session_options(given: ConnectOptions | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options of a session.

    Raises:
        ConfigurationError: There is no such option.
    """
    options = arguments.mapping(given, "session_options", "arguments of Session.connect")
    for name in options:
        if name not in ConnectOptions.__annotations__:
            raise ConfigurationError(
                f"session_options has {name!r:.60}, and Session.connect takes no such argument: it takes "
                f"{', '.join(ConnectOptions.__annotations__)}"
            )
    return options


def _say_nothing(line: str) -> None:
    del line
