"""Gives a kernel its variables, tools and packages, and gives them again when it has lost its state."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from sandkernel import packages
from sandkernel.exceptions import (
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    PackageInstallError,
    PayloadError,
    SandkernelError,
    StateLost,
    UnsupportedKernelError,
)
from sandkernel.languages import FILES, in_python, require_python, runs_python
from sandkernel.plans import Plan, Request, Work
from sandkernel.sandbox import kernel_json, prelude, rebinding, tool_definitions, tracebacks, variables
from sandkernel.sandbox.functions import FunctionPlacement
from sandkernel.sandbox.host_tools import HostTools
from sandkernel.sandbox.messages import NOTICE, NOTICE_OF_REBOOT
from sandkernel.sandbox.tool_definitions import FINAL_ANSWER, Definition, Stub
from sandkernel.shipment import Shipment, discard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sandkernel._sandkernel import Execution
    from sandkernel.providers.base import Provider
    from sandkernel.sandbox.host_tools import Invoke
    from sandkernel.sandbox.tool_definitions import Described, Placement
    from sandkernel.session import Session
    from sandkernel.shipment import Progress

__all__ = ["KernelSetup"]

T = TypeVar("T")

# Our own requests end in milliseconds; a tool's constructor or a download may take a while.
SETUP_TIMEOUT = 120.0
INSTALL_TIMEOUT = 900.0
# Of giving back memory, after whoever waited has left.
DISCARD_TIMEOUT = 5.0
# A kernel that loses its state again while it is given everything anew is not waited for for ever.
ATTEMPTS = 3
# Errors that our modules in the kernel raise on purpose.
EXPECTED = frozenset({"Reply", "InstallError"})


class KernelSetup:
    """Modules, variables, packages and tools for a kernel, and the record of those that the kernel has.

    Every method but `request` returns a plan.

    Args:
        environment: Environment variables of the kernel.
        placement: Decides where tools run.
        invoke: Calls a tool that stays on the host.
        tell: Called with a line of text for what takes its time, such as an installation.
        allow_pickle: Whether values without a safe form travel as pickles.
        with_modules: Whether the modules that smolagents imports are bound in the kernel's namespace with the
            tools.

    Attributes:
        environment: Environment variables of the kernel; `None` stands for none of that name.
        placement: Where tools run.
        tell: Called with a line of text for what takes its time.
        with_modules: Whether the modules that smolagents imports are bound beside the tools.
        host_tools: Those that stay on the host.
        session: The session to the kernel; `None` where there is none.
        variables: The variables that were sent.
        given_tools: The tools that were sent, as they were given.
        functions: The functions of the host that are there whatever tools are.
        installed_packages: The requirements that were installed.
        notice: What the model is to be told with its next observation; empty for nothing.
    """

    def __init__(
        self,
        environment: Mapping[str, str | None],
        placement: Placement,
        invoke: Invoke,
        tell: Callable[[str], object],
        *,
        allow_pickle: bool,
        with_modules: bool,
    ) -> None:
        self.environment = dict(environment)
        self._sandbox: Provider | None = None
        self.session: Session | None = None
        self.tell = tell
        self._allow_pickle = allow_pickle
        self.with_modules = with_modules
        self.placement = placement
        self.host_tools = HostTools(invoke, allow_pickle=allow_pickle)
        self._tools: dict[str, Described] = {}
        self.variables: dict[str, Any] = {}
        # The names of those that were sent since tools were.
        self._newest: list[str] = []
        self.given_tools: dict[str, Any] = {}
        self.functions: dict[str, Any] = {}
        self._functions = FunctionPlacement()
        # What the kernel has of them, and which kernel that is, in which of its lives.
        self._defined: dict[str, Described] = {}
        self._provided: tuple[Session, int] | None = None
        # Whether no code of an agent has run in the sandbox: what that says of itself is believed.
        self._untouched = False
        self._loss_told = False
        # False for a kernel that can't call tools on the host.
        self._calls_host = True
        self.installed_packages: list[str] = []
        # Those of them that a new sandbox does not bring along.
        self._added: list[str] = []
        self.notice = ""

    def adopt(self, placement: Placement, invoke: Invoke, tell: Callable[[str], object]) -> None:
        """Let a framework decide from now on where its tools run, and call them.

        Args:
            placement: Decides where tools run.
            invoke: Calls a tool that stays on the host.
            tell: Called with a line of text for what takes its time.
        """
        self.placement, self.tell, self.with_modules = placement, tell, True
        self.host_tools.invoke = invoke

    def move(self, sandbox: Provider, session: Session) -> None:
        """Go on with another kernel: the first one, or one in another sandbox.

        Args:
            sandbox: Where it is. It installs packages where it can, otherwise the kernel does.
            session: The session to it.

        Raises:
            UnsupportedKernelError: It is to have environment variables, and does not run Python.
        """
        if self.environment:
            require_python(session, "Setting environment variables")
        self._sandbox, self.session = sandbox, session
        self._untouched = sandbox.is_new

    def note(self, execution: Execution) -> None:
        """Note what an execution says of the tools, for the model to be told."""
        self._tell_too(rebinding.notice(execution, self._tools))

    def _tell_too(self, notice: str) -> None:
        self.notice = "\n".join(filter(None, (self.notice, notice)))

    def take_notice(self) -> str:
        """Return what the model is to be told; it is told once."""
        notice, self.notice = self.notice, ""
        return notice

    def loss_is_told(self) -> None:
        """Note that the model learns otherwise that the kernel's state is lost."""
        self._loss_told = True

    def run_when_ready(self, plan: Callable[[], Plan[T]]) -> Plan[T]:
        """Carry out a plan in a kernel that has everything.

        Its requests, made by `request`, are not run by a kernel that has lost it since: then that is given
        everything, and the plan begins anew.
        """
        attempt = 1
        while True:
            try:
                yield from self.prepare()
                return (yield from plan())
            except StateLost:
                if attempt == ATTEMPTS:
                    raise
            attempt += 1

    def prepare(self) -> Plan[None]:
        """Give a new kernel, or one that lost its state, what it needs."""
        session = self.session
        if session is None:
            raise ClosedError("The sandbox is closed: create a new one")
        provided = session, session.generation
        if self._provided == provided:
            return
        lost = self._provided is not None
        if runs_python(session):
            yield from self._load_prelude(*provided)
        elsewhere = self._provided is not None and self._provided[0] is not session
        if elsewhere:
            self.notice = NOTICE_OF_REBOOT
        elif lost and not self._loss_told:
            self.notice = NOTICE
        self._loss_told = False
        self._defined = {}
        self._provided = provided
        try:
            yield from self._deliver_everything(elsewhere=elsewhere)
        except BaseException:
            # Not whole: another time it is given all of it.
            self._provided, self._loss_told = (session, -1), True
            raise

    def _deliver_everything(self, *, elsewhere: bool) -> Plan[None]:
        # There is none of it for a kernel of another language than Python.
        if self.environment:
            yield from self._deliver_environment()
        if elsewhere and self._added:
            yield from self._install(self._added)
        if self.variables:
            yield from self._deliver_variables(
                variables.encode(self.variables, allow_pickle=self._allow_pickle)
            )
        if self._tools:
            self._tell_broken((yield from self._deliver_tools(self._tools)))

    def _load_prelude(self, session: Session, generation: int) -> Plan[None]:
        # Where the gateway keeps nothing for a connection that breaks, the kernel is to.
        record = not session.resumable
        request = Request(prelude.load(allow_pickle=self._allow_pickle, record=record), SETUP_TIMEOUT)
        # For whichever of its lives that the kernel is in: if it is a later one, the next request finds out.
        for _ in range(ATTEMPTS - 1 if record else 0):
            with suppress(ConnectionLost):
                execution = _expect((yield request))
                break
        else:
            # Until the kernel keeps it, a cut is survived by asking again: nothing of this is done twice.
            execution = _expect((yield request))
        replied = None if execution.error is None else execution.error.value
        if replied == prelude.KEEPS_RECORD:
            session.rely_on_record(generation)
        self._calls_host = replied != prelude.NO_IPYKERNEL

    def request(
        self,
        code: str,
        timeout: float | None = SETUP_TIMEOUT,
        *,
        ours: bool = True,
        buffers: Sequence[bytes | bytearray] = (),
    ) -> Request:
        """Return a request that only a kernel that has everything runs."""
        self._untouched = self._untouched and ours
        generation = self._provided[1] if self._provided is not None else None
        host = self.host_tools if self.host_tools and not ours else None
        return Request(code, timeout, ours=ours, generation=generation, host=host, buffers=buffers)

    def run(self, code: str, timeout: float = SETUP_TIMEOUT) -> Plan[Execution]:
        """Run code of ours, which is not expected to fail."""
        self._require_python("This")
        return _expect((yield self.request(code, timeout)))

    def send_variables(self, values: Mapping[str, Any], on_progress: Progress | None = None) -> Plan[None]:
        """Bind variables in the kernel's namespace, all or none."""
        if not values:
            return
        self._require_python("Sending variables")
        shipment = variables.encode(values, allow_pickle=self._allow_pickle)
        yield from self.run_when_ready(lambda: self._deliver_variables(shipment, on_progress))
        self.variables.update(values)
        self._newest = [*self._newest, *values]

    def provide(self, functions: Mapping[str, Any]) -> Plan[None]:
        """Make functions of the host callable in the kernel, also beside the tools of every run."""
        former = self.functions
        self.functions = {**former, **functions}
        try:
            yield from self.send_tools({})
        except BaseException:
            self.functions = former
            raise

    def send_tools(self, given: Mapping[str, Any]) -> Plan[None]:
        """Make tools in the kernel that it does not have yet, and take away those of the run before."""
        given = {**self.functions, **given}
        if given:
            self._require_python("Sending tools, as a CodeAgent always does,")
        elif self.session is not None and not runs_python(self.session):
            return
        if FINAL_ANSWER not in given:
            given = {**self.given_tools, **given}
        yield from self.prepare()
        while True:
            definitions = {definition.name: definition for definition in self._define(given)}
            self._check_host_tools(definitions)
            failed = yield from self._install_for(definitions)
            if not self._keep_here(definitions, failed):
                self.host_tools.give(
                    {name: given[name] for name, each in definitions.items() if isinstance(each, Stub)}
                )
                failed |= yield from self.run_when_ready(lambda: self._deliver_tools(definitions))  # noqa: B023 called at once
                if not self._keep_here(definitions, failed):
                    break
        self._tell_broken(failed)
        self._tell_too(rebinding.notice_of_variables([name for name in self._newest if name in definitions]))
        self._newest = []
        self._tools = definitions
        self.given_tools = dict(given)

    def _define(self, given: Mapping[str, Any]) -> list[Described]:
        functions = {name: tool for name, tool in given.items() if self.functions.get(name) is tool}
        tools = {name: tool for name, tool in given.items() if name not in functions}
        return [*self.placement.define(tools), *self._functions.define(functions)]

    def _check_host_tools(self, definitions: Mapping[str, Described]) -> None:
        names = [name for name, each in definitions.items() if isinstance(each, Stub)]
        if names and not self._calls_host:
            raise UnsupportedKernelError(
                "Tools that stay on the host are called by way of ipykernel, and the kernel runs Python "
                f"without it: {', '.join(map(repr, names)):.300}. Give tools that can be sent to the kernel "
                "(tools='ship' says why one can't), or choose a kernel_name of ipykernel",
                language=None if self.session is None else self.session.language,
            )

    def _install_for(self, definitions: Mapping[str, Described]) -> Plan[dict[str, str]]:
        """Install what tools import; return why that fails, by the tools' names."""
        wanted = {
            name: each.imports
            for name, each in definitions.items()
            if each.imports and self._defined.get(name) != each
        }
        failed = yield from self._out_of_reach(wanted)
        wanted = {name: modules for name, modules in wanted.items() if name not in failed}
        # All at once, which is quicker; each for itself where that fails.
        for names in [tuple(wanted), *((name,) for name in wanted)] if wanted else ():
            try:
                yield from self.install_packages([module for name in names for module in wanted[name]])
                if len(names) == len(wanted):
                    break
            except PackageInstallError as error:
                if len(names) == 1:
                    if not self.placement.may_stay(names[0]):
                        raise
                    failed[names[0]] = f"what it imports can't be installed: {error}"
                    if len(wanted) == 1:
                        break
        return failed

    def _out_of_reach(self, wanted: Mapping[str, Sequence[str]]) -> Plan[dict[str, str]]:
        """Return which tools import what is only on this machine: no index is asked for its name."""
        local = [module for modules in wanted.values() for module in modules if packages.is_local(module)]
        if not local:
            return {}
        absent = yield from self._missing(local)
        return {
            name: f"it imports {module!r}, which is a module of this machine alone"
            for name, modules in wanted.items()
            for module in modules
            if module in local and module in absent
        }

    def _keep_here(self, definitions: Mapping[str, Described], failed: Mapping[str, str]) -> bool:
        """Note what can't be made in the kernel, and stays on the host for that; return whether there is any.

        A sandbox in which an agent's code has run is not asked: it could have a tool that is meant for it
        run on the host.

        Raises:
            ConfigurationError: A tool that is to run in the kernel can't be made there.
        """
        for name, reason in failed.items():
            if not self.placement.may_stay(name):
                raise ConfigurationError(f"The tool {name!r} can't be made in the kernel: {reason}")
        if not (self._untouched and self._calls_host):
            return False
        kept = {definitions[name]: reason for name, reason in failed.items()}
        kept = {each: reason for each, reason in kept.items() if isinstance(each, Definition)}
        self.placement.failed.update(kept)
        return bool(kept)

    def _tell_broken(self, failed: Mapping[str, str]) -> None:
        for name, reason in failed.items():
            self.placement.tell_broken(name, reason)

    def install_packages(self, imports: Sequence[str]) -> Plan[list[str]]:
        """Install packages that the kernel can't import yet; return their requirements."""
        known = set(self.installed_packages)
        wanted = [
            name for name in dict.fromkeys(imports) if not known.issuperset(packages.requirements([name]))
        ]
        if not wanted:
            return []
        self._require_python("Installing packages")
        modules = [name for name in wanted if name.replace(".", "_").isidentifier()]
        absent = yield from self._missing([name.split(".")[0] for name in modules])
        wanted = [name for name in wanted if name not in modules or name.split(".")[0] in absent]
        requirements = packages.requirements(wanted)
        if requirements:
            self.tell(f"Installing {', '.join(requirements)} ...")
            yield from self.run_when_ready(lambda: self._install(requirements))
            self.installed_packages += requirements
            self._added += requirements
        return requirements

    def files(self, plan: Plan[T]) -> Plan[T]:
        """Carry out a plan that works with the files of the sandbox."""
        return (yield from in_python(self.session, FILES, plan))

    def _require_python(self, purpose: str) -> None:
        if self.session is not None:
            require_python(self.session, purpose)

    def _install(self, requirements: list[str]) -> Plan[None]:
        """Have the sandbox install requirements, or otherwise the kernel, into its own environment."""
        sandbox = self._sandbox
        if sandbox is None or not sandbox.can_install:
            yield from self.install_inside(requirements)
        else:
            yield Work(lambda: sandbox.install(requirements))
            yield from self.run("__import__('importlib').invalidate_caches()")

    def install_inside(self, requirements: list[str]) -> Plan[None]:
        """Have the kernel itself install requirements, into its own environment."""
        code = f"__import__('_sandkernel').install({requirements!r})"
        # In a step, it is done for a sandbox that has just been booted, which is no part of its time limit.
        request = dataclasses.replace(self.request(code, INSTALL_TIMEOUT), counted=False)
        execution = _expect((yield request))
        if execution.error is not None:
            output = execution.error.value
            raise PackageInstallError(
                f"Could not install {', '.join(requirements)}:\n{output}", output=output
            )

    def _missing(self, modules: list[str]) -> Plan[set[str]]:
        """Return which modules the kernel does not have, as it says: it may be hostile."""
        call = f"missing({modules!r})"
        reply = yield from self.run_when_ready(lambda: self._ask(call))
        # It can be no longer than what was asked, in JSON.
        names = kernel_json.parse(reply, len(json.dumps(modules)))
        if not isinstance(names, list):
            raise SandkernelError(f"The kernel's reply to missing is malformed: {reply[:200]!r}")
        return {name for name in modules if name in names}

    def _ask(self, call: str) -> Plan[str]:
        """Call a function of the prelude that replies with a text."""
        execution = yield from self.run(f"__import__('_sandkernel').{call}")
        if execution.error is None or execution.error.name != "Reply":
            raise SandkernelError(f"The kernel did not reply to {call.partition('(')[0]}")
        return execution.error.value

    def execute(self, code: str) -> Plan[Execution]:
        """Run code of ours, whose errors say something."""
        return (yield from self._execute(code, ()))

    def run_in_python(self, purpose: str, code: str) -> Plan[Execution]:
        """Run code of ours in a kernel that has everything.

        Args:
            purpose: What it is for, as the subject of a sentence.
            code: The code, whose errors say something.

        Raises:
            UnsupportedKernelError: The kernel does not run Python.
        """
        self._require_python(purpose)
        return (yield from self.run_when_ready(lambda: self.execute(code)))

    def _execute(self, code: str, buffers: Sequence[bytes | bytearray]) -> Plan[Execution]:
        execution: Execution = yield self.request(code, buffers=buffers)
        return execution

    def _deliver(self, shipment: Shipment, on_progress: Progress | None = None) -> Plan[Execution | None]:
        """Send a shipment; return the execution that failed, if one did."""
        try:
            for piece in shipment.pieces():
                execution = yield from shipment.send(piece, self._execute)
                if execution.error is not None:
                    return execution
                if on_progress is not None:
                    on_progress(piece.sent, shipment.size)
        except (SandkernelError, GeneratorExit):
            raise
        except BaseException:
            # Broken off: nothing is bound, and what is there already takes no more memory in the kernel.
            with suppress(Exception):
                yield self.request(discard(shipment), DISCARD_TIMEOUT)
            raise
        return None

    def _deliver_environment(self) -> Plan[None]:
        # Attached, not in the code, which an error would show.
        document = json.dumps(self.environment).encode()
        failed = yield from self._deliver(Shipment("_sandkernel", "receive_environment", document))
        if failed is not None and failed.error is not None:
            raise SandkernelError(f"The kernel could not take its environment: {failed.error.name}")

    def _deliver_variables(self, shipment: Shipment, on_progress: Progress | None = None) -> Plan[None]:
        failed = yield from self._deliver(shipment, on_progress)
        if failed is not None and failed.error is not None:
            raise PayloadError(f"The kernel could not take the variables: {failed.error.value}")

    def _deliver_tools(self, definitions: Mapping[str, Described]) -> Plan[dict[str, str]]:
        """Bind these tools in the kernel, no others; return why some can't be made there, by their names."""
        document = tool_definitions.document(
            definitions.values(),
            self._defined,
            self._tools.keys() - definitions.keys(),
            with_modules=self.with_modules,
        )
        execution = yield from self._deliver(Shipment("_sandkernel", "receive_tools", document))
        failed = {} if execution is None else tool_definitions.failures(_expect(execution), definitions)
        for name, definition in definitions.items():
            if name in failed:
                self._defined.pop(name, None)
            else:
                self._defined[name] = definition
        return failed


def _expect(execution: Execution) -> Execution:
    if execution.error is not None and execution.error.name not in EXPECTED:
        summary = tracebacks.render(execution.error)
        raise SandkernelError(f"The kernel could not be prepared for the agent's code:\n{summary}")
    return execution
