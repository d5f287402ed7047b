"""The executor: smolagents' contract on one side, a session with a kernel on the other."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.resources
import json
import sys
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from smolagents.local_python_executor import CodeOutput
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import RemotePythonExecutor
from smolagents.utils import AgentExecutionError

from sandkernel import Session, packages
from sandkernel.exceptions import (
    ClosedError,
    ConfigurationError,
    ExecutionTimeout,
    InterruptedExecutionError,
    KernelDied,
    PackageInstallError,
    PayloadError,
    SandkernelError,
)
from sandkernel.executor import agents, answers, logs, tools, tracebacks, variables
from sandkernel.executor.turns import Turns
from sandkernel.plans import Outcome, Plan, Request, Work, adrive, astream, drive
from sandkernel.serialization import PayloadLimits
from sandkernel.shipment import Shipment, discard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from types import EllipsisType, TracebackType

    from typing_extensions import Self

    from sandkernel import Execution
    from sandkernel.sandboxes import Sandbox
    from sandkernel.shipment import Progress

__all__ = ["KernelExecutor"]

T = TypeVar("T")

# Our own requests end in milliseconds; a tool's constructor or a download may take a while.
SETUP_TIMEOUT = 120.0
INSTALL_TIMEOUT = 900.0
# Of giving back memory, after whoever waited has left.
DISCARD_TIMEOUT = 5.0
ANSWER_PIECE_BYTES = 1 << 20
# What `Session.connect` has for `max_result_bytes`.
DEFAULT_RESULT_BYTES = 256 << 20

STATE_LOST = (
    "all variables, imports and functions that earlier steps defined are gone, and must be defined again if "
    "needed (the tools are still available)"
)
NOTICE = f"[Note: the Python kernel was restarted since the last step: {STATE_LOST}.]"


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
        sandbox: Runs the gateway. The executor ends it.
        additional_imports: Packages to install, by the names under which they are imported, or as
            requirements.
        logger: A logger of smolagents; `None` for silence.
        allow_pickle: Whether values without a safe form travel as pickles. Loading one runs code that the
            kernel chose, in this process: leave it off unless you trust the sandbox.
        timeout: The seconds that an execution may take; `None` for no limit.
        max_logs_length: The characters of an execution's output that the model is shown: its head and its
            tail.
        payload_limits: What a final answer may hold: a `PayloadLimits`, or a dict of those of its limits that
            differ from the defaults.
        install: Whether `additional_imports` still have to be installed, in the kernel.
        session_options: What else `Session.connect` takes, for example `max_output_bytes`.

    Attributes:
        last_execution: The whole last execution of the agent's code, also what the model was not shown.
        state: Holds `"_print_outputs"`, where smolagents looks for the output of code that raised an error.
        installed_packages: The requirements that were installed.

    Raises:
        SandkernelError: The kernel can't be had. The sandbox is ended.
    """

    executor_type: ClassVar[str] = "sandkernel.KernelExecutor"

    def __init__(
        self,
        sandbox: Sandbox,
        additional_imports: Sequence[str] = (),
        logger: Any = None,  # noqa: ANN401 smolagents takes several
        allow_pickle: bool = False,  # noqa: FBT001, FBT002 smolagents' signature
        *,
        timeout: float | None = None,
        max_logs_length: int = 20_000,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        install: bool = True,
        session_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._closed = False
        self._close_callbacks: list[Callable[[], object]] = []
        self._sandbox = sandbox
        self._session: Session | None = None
        try:
            logger = AgentLogger(level=LogLevel.OFF) if logger is None else logger
            super().__init__(list(additional_imports), logger, allow_pickle)
            self.timeout = timeout
            self.max_logs_length = max_logs_length
            self.payload_limits = PayloadLimits.of(payload_limits)
            self.installed_packages: list[str] = []
            self.state: dict[str, Any] = {"_print_outputs": ""}
            self.last_execution: Execution | None = None
            self._settings = {
                "additional_imports": list(additional_imports),
                "allow_pickle": allow_pickle,
                "timeout": timeout,
                "max_logs_length": max_logs_length,
            }
            if self.payload_limits != PayloadLimits():
                self._settings["payload_limits"] = dataclasses.asdict(self.payload_limits)
            self._turns = Turns()
            self._tools: dict[str, tools.Definition] = {}
            self._defined: dict[str, tools.Definition] = {}
            self._variables: dict[str, Any] = {}
            self._generation: int | None = None
            self._loss_told = False
            self._notice = ""
            options = dict(session_options or {})
            self._max_answer_bytes = int(options.get("max_result_bytes", DEFAULT_RESULT_BYTES))
            self._session = self._connect(sandbox, options)
            if install:
                self.install_packages(self.additional_imports)
            else:
                self.installed_packages = packages.requirements(self.additional_imports)
        except BaseException:
            self.cleanup()
            raise

    # What smolagents calls.

    def __bool__(self) -> bool:
        # `CodeAgent` replaces a falsy executor silently. It asks in its constructor: see agents.py.
        getframe = getattr(sys, "_getframe", None)
        if getframe is not None:
            agents.bind_caller(getframe(1), self, self.executor_type, self._settings)
        return True

    def __call__(self, code_action: str) -> CodeOutput:
        """Run the code of an agent's step; see `run_code_raise_errors`."""
        return self.run_code_raise_errors(code_action)

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
            ClosedError: The executor is closed.
        """
        return self._drive(self._execute(code, timeout))

    def send_tools(self, tools: Mapping[str, Any]) -> None:
        """Make tools available in the kernel, and install the packages that they import.

        Only what has changed is sent, so it costs little to call it again.

        Args:
            tools: The tools by name. The one named "final_answer" ends the code that calls it.

        Raises:
            ConfigurationError: A tool can't run in a kernel, for example since its source can't be had.
            PackageInstallError: A package that a tool imports can't be installed.
        """
        self._drive(self._send_tools(tools))

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
        """
        self._drive(self._send_variables(variables, on_progress))

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
        return self._drive(self._install_packages(additional_imports))

    def bind(self, agent: Any) -> None:  # noqa: ANN401 a CodeAgent
        """Make `agent.to_dict()` name this executor: what is saved can't be loaded without one."""
        agents.bind(agent, self.executor_type, self._settings)

    def load_agent(self, saved: Mapping[str, Any], **options: Any) -> Any:  # noqa: ANN401 a CodeAgent
        """Load an agent that `CodeAgent.to_dict()` saved, with this executor.

        Args:
            saved: The agent's dictionary. Its tools are code, which smolagents runs in this process to load
                them: load none that you don't trust.
            options: What else `CodeAgent.from_dict` takes, for example `model`.

        Returns:
            The `CodeAgent`.
        """
        return agents.load(saved, self, **options)

    # Its life.

    def cleanup(self) -> None:
        """Delete the kernel and end the sandbox. A second call does nothing."""
        self._closed = True
        session, self._session = self._session, None
        try:
            if session is not None:
                session.close()
        finally:
            self._sandbox.terminate()
            self._tell_closed()

    def add_close_callback(self, callback: Callable[[], object]) -> None:
        """Have a function called, once, after the executor was closed; at once where it is closed already."""
        self._close_callbacks.append(callback)
        if self._closed and self._session is None:
            self._tell_closed()

    def _tell_closed(self) -> None:
        while self._close_callbacks:
            self._close_callbacks.pop()()

    def is_alive(self, timeout: float = 5.0) -> bool:
        """Whether the kernel answers, within some seconds and after what it is doing."""
        try:
            session = self._open()
            with self._turns.take():
                session.run("pass", timeout=timeout, silent=True, store_history=False)
        except SandkernelError:
            return False
        return True

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
        """Construct an executor without holding up the event loop; the arguments are the constructor's."""
        boot = asyncio.get_running_loop().run_in_executor(None, lambda: cls(*args, **kwargs))
        try:
            return await asyncio.shield(boot)
        except asyncio.CancelledError:
            boot.add_done_callback(_abandon)
            raise

    async def arun(self, code: str, *, timeout: float | EllipsisType | None = ...) -> CodeOutput:
        """Run code as `run_code_raise_errors` does; cancelling the task interrupts the kernel."""
        return await self._adrive(self._execute(code, timeout))

    async def astream(self, code: str, *, timeout: float | EllipsisType | None = ...) -> AsyncIterator[Any]:
        """Run code as `arun` does, and yield its events as they come: `Output`, `Result`, `ExecutionError`.

        The last thing yielded is the `CodeOutput`; an error of the code is raised after its event.
        """
        plan = self._guard(self._execute(code, timeout))
        async with self._turns.atake(), aclosing(astream(plan, self._open())) as events:
            async for event in events:
                if isinstance(event, Outcome):
                    yield event.value
                elif answers.MIME not in getattr(event, "data", ()):
                    yield event

    async def asend_tools(self, tools: Mapping[str, Any]) -> None:
        """Do what `send_tools` does."""
        await self._adrive(self._send_tools(tools))

    async def asend_variables(
        self, variables: Mapping[str, Any], *, on_progress: Progress | None = None
    ) -> None:
        """Do what `send_variables` does; cancelling the task breaks it off."""
        await self._adrive(self._send_variables(variables, on_progress))

    async def ainstall_packages(self, additional_imports: Sequence[str]) -> list[str]:
        """Do what `install_packages` does."""
        return await self._adrive(self._install_packages(additional_imports))

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

    def _connect(self, sandbox: Sandbox, options: Mapping[str, Any]) -> Session:
        endpoint = sandbox.endpoint
        return Session.connect(
            endpoint.url,
            endpoint.token or None,
            kernel_id=endpoint.kernel_id,
            ca_certificates=endpoint.ca_certificates,
            **options,
        )

    def _guard(self, plan: Plan[T]) -> Plan[T]:
        """Stand around every plan: for errors that a kind of sandbox can tell more about."""
        return plan

    def _open(self) -> Session:
        session = self._session
        if self._closed or session is None:
            raise ClosedError(f"This {type(self).__name__} is closed: create a new one")
        return session

    def _drive(self, plan: Plan[T]) -> T:
        self._open()
        with self._turns.take():
            return drive(self._guard(plan), self._open())

    async def _adrive(self, plan: Plan[T]) -> T:
        self._open()
        async with self._turns.atake():
            return await adrive(self._guard(plan), self._open())

    def _prepare(self) -> Plan[None]:
        """Give a new kernel, or one that lost its state, what it needs."""
        generation = self._open().generation
        if self._generation == generation:
            return
        lost = self._generation is not None
        yield from self._ours(_setup(allow_pickle=self.allow_pickle))
        if lost and not self._loss_told:
            self._notice = NOTICE
        self._loss_told = False
        self._defined = {}
        if self._variables:
            yield from self._deliver_variables(
                variables.encode(self._variables, allow_pickle=self.allow_pickle)
            )
        yield from self._deliver_tools(self._tools)
        self._generation = generation

    def _execute(self, code: str, timeout: float | EllipsisType | None) -> Plan[CodeOutput]:
        # Not a plan itself: what can't work is said before waiting for a turn.
        if not isinstance(code, str):
            raise ConfigurationError(f"The code is a str, not {type(code).__name__}")
        return self._execution(code, self.timeout if timeout is ... else timeout)

    def _execution(self, code: str, limit: float | None) -> Plan[CodeOutput]:
        self.state["_print_outputs"] = ""
        yield from self._prepare()
        notice, self._notice = self._notice, ""
        try:
            execution: Execution = yield Request(code, limit, ours=False)
        except InterruptedExecutionError as error:
            self._loss_told = _is_state_lost(error)
            if error.execution is not None:
                self._remember(error.execution)
            if error.execution is None or answers.from_results(error.execution) is None:
                explained = _explain(error, limit, notice)
                # An error that is its own cause would send who follows the causes round for ever.
                raise explained from (error.__cause__ if explained is error else error)
            execution = error.execution
        return (yield from self._conclude(execution, notice))

    def _remember(self, execution: Execution) -> None:
        self.last_execution = execution
        self.state["_print_outputs"] = logs.observation(execution, self.max_logs_length)

    def _conclude(self, execution: Execution, notice: str) -> Plan[CodeOutput]:
        self._remember(execution)
        shown = self.state["_print_outputs"]
        answer = answers.from_results(execution)
        if answer is None and (ticket := answers.ticket(execution)) is not None:
            answer = yield from self._fetch(ticket)
        if answer is None:
            answer = answers.from_error(execution)
        if answer is not None:
            value = answers.decode(*answer, allow_pickle=self.allow_pickle, limits=self.payload_limits)
            return CodeOutput(output=value, logs=shown, is_final_answer=True)
        prefix = f"{notice}\n" if notice else ""
        if execution.error is not None:
            raise AgentExecutionError(prefix + tracebacks.render(execution.error), _Quiet())
        return CodeOutput(
            output=answers.output(execution, self.payload_limits), logs=prefix + shown, is_final_answer=False
        )

    def _fetch(self, ticket: answers.Ticket) -> Plan[tuple[str, list[bytes]]]:
        """Ask for an answer that did not arrive, since a gateway's output limits drop large messages."""
        for name, allowed in (
            ("max_result_bytes", self._max_answer_bytes),
            ("payload_limits.payload_bytes", self.payload_limits.payload_bytes),
        ):
            if ticket.size > allowed:
                raise PayloadError(
                    f"The final answer is too large: it takes {ticket.size} bytes, and {name} allows "
                    f"{allowed}. Give a summary, or a part of it"
                )
        form, payload = "safe", bytearray()
        while len(payload) < ticket.size:
            call = f"answer_piece({ticket.name!r},{len(payload)},{ANSWER_PIECE_BYTES})"
            execution: Execution = yield Request(f"__import__('_sandkernel').{call}", SETUP_TIMEOUT)
            form, piece = answers.piece(execution)
            payload += piece
        document, beside = payload[: ticket.document_size], payload[ticket.document_size :]
        return form, [bytes(document), bytes(beside)] if beside else [bytes(document)]

    def _ours(self, code: str, timeout: float = SETUP_TIMEOUT) -> Plan[Execution]:
        """Run code of ours, which is not expected to fail."""
        execution: Execution = yield Request(code, timeout)
        return _expect(execution)

    def _ask(self, call: str) -> Plan[str]:
        """Call a function of the prelude that replies with a text."""
        execution = yield from self._ours(f"__import__('_sandkernel').{call}")
        if execution.error is None or execution.error.name != "Reply":
            raise SandkernelError(f"The kernel did not reply to {call.partition('(')[0]}")
        return execution.error.value

    def _deliver(self, shipment: Shipment, on_progress: Progress | None = None) -> Plan[Execution | None]:
        """Send a shipment; return the execution that failed, if one did."""
        try:
            for piece in shipment.pieces():
                execution: Execution = yield Request(piece.code, SETUP_TIMEOUT)
                if execution.error is not None:
                    return execution
                if on_progress is not None:
                    on_progress(piece.sent, shipment.size)
        except (SandkernelError, GeneratorExit):
            raise
        except BaseException:
            # Broken off: nothing is bound, and what is there already takes no more memory in the kernel.
            with suppress(Exception):
                yield Request(discard(shipment), DISCARD_TIMEOUT)
            raise
        return None

    def _send_variables(self, values: Mapping[str, Any], on_progress: Progress | None = None) -> Plan[None]:
        if not values:
            return
        shipment = variables.encode(values, allow_pickle=self.allow_pickle)
        yield from self._prepare()
        yield from self._deliver_variables(shipment, on_progress)
        self._variables.update(values)

    def _deliver_variables(self, shipment: Shipment, on_progress: Progress | None = None) -> Plan[None]:
        failed = yield from self._deliver(shipment, on_progress)
        if failed is not None and failed.error is not None:
            raise PayloadError(f"The kernel could not take the variables: {failed.error.value}")

    def _send_tools(self, given: Mapping[str, Any]) -> Plan[None]:
        definitions = {definition.name: definition for definition in tools.define(given)}
        yield from self._prepare()
        wanted = [
            name
            for each in definitions.values()
            for name in each.imports
            if self._defined.get(each.name) != each
        ]
        if wanted:
            yield from self._install_packages(wanted)
        yield from self._deliver_tools(definitions)
        self._tools.update(definitions)

    def _deliver_tools(self, definitions: Mapping[str, tools.Definition]) -> Plan[None]:
        if not definitions:
            return
        document = tools.document(definitions.values(), self._defined)
        failed = yield from self._deliver(Shipment("_sandkernel", "receive_tools", document))
        if failed is not None and failed.error is not None:
            _expect(failed)
            raise ConfigurationError(f"A tool can't be made in the kernel: {failed.error.value}")
        self._defined.update(definitions)

    def _install_packages(self, imports: Sequence[str]) -> Plan[list[str]]:
        known = set(self.installed_packages)
        wanted = [
            name for name in dict.fromkeys(imports) if not known.issuperset(packages.requirements([name]))
        ]
        if not wanted:
            return []
        yield from self._prepare()
        modules = [name for name in wanted if name.replace(".", "_").isidentifier()]
        absent = set(
            json.loads((yield from self._ask(f"missing({[name.split('.')[0] for name in modules]!r})")))
        )
        wanted = [name for name in wanted if name not in modules or name.split(".")[0] in absent]
        requirements = packages.requirements(wanted)
        if requirements:
            self.logger.log(f"Installing {', '.join(requirements)} ...")
            yield from self._install(requirements)
            self.installed_packages += requirements
        return requirements

    def _install(self, requirements: list[str]) -> Plan[None]:
        """Install requirements: here by the kernel itself, into its own environment."""
        code = f"__import__('_sandkernel').install({requirements!r})"
        execution = yield from self._ours(code, INSTALL_TIMEOUT)
        if execution.error is not None:
            output = execution.error.value
            raise PackageInstallError(
                f"Could not install {', '.join(requirements)}:\n{output}", output=output
            )

    def _install_outside(self, function: Any, requirements: list[str]) -> Plan[None]:  # noqa: ANN401
        """Install requirements by a function of the sandbox, where the kernel finds them."""
        yield Work(lambda: function(requirements))
        yield from self._ours("__import__('importlib').invalidate_caches()")


# Errors that the prelude raises on purpose.
_EXPECTED = frozenset({"Reply", "InstallError", "ToolError"})


def _expect(execution: Execution) -> Execution:
    if execution.error is not None and execution.error.name not in _EXPECTED:
        summary = tracebacks.render(execution.error)
        raise SandkernelError(f"The kernel could not be prepared for the agent's code:\n{summary}")
    return execution


# The modules of the kernel that are ours, each after those that it imports.
_MODULES = (
    ("_sandkernel_encoder", "sandkernel.serialization", "encoder.py"),
    ("_sandkernel_decoder", "sandkernel.kernel", "decoder.py"),
    ("_sandkernel_shipments", "sandkernel.kernel", "shipments.py"),
    ("_sandkernel", "sandkernel.kernel", "prelude.py"),
)


def _setup(*, allow_pickle: bool) -> str:
    """Return the code that makes the prelude a module of the kernel, and binds no name."""
    sources = {
        name: importlib.resources.files(package).joinpath(file).read_text(encoding="utf-8")
        for name, package, file in _MODULES
    }
    load = (
        "(lambda m, source: (exec(compile(source, '<sandkernel>', 'exec'), m.__dict__), "
        "__import__('sys').modules.__setitem__(m.__name__, m)))"
    )
    loads = ", ".join(
        f"load(__import__('types').ModuleType({name!r}), {source!r})" for name, source in sources.items()
    )
    allow = f"setattr(__import__('_sandkernel'), 'allow_pickle', {allow_pickle!r})"
    return f"(lambda load: ({loads}, {allow}))({load})"


def _is_state_lost(error: InterruptedExecutionError) -> bool:
    return isinstance(error, KernelDied) or (isinstance(error, ExecutionTimeout) and error.restarted)


def _explain(error: InterruptedExecutionError, limit: float | None, notice: str) -> InterruptedExecutionError:
    """Return the error in words that help a model."""
    prefix = f"{notice}\n" if notice and not _is_state_lost(error) else ""
    if isinstance(error, ExecutionTimeout):
        message = f"{prefix}The code was stopped: it ran longer than its time limit of {limit:g} s"
        if error.restarted:
            message += (
                f" and did not react to an interrupt, so the Python kernel was restarted: {STATE_LOST}."
            )
        else:
            message += ". Variables, imports and functions are kept."
        return ExecutionTimeout(message, error.execution, restarted=error.restarted)
    if isinstance(error, KernelDied):
        message = (
            "The Python kernel died while it ran the code (out of memory, a crash in a library, or the code "
            f"ended the process): {STATE_LOST}."
        )
        return KernelDied(message, error.execution)
    return error


def _abandon(boot: asyncio.Future[Any]) -> None:
    """End an executor whose creator was cancelled."""
    if not boot.cancelled() and boot.exception() is None:
        boot.get_loop().run_in_executor(None, boot.result().cleanup)
