"""Whole runs of a CodeAgent whose tools name what a kernel does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from smolagents import tool
from smolagents.memory import ActionStep
from smolagents.monitoring import AgentLogger, LogLevel

from executor_support import agent_of
from odd_tools import CASES, FailsElsewhere, ImportsWhatIsHere, Odd, literal, with_a_helper
from sandkernel import LocalExecutor
from sandkernel.exceptions import ConfigurationError, PackageInstallError
from sandkernel.integrations.smolagents import tools

if TYPE_CHECKING:
    from collections.abc import Iterator


class Lines(AgentLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(LogLevel.INFO)
        self.lines: list[str] = []

    def log(self, *args: Any, **_: Any) -> None:
        self.lines.extend(map(str, args))


@tool
def double(number: int) -> int:
    """Double a number.

    Args:
        number: The number.
    """
    return number * 2


def named(name: str) -> Any:
    """The tool of a case, under a name of its own."""
    given = CASES[name][0]
    if type(given).__name__ != "SimpleTool":
        given.name = name  # of the instance: the code names it so, and no more
    return given


@pytest.fixture(scope="module")
def everything() -> Iterator[tuple[LocalExecutor, Lines]]:
    """An executor whose first agent had all of these tools at once."""
    logger = Lines()
    with LocalExecutor([], logger, timeout=60) as executor:
        agent = agent_of(executor, "final_answer(double(4))", tools=[double, *map(named, CASES)])
        assert agent.run("With all of them.") == 8
        yield executor, logger


@pytest.mark.parametrize("name", CASES)
def test_a_tool_works_shipped_or_hosted(everything: tuple[LocalExecutor, Lines], name: str) -> None:
    executor, logger = everything
    _, arguments, expected, is_shipped = CASES[name]
    tool = named(name)
    agent = agent_of(
        executor, f"final_answer([{tool.name}({arguments}), type({tool.name}).__name__])", tools=[tool]
    )
    answer, kind = agent.run("Use it.")
    assert [step.error for step in agent.memory.steps if isinstance(step, ActionStep)] == [None]
    assert answer == expected
    assert (kind != "HostTool") is is_shipped
    lines = [line for line in logger.lines if f"The tool {tool.name!r}" in line]
    assert len(lines) == (0 if is_shipped else 1), lines


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case[3]])
def test_what_must_be_shipped_and_can_not_be_is_named(name: str) -> None:
    tool = named(name)
    if name in ("fails_elsewhere", "exits_elsewhere", "imports_what_is_here"):
        # Here nothing tells; the kernel does.
        assert tools.define(tool.name, tool)
        return
    with pytest.raises(ConfigurationError, match=f"The tool {tool.name!r} "):
        tools.define(tool.name, tool)


def test_what_must_be_shipped_and_fails_there_is_named() -> None:
    with LocalExecutor(timeout=60, tools="ship") as executor:
        with pytest.raises(
            ConfigurationError, match="'odd' can't be made in the kernel: RuntimeError: not here"
        ):
            executor.send_tools({"odd": FailsElsewhere(), "double": double})
        with pytest.raises(
            ConfigurationError, match=r"'odd'.*'module_of_this_machine', which is a module of this"
        ):
            executor.send_tools({"odd": ImportsWhatIsHere(), "double": double})
        assert agent_of(executor, "final_answer(double(4))", tools=[double]).run("Go on.") == 8


def test_what_a_used_sandbox_says_brings_no_tool_to_the_host() -> None:
    """Its code could have a tool that is meant for the sandbox run on this machine."""
    logger = Lines()
    with LocalExecutor([], logger, timeout=60) as executor:
        spoil = (
            "import sys\nprelude = sys.modules['_sandkernel']\n"
            "def fail(*_, **__):\n    raise RuntimeError('spoiled')\nprelude._define = fail"
        )
        agent = agent_of(executor, spoil, "final_answer(1)")
        agent.run("Spoil.")
        agent = agent_of(
            executor, "literal('C')", "final_answer(with_a_helper(1))", tools=[literal, with_a_helper]
        )
        assert agent.run("Try.") == 6, "what needs no word of the sandbox's is on the host"
        assert (
            "ToolError: The tool 'literal' can't be used in this sandbox: RuntimeError: spoiled"
            in (agent.model.seen[1])
        )
        assert "The tool 'literal' can't be used: RuntimeError: spoiled" in logger.lines
        # Nor does a further kernel in it, which is whole: there it is made.
        with executor.new_kernel(inherit=True) as kernel:
            assert kernel("[literal('C'), type(literal).__name__]").output == "['C', 'SimpleTool']"


def test_a_package_that_can_not_be_installed_leaves_the_other_tools() -> None:
    class Imports(Odd):
        name = "imports"

        def forward(self, number: int | None = None) -> Any:
            import surely_not_there_pkg  # type: ignore[import-not-found] # noqa: PLC0415

            return surely_not_there_pkg.__name__ + str(number)

    def refuse(requirements: list[str]) -> None:
        asked.append(requirements)
        raise PackageInstallError(f"Could not install {requirements}", output="")

    asked: list[list[str]] = []
    with LocalExecutor(timeout=60) as executor, patch.object(executor._sandbox, "install", refuse):
        given = [Imports(), double, literal]
        agent = agent_of(
            executor, "print(literal('C'))\nimports(2)", *["final_answer(double(4))"] * 2, tools=given
        )
        assert agent.run("Go on.") == 8
        assert "C\n" in agent.model.seen[1]
        # On the host it is not there either, which the model learns when it calls it.
        assert "ModuleNotFoundError: No module named 'surely_not_there_pkg'" in agent.model.seen[1]
        assert agent.run("Go on.") == 8
    assert len(asked) == 1, "it was asked for again"


def test_annotations_are_not_evaluated_in_the_kernel(executor: LocalExecutor) -> None:
    code = tools.define("literal", literal).code
    assert "Literal" not in code.replace("'enum'", "")
    assert "def forward(self, unit):" in code
    executor.send_tools({"literal": literal})
    assert executor("literal.forward('F')").output == "'F'"
