"""Where tools run: in the kernel, or on the host."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from smolagents.default_tools import FinalAnswerTool, PythonInterpreterTool
from smolagents.local_python_executor import LocalPythonExecutor

from sandkernel.exceptions import ConfigurationError
from sandkernel.integrations.smolagents import sources, tools
from sandkernel.integrations.smolagents.interpreter import PythonInterpreter

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandkernel.sandbox.tool_definitions import Definition, Described

__all__ = ["Placement", "Places", "Where"]

Where: TypeAlias = Literal["auto", "host", "ship"]
# Of all tools, of each by name, or the names of those on the host.
Places: TypeAlias = "Where | Mapping[str, Where] | Collection[str]"
_PLACES = ("auto", "host", "ship")


class Placement:
    """Decides where each tool runs.

    Args:
        where: As `KernelExecutor` documents it.
        tell: Called with a line of text for each tool that stays on the host since it can't be sent.

    Attributes:
        given: What was given, ready for JSON.
        failed: Why definitions could not be made in a kernel.

    Raises:
        ConfigurationError: It is nothing of these.
    """

    def __init__(self, where: Places, tell: Callable[[str], object]) -> None:
        if isinstance(where, str):
            places, rest = {}, where
        elif isinstance(where, Mapping):
            places, rest = dict(where), "auto"
        elif isinstance(where, Collection):
            places, rest = dict.fromkeys(where, "host"), "auto"
        else:
            raise ConfigurationError(f"tools is 'auto', 'host', 'ship', or names, not {where!r:.100}")
        for place in (rest, *places.values()):
            if place not in _PLACES:
                raise ConfigurationError(
                    f"tools has {place!r:.100} where 'auto', 'host' or 'ship' is expected"
                )
        if not all(isinstance(name, str) for name in places):
            raise ConfigurationError(f"tools has names of tools, which are texts: {where!r:.200}")
        self.given: object = where if isinstance(where, str) else places
        self._places = cast("dict[str, Where]", places)
        self._rest = cast("Where", rest)
        self._tell = tell
        self._told: set[str] = set()
        self.failed: dict[Described, str] = {}

    def define(self, given: Mapping[str, Any]) -> list[Described]:
        """Return what the kernel is told of tools.

        Raises:
            ConfigurationError: A tool that is to run in the kernel can't be sent there.
        """
        for name in self._places.keys() - given.keys():
            self._tell_once(name, f"tools names {name!r}, and the agent has no such tool")
        return [self._define(name, tool) for name, tool in given.items()]

    def _define(self, name: str, tool: Any) -> Described:  # noqa: ANN401 whatever the user gave
        place = self._places.get(name, self._rest)
        if isinstance(tool, PythonInterpreterTool):
            if place == "host":
                self._tell_once(name, f"The tool {name!r} runs the code of a model in this process")
            else:
                tool = _interpreter(name, tool)
        if place == "ship" or (
            place == "host" and name not in self._places and type(tool) is FinalAnswerTool
        ):
            return tools.define(name, tool)
        if tools.is_agent(tool):
            self._tell_of_code_here(name, tool)
        elif place == "auto":
            definition, reason = self._judge(name, tool)
            if definition is not None and not reason:
                return definition
            running = sources.runs_code(type(tool))
            if running:
                raise ConfigurationError(
                    f"The tool {name!r} runs code that it is given, with {running}, and can't be sent to the "
                    f"sandbox: {reason}. If it may run in this process, say so: tools={{{name!r}: 'host'}}"
                )
            self._tell_once(
                name, f"The tool {name!r} stays on this machine, and is called from the kernel: {reason}"
            )
        return tools.stub(name, tool)

    def _judge(self, name: str, tool: Any) -> tuple[Definition | None, str]:  # noqa: ANN401
        """Return the definition of a tool, if it has one, and why it has to stay here, if it has."""
        try:
            definition = tools.define(name, tool)
        except ConfigurationError as error:
            return None, str(error.__cause__ or error)
        if definition in self.failed:
            return definition, self.failed[definition]
        asking = sources.asks_here(definition.code)
        if asking:
            return definition, f"its source asks whoever is here, with {asking}"
        if definition.arguments != tools.NO_ARGUMENTS:
            # smolagents would not send them; among them there may be a key.
            return definition, "it was made with arguments"
        return definition, ""

    def _tell_of_code_here(self, name: str, agent: Any) -> None:  # noqa: ANN401 an agent
        given = getattr(agent, "tools", None)
        interprets = any(isinstance(tool, PythonInterpreterTool) for tool in dict(given or {}).values())
        if interprets or isinstance(getattr(agent, "python_executor", None), LocalPythonExecutor):
            self._tell_once(
                name,
                f"The managed agent {name!r} runs the code of its model in this process, not in a sandbox: "
                "give it an executor of its own, such as one of new_kernel()",
            )

    def may_stay(self, name: str) -> bool:
        """Whether a tool that can't be made in the kernel may run on this machine instead."""
        return self._places.get(name, self._rest) == "auto"

    def tell_broken(self, name: str, reason: str) -> None:
        """Tell that a tool is neither here nor there."""
        self._tell_once(f"{name}!", f"The tool {name!r} can't be used: {reason}")

    def _tell_once(self, name: str, line: str) -> None:
        if name not in self._told:
            self._told.add(name)
            self._tell(" ".join(line.split()))


def _interpreter(name: str, tool: PythonInterpreterTool) -> PythonInterpreter:
    """Return what does in the kernel what smolagents' interpreter does.

    Raises:
        ConfigurationError: It is not smolagents' own.
    """
    if type(tool).forward is not PythonInterpreterTool.forward:
        raise ConfigurationError(
            f"The tool {name!r} ({type(tool).__name__}) runs code that it is given in this process, not in "
            f"the sandbox. If it may, say so: tools={{{name!r}: 'host'}}"
        )
    return PythonInterpreter()
