"""The executor: smolagents' contract on one side, a session with a kernel on the other."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import threading
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from smolagents.local_python_executor import CodeOutput
from smolagents.remote_executors import RemotePythonExecutor
from smolagents.utils import AgentExecutionError

from sandkernel import arguments, packages
from sandkernel.concurrency import bridge
from sandkernel.concurrency.cancellation import in_thread
from sandkernel.exceptions import (
    ConfigurationError,
    ExecutionTimeout,
    InterruptedExecutionError,
    SandkernelError,
)
from sandkernel.integrations.smolagents import agents, images
from sandkernel.integrations.smolagents.logger import logger_of
from sandkernel.integrations.smolagents.placement import Placement
from sandkernel.integrations.smolagents.runs import Runs
from sandkernel.integrations.smolagents.streaming import Audience
from sandkernel.integrations.smolagents.tools import call
from sandkernel.languages import require_python
from sandkernel.providers.shared import SharedSandbox
from sandkernel.sandbox import final_answer, kernels, observation, tracebacks
from sandkernel.sandbox.messages import (
    explain,
    explain_unfetched,
    explain_unprepared,
    is_state_lost,
)
from sandkernel.sandbox.runner import KernelRunner, booter, limit_of, limited, max_result_bytes
from sandkernel.sandbox.sandbox import Sandbox
from sandkernel.sandbox.setup import KernelSetup
from sandkernel.serialization import PayloadLimits

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
    from types import EllipsisType, TracebackType

    from typing_extensions import Self

    from sandkernel._sandkernel import Execution, Result
    from sandkernel.concurrency.fair_lock import FairLock
    from sandkernel.files import Files
    from sandkernel.integrations.smolagents.placement import Places
    from sandkernel.plans import Deadline, Plan
    from sandkernel.providers.base import Provider
    from sandkernel.sandbox.kernels import RunOutcome
    from sandkernel.sandbox.supervisor import SandboxSupervisor
    from sandkernel.session import Session
    from sandkernel.shipment import Progress

__all__ = ["KernelExecutor"]

T = TypeVar("T")


class _Quiet:
    """Stands for a logger where smolagents logs the same error a moment later."""

    def log_error(self, message: str) -> None:
        """Say nothing."""


class KernelExecutor(RemotePythonExecutor):  # type: ignore[misc] # smolagents has no types
    """Runs an agent's code in the kernel of a sandbox.

    The base of the executors; on its own, it is for a sandbox of yours. It is thread-safe: calls are served
    in the order in which they come. Close it with `cleanup()`, or use it as a context manager.

    A saved agent names its executor's class and settings (never a token), and smolagents refuses to load it
    without an executor: `LocalExecutor(**saved["executor_kwargs"]).load_agent(saved)`. Otherwise smolagents
    would load it with an executor in the host's process, without a word. The agent is found when its
    constructor takes the executor; where it is given the executor later, or Python has no frames to look at,
    call `bind(agent)`.

    Args:
        sandbox: A `Sandbox`, whose kernel, variables and functions are the executor's too, and whose settings
            stay its own. Or a `Provider`, or a function that boots one. The executor ends it.
        additional_imports: Packages to install, by the names under which they are imported, or as
            requirements.
        logger: A logger of smolagents; `None` for silence.
        allow_pickle: Whether values without a safe form travel as pickles. Loading one runs code that the
            kernel chose, in this process: leave it off unless you trust the sandbox.
        timeout: The seconds that a step may take; `None` for no limit. They count from when its turn has come
            and its sandbox is there (waiting for earlier calls and booting a new sandbox are apart), over
            all that is done for it: giving a kernel that has lost its state what it needs, the code, and the
            fetching of a final answer. Then the code is interrupted. Output that a callback, or
            `stream_logs`, was not told by then is left out, with a line on the logger; `last_execution` has
            it. A callback that is being called is waited for. Without a limit, what the executor itself asks
            of the kernel still has an end: two minutes for a request, 15 for installing packages and for
            fetching an answer.
        max_logs_length: The characters of an execution's output that the model is shown: its head and its
            tail.
        payload_limits: What a final answer, and the arguments of each call of a tool on the host, may hold:
            a `PayloadLimits`, or a dict of those of its limits that differ from the defaults.
        tools: Where the tools run. `"ship"`: in the kernel, as copies made of their source. `"host"`: in this
            process, in threads of their own, called from the kernel. `"auto"`: in the kernel where their
            source makes the same tool there, on the host otherwise, such as tools made with arguments, tools
            of MCP servers, managed agents and what asks for `input()`; a tool that runs code which it is
            given is an error instead. Or one of these for each name, in a mapping (`"auto"` for all
            others), or the names of those on the host.
        install: Whether `additional_imports` still have to be installed, in the kernel.
        environment: Environment variables of the kernel, such as keys that its tools look for, by their
            names; `None` removes one. They are there before any tool is made, in each kernel that takes the
            place of this one, in those of `new_kernel()`, and in what the kernel starts. The agent's code can
            read them. No log, error or saved agent shows a value.
        auto_reboot: Whether a sandbox that has ended is followed by another one. The execution that was under
            way ends with `SandboxGone`, and is not run again; the next call boots a new sandbox, with the
            packages, variables and tools that were sent, and the model is told.
        session_options: What else `Session.connect` takes, for example `max_output_bytes`.
        show_images: Whether the model sees the images that its code displays, in its next message: of each
            step the last four, at most 2,048 pixels wide and high. The model must take images.

    Attributes:
        last_execution: The whole last execution of the agent's code, also what the model was not shown.
        installed_packages: The requirements that were installed.
        on_stdout: Called with text as the agent's code writes it to standard output; `None` by default. Like
            the next two, it may be set at any time, and is called in the thread, or the event loop, that
            waits for the code. What it raises is logged and ends nothing; it is not called again in that
            execution.
        on_stderr: The same for standard error.
        on_result: Called with each `Result` as it is displayed.
        stream_logs: Whether the logger is told the output line by line while the code runs; off by default,
            since smolagents logs the whole of it after each step. A progress bar is one line, in its last
            state.
        state: Holds `"_print_outputs"`, where smolagents looks for the output of code that raised an error.

    Raises:
        SandkernelError: The kernel can't be had. The sandbox is ended.
    """

    executor_type: ClassVar[str] = "sandkernel.KernelExecutor"

    def __init__(
        self,
        sandbox: Sandbox | Provider | Callable[[], Provider],
        additional_imports: Sequence[str] = (),
        logger: Any = None,  # noqa: ANN401 smolagents takes several
        allow_pickle: bool = False,  # noqa: FBT001, FBT002 smolagents' signature
        *,
        timeout: float | None = None,
        max_logs_length: int = 20_000,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        tools: Places = "auto",
        install: bool = True,
        environment: Mapping[str, str | None] | None = None,
        auto_reboot: bool = False,
        session_options: Mapping[str, Any] | None = None,
        show_images: bool = False,
    ) -> None:
        additional_imports = arguments.texts(additional_imports, "additional_imports")
        self._runs = Runs()
        self._places = tools
        options = arguments.mapping(session_options, "session_options", "arguments of Session.connect")
        logger = logger_of(logger)
        settings: dict[str, Any] = {
            "allow_pickle": allow_pickle,
            "environment": arguments.variables(environment, "environment"),
            "auto_reboot": auto_reboot,
            "session_options": options,
        }
        is_shared = isinstance(sandbox, Sandbox)
        if isinstance(sandbox, Sandbox):
            self._runner = _runner_of_sandbox(sandbox, settings)
            payload_limits = sandbox.payload_limits if payload_limits is None else payload_limits
        else:
            self._runner = _new_runner(sandbox, logger, type(self).__name__, **settings)
        try:
            super().__init__(additional_imports, logger, allow_pickle)
            self.installed_packages = self._provision.installed_packages
            self.timeout = timeout
            self.max_logs_length = max_logs_length
            self.payload_limits = PayloadLimits.of(payload_limits)
            self._provision.host_tools.limits = self.payload_limits
            placement = Placement(tools, logger.log)
            self._provision.adopt(placement, call, logger.log)
            self.state: dict[str, Any] = {"_print_outputs": ""}
            self.last_execution: Execution | None = None
            self.on_stdout: Callable[[str], object] | None = None
            self.on_stderr: Callable[[str], object] | None = None
            self.on_result: Callable[[Result], object] | None = None
            self.stream_logs = False
            self.show_images = show_images
            # The last execution of each thread, for what is shown of it.
            self._executed = threading.local()
            self._settings = {
                "additional_imports": list(additional_imports),
                "allow_pickle": allow_pickle,
                "timeout": timeout,
                "max_logs_length": max_logs_length,
            }
            if self.payload_limits != PayloadLimits():
                self._settings["payload_limits"] = dataclasses.asdict(self.payload_limits)
            if tools != "auto":
                self._settings["tools"] = placement.given
            if show_images:
                self._settings["show_images"] = True
            if auto_reboot:
                self._settings["auto_reboot"] = True
            self._max_answer_bytes = max_result_bytes(self._runner.session_options)
            if not is_shared:
                self._runner.begin(self._connected)
            if install:
                self.install_packages(self.additional_imports)
            else:
                self.installed_packages += packages.requirements(self.additional_imports)
        except BaseException:
            if not is_shared:
                self.cleanup()
            raise

    # What smolagents calls.

    def __bool__(self) -> bool:
        # `CodeAgent` replaces a falsy executor silently. It asks in its constructor: see agents.py.
        getframe = getattr(sys, "_getframe", None)
        if getframe is not None:
            bound = agents.bind_caller(getframe(1), self, self.executor_type, self._settings)
            if bound and self._session is not None:
                require_python(self._session, "A CodeAgent")
        return True

    def __call__(self, code_action: str) -> CodeOutput:
        """Run the code of an agent's step, with that agent's tools; see `run_code_raise_errors`.

        Raises:
            ConfigurationError: The run of another agent is under way on this executor, in another thread.
        """
        tools = self._runs.tools_of_step()
        if tools is not None:
            # Another agent's run began in between.
            self._drive(self._provision.send_tools(tools))
        getframe = getattr(sys, "_getframe", None)
        if not self.show_images or getframe is None:
            return self.run_code_raise_errors(code_action)
        step = images.step_of(getframe(1))
        self._executed.last = None
        try:
            return self.run_code_raise_errors(code_action)
        finally:
            # Also of code that raised an error later.
            if step is not None and self._executed.last is not None:
                images.show(self._executed.last, step, self.payload_limits)

    def run_code_raise_errors(self, code: str, *, timeout: float | EllipsisType | None = ...) -> CodeOutput:
        """Run code in the kernel.

        A final answer ends it: the first one given stands, also where the code catches the exception that
        ends it, goes on, or fails later.

        Args:
            code: The code.
            timeout: The seconds that it may take, `None` for no limit; the executor's own `timeout` by
                default.

        Returns:
            The value of the last expression (its text, or a PIL image) or the final answer, and what was
            printed.

        Raises:
            AgentExecutionError: The code raised an error. The message is the traceback, as the model is to
                see it.
            ExecutionTimeout: It took longer than `timeout`.
            KernelDied: The kernel's process ended.
            PayloadError: The final answer can't be decoded.
            ConfigurationError: The code is not a `str`.
            ConnectionLost: The connection to the kernel broke, and did not come back.
            SandboxGone: The sandbox ended, and all its state is lost.
            ClosedError: The executor is closed.
        """
        return self._drive(self._execute(code, timeout))

    def send_tools(self, tools: Mapping[str, Any]) -> None:
        """Make tools available in the kernel, and install the packages that they import.

        Only what has changed is sent, so it costs little to call it again. smolagents does at the beginning
        of each run.

        Args:
            tools: The tools by name. The one named "final_answer" ends the code that calls it. Where it is
                among them, they are the tools of a run: what was given before and is not given again can't
                be called any more. Without it they are added.

        Raises:
            ConfigurationError: A tool can't run in a kernel, for example since its source can't be had; or
                the run of another agent is under way on this executor, in another thread.
            PackageInstallError: A package that a tool imports can't be installed.
        """
        given = arguments.mapping(tools, "tools", "tools by their names")
        self._require_open()
        agent = self._runs.begin()
        self._drive(self._provision.send_tools(given))
        if agent is not None:
            self._runs.give(agent, given)

    def send_variables(self, variables: Mapping[str, Any], *, on_progress: Progress | None = None) -> None:
        """Bind variables in the kernel's namespace: all of them, or none where that is broken off.

        Large ones travel in pieces. They are not to change until all is sent; the executor keeps them, since
        it sends them again to a kernel that has lost its state.

        Args:
            variables: The values by name.
            on_progress: Called after each piece with the bytes that the kernel has and those of all. What it
                raises breaks the sending off.

        Raises:
            PayloadError: A variable can't be sent; the message names it, and what in it can't.
            ConfigurationError: The run of another agent is under way on this executor, in another thread.
        """
        values = arguments.mapping(variables, "variables", "values by their names")
        self._require_open()
        self._runs.begin()
        self._drive(self._provision.send_variables(values, on_progress))

    def install_packages(self, additional_imports: Sequence[str]) -> list[str]:
        """Install packages where the kernel can import them.

        Args:
            additional_imports: Names under which packages are imported, or requirements (PEP 508).

        Returns:
            The requirements that were not there already.

        Raises:
            PackageInstallError: One can't be installed; the message has the installer's own words.
            ConfigurationError: One is no requirement.
        """
        imports = arguments.texts(additional_imports, "additional_imports")
        return self._drive(self._provision.install_packages(imports))

    @property
    def files(self) -> Files:
        """The files of the sandbox, as the agent's code sees them.

        What is done with them is done by the kernel, in turn with the executions.
        """
        return self._runner.files

    # Further kernels.

    def new_kernel(self, *, inherit: bool = False) -> KernelExecutor:
        """Start a further kernel in the same sandbox, which runs code at the same time as this one.

        It has a state of its own: variables, imports, tools, working directory. What it shares is the
        sandbox: its files, packages, processor and memory. A kernel takes half a second of a processor to
        start, and some 60 MB.

        Args:
            inherit: Whether it is sent the tools and variables that were sent to this one so far.

        Returns:
            An executor with this one's settings. Closing it, by `cleanup()` or `with`, deletes the kernel and
            nothing else; closing this one closes it too.

        Raises:
            ClosedError: This executor is closed.
            SandkernelError: The kernel can't be had.
        """
        kernel = self._runner.drive_beside(self._runner.start_kernel(self._new_kernel))
        if inherit:
            try:
                kernel.send_variables(self._provision.variables)
                kernel.send_tools(self._provision.given_tools)
            except BaseException:
                kernel.cleanup()
                raise
        return kernel

    async def anew_kernel(self, *, inherit: bool = False) -> KernelExecutor:
        """Do what `new_kernel` does. Cancelling it leaves no kernel behind."""
        return await in_thread(lambda: self.new_kernel(inherit=inherit), KernelExecutor.cleanup)

    def run_many(
        self,
        codes: Sequence[str],
        *,
        timeout: float | EllipsisType | None = ...,
        max_kernels: int = 4,
        inherit: bool = True,
    ) -> list[RunOutcome[CodeOutput]]:
        """Run pieces of code at the same time, each in a kernel of its own that is deleted afterwards.

        None sees what another one does to its variables. An error of one is data, and stops no other. Ctrl-C
        stops all.

        Args:
            codes: The pieces of code.
            timeout: The seconds that each may take; as for `run_code_raise_errors`.
            max_kernels: How many there are at once. More than the sandbox has processors seldom help.
            inherit: Whether they are sent the tools and variables that were sent to this executor so far. A
                tool on the host is called from several threads then.

        Returns:
            What came of them, in their order.

        Raises:
            ConfigurationError: An argument can't work.
            ClosedError: This executor is closed.
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
    ) -> list[RunOutcome[CodeOutput]]:
        """Do what `run_many` does. Cancelling it stops all of them."""
        return await self._run_many(codes, timeout, max_kernels, inherit=inherit)

    def _run_many(
        self, codes: Sequence[str], timeout: float | EllipsisType | None, max_kernels: int, *, inherit: bool
    ) -> Coroutine[Any, Any, list[RunOutcome[CodeOutput]]]:
        # No coroutine itself: what can't work is said before anything is begun.
        codes = kernels.check(codes, max_kernels)
        self._require_open()
        return kernels.run_many(
            codes,
            lambda: self.anew_kernel(inherit=inherit),
            lambda kernel, code: kernel.arun(code, timeout=timeout),
            max_kernels,
            (AgentExecutionError, SandkernelError),
        )

    def _new_kernel(self, sandbox: Provider) -> KernelExecutor:
        kernel = KernelExecutor(
            SharedSandbox(sandbox),
            (),
            self.logger,
            self.allow_pickle,
            timeout=self.timeout,
            max_logs_length=self.max_logs_length,
            payload_limits=self.payload_limits,
            install=False,
            tools=self._places,
            environment=self._provision.environment,
            session_options=self._runner.options_of_kernel(),
            show_images=self.show_images,
        )
        kernel.installed_packages += self.installed_packages
        kernel._provision.placement.failed = self._provision.placement.failed
        return kernel

    def bind(self, agent: Any) -> None:  # noqa: ANN401 a CodeAgent
        """Make `agent.to_dict()` name this executor: what is saved can't be loaded without one."""
        agents.bind(agent, self.executor_type, self._settings)

    def load_agent(self, saved: Mapping[str, Any] | str | os.PathLike[str], **options: Any) -> Any:  # noqa: ANN401 a CodeAgent
        """Load an agent that `CodeAgent.to_dict()` or `save()` saved, with this executor.

        Its managed agents are loaded too; one that ran its code in an executor of this package gets a kernel
        of its own in this executor's sandbox.

        Args:
            saved: The agent's dictionary, or the folder that it was saved into. Its tools are code, which
                smolagents runs in this process to load them: load none that you don't trust.
            options: What else `CodeAgent` takes; it comes in the place of what was saved. A `model` is that
                of the managed agents too, and needed where its class is none of smolagents';
                `managed_agents` where one of their classes is none.

        Returns:
            The `CodeAgent`.

        Raises:
            ConfigurationError: It is no saved agent, or has a class that smolagents does not find by its
                name.
        """
        return agents.load(saved, self, **options)

    # Its life.

    def cleanup(self) -> None:
        """Delete the kernel and end the sandbox.

        A second call does nothing, nor does one in a forked child: what there is belongs to the parent.
        """
        self._runner.close()

    def close(self) -> None:
        """Do what `cleanup` does, under the name that all else of this package has for it."""
        self.cleanup()

    def add_close_callback(self, callback: Callable[[], object]) -> None:
        """Have a function called, once, after the executor was closed; at once where it is closed already."""
        self._runner.add_close_callback(callback)

    def is_alive(self, timeout: float = 5.0) -> bool:
        """Whether the kernel answers, within some seconds and after what it is doing.

        Raises:
            ConfigurationError: What it is doing waits for this very call, so that it can't be asked.
        """
        return self._runner.is_alive(timeout)

    def delete(self) -> None:
        """Do what `cleanup` does, under the name that smolagents' Docker executor has for it."""
        self.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cleanup()

    # For programs on asyncio.

    @classmethod
    async def acreate(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 those of the constructor
        """Construct an executor without holding up the event loop; the arguments are the constructor's.

        Cancelling it undoes what was begun: nothing is left running.
        """
        return await in_thread(lambda: cls(*args, **kwargs), cls.cleanup)

    async def arun(self, code: str, *, timeout: float | EllipsisType | None = ...) -> CodeOutput:
        """Run code as `run_code_raise_errors` does; cancelling the task interrupts the kernel."""
        return await self._adrive(self._execute(code, timeout))

    def astream(self, code: str, *, timeout: float | EllipsisType | None = ...) -> AsyncGenerator[Any, None]:
        """Run code as `arun` does, and yield its events as they come: `Output`, `Result`, `ExecutionError`.

        The last thing yielded is the `CodeOutput`; an error of the code is raised after its event. Others
        have their turn when all is yielded, or the stream is closed (`contextlib.aclosing`); once `timeout`
        is over, also while nobody asks for the next event.
        """
        return self._runner.astream(self._execute(code, timeout), self._limit(timeout))

    async def asend_tools(self, tools: Mapping[str, Any]) -> None:
        """Do what `send_tools` does."""
        given = arguments.mapping(tools, "tools", "tools by their names")
        await self._adrive(self._provision.send_tools(given))

    async def asend_variables(
        self, variables: Mapping[str, Any], *, on_progress: Progress | None = None
    ) -> None:
        """Do what `send_variables` does; cancelling the task breaks it off."""
        values = arguments.mapping(variables, "variables", "values by their names")
        await self._adrive(self._provision.send_variables(values, on_progress))

    async def ainstall_packages(self, additional_imports: Sequence[str]) -> list[str]:
        """Do what `install_packages` does."""
        imports = arguments.texts(additional_imports, "additional_imports")
        return await self._adrive(self._provision.install_packages(imports))

    async def aclose(self) -> None:
        """Do what `cleanup` does, without holding up the event loop."""
        await asyncio.to_thread(self.cleanup)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # How it is done.

    def _connected(self) -> None:
        """Do what is to be done once, when the first session is open."""

    @property
    def _provision(self) -> KernelSetup:
        return self._runner.setup

    @property
    def _reboots(self) -> SandboxSupervisor:
        return self._runner.supervisor

    @property
    def _turns(self) -> FairLock:
        return self._runner.lock

    @property
    def _sandbox(self) -> Provider | None:
        return self._runner.provider

    @property
    def _session(self) -> Session | None:
        return self._runner.session

    def _require_open(self) -> None:
        self._runner.require_open()

    def _open(self) -> Session:
        return self._runner.open()

    def _drive(self, plan: Plan[T]) -> T:
        return self._runner.drive(plan)

    async def _adrive(self, plan: Plan[T]) -> T:
        return await self._runner.adrive(plan)

    def _execute(self, code: str, timeout: float | EllipsisType | None) -> Plan[CodeOutput]:
        # Not a plan itself: what can't work is said before waiting for a turn.
        if not isinstance(code, str):
            raise ConfigurationError(f"The code is a str, not {type(code).__name__}")
        limit = self._limit(timeout)
        return limited(limit, lambda deadline: self._execution(code, deadline))

    def _limit(self, timeout: float | EllipsisType | None) -> float | None:
        return limit_of(self.timeout if timeout is ... else timeout)

    def _execution(self, code: str, deadline: Deadline | None) -> Plan[CodeOutput]:
        self.state["_print_outputs"] = ""
        try:
            execution = yield from self._provision.run_when_ready(lambda: self._ask(code, deadline))
        except ExecutionTimeout as error:
            if isinstance(error.__cause__, ExecutionTimeout):
                raise
            raise explain_unprepared(error, None if deadline is None else deadline.limit) from error
        return (yield from self._conclude(execution))

    def _ask(self, code: str, deadline: Deadline | None) -> Plan[Execution]:
        limit = None if deadline is None else deadline.limit
        audience = Audience(
            self.on_stdout,
            self.on_stderr,
            self.on_result,
            self.logger,
            stream_logs=self.stream_logs,
            deadline=deadline,
        )
        request = self._provision.request(code, limit, ours=False)
        if audience:
            request = dataclasses.replace(request, callbacks=audience.callbacks())
        try:
            execution: Execution = yield request
        except InterruptedExecutionError as error:
            return self._cut_short(error, limit)
        finally:
            audience.finish()
        return execution

    def _cut_short(self, error: InterruptedExecutionError, limit: float | None) -> Execution:
        """Return the execution where its final answer had arrived; raise what the model is told otherwise."""
        if is_state_lost(error):
            self._provision.loss_is_told()
        if error.execution is not None:
            self._remember(error.execution)
            if final_answer.from_results(error.execution) is not None:
                return error.execution
        explained = explain(error, limit, self._provision.take_notice())
        # An error that is its own cause would send who follows the causes round for ever.
        raise explained from (error.__cause__ if explained is error else error)

    def _remember(self, execution: Execution) -> None:
        self.last_execution = self._executed.last = execution
        self.state["_print_outputs"] = observation.observation(execution, self.max_logs_length)
        self._provision.note(execution)

    def _conclude(self, execution: Execution) -> Plan[CodeOutput]:
        self._remember(execution)
        notice = self._provision.take_notice()
        shown = self.state["_print_outputs"]
        answer = final_answer.from_results(execution)
        if answer is None and (ticket := final_answer.ticket(execution)) is not None:
            try:
                answer = yield from final_answer.fetch(ticket, self._provision, self._answer_limits())
            except ExecutionTimeout as error:
                raise explain_unfetched(error, execution) from error
        if answer is None:
            answer = final_answer.from_error(execution)
        if answer is not None:
            value = final_answer.decode(*answer, allow_pickle=self.allow_pickle, limits=self.payload_limits)
            return CodeOutput(output=value, logs=shown, is_final_answer=True)
        prefix = f"{notice}\n" if notice else ""
        if execution.error is not None:
            raise AgentExecutionError(prefix + tracebacks.render(execution.error), _Quiet())
        value = final_answer.output(execution, self.payload_limits, self.max_logs_length)
        return CodeOutput(output=value, logs=prefix + shown, is_final_answer=False)

    def _answer_limits(self) -> dict[str, int]:
        return {
            "max_result_bytes": self._max_answer_bytes,
            "payload_limits.payload_bytes": self.payload_limits.payload_bytes,
        }


def _new_runner(
    sandbox: Provider | Callable[[], Provider],
    logger: Any,  # noqa: ANN401
    name: str,
    *,
    allow_pickle: bool,
    environment: Mapping[str, str | None],
    auto_reboot: bool,
    session_options: Mapping[str, Any],
) -> KernelRunner:
    placement = Placement("auto", logger.log)
    setup = KernelSetup(
        environment, placement, call, logger.log, allow_pickle=allow_pickle, with_modules=True
    )
    return KernelRunner(
        booter(sandbox, auto_reboot=auto_reboot),
        setup,
        name=name,
        owner="executor",
        auto_reboot=auto_reboot,
        session_options=session_options,
    )


def _runner_of_sandbox(sandbox: Sandbox, settings: Mapping[str, object]) -> KernelRunner:
    """Return the runner of a sandbox.

    Raises:
        ConfigurationError: A setting is given that the sandbox has already.
    """
    for name, value in settings.items():
        if value:
            instead = "give it to Sandbox.create"
            if name == "allow_pickle":
                instead = "its values are never unpickled"
            raise ConfigurationError(f"{name} is no setting of an executor on a Sandbox: {instead}")
    return sandbox.runner
