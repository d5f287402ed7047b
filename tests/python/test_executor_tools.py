"""Tools in the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from sandkernel.exceptions import ConfigurationError
from sandkernel.integrations.smolagents.placement import Placement

if TYPE_CHECKING:
    from sandkernel import LocalExecutor
from smolagents import CodeAgent, FinalAnswerTool, Tool, tool
from smolagents.models import Model
from smolagents.utils import AgentExecutionError


@tool
def shout(text: str) -> str:
    """Say it loud.

    Args:
        text: What to say.
    """
    return text.upper() + "!"


class Counter(Tool):
    name = "counter"
    description = "Counts its calls, from a start."
    inputs = {"step": {"type": "integer", "description": "By how much"}}  # noqa: RUF012
    output_type = "integer"

    def __init__(self, start: int = 0, label: str = "n") -> None:
        super().__init__()
        self.start = start
        self.label = label

    def setup(self) -> None:
        self.count = self.start
        self.is_initialized = True

    def forward(self, step: int) -> str:
        self.count += step
        return f"{self.label}={self.count}"


class Rooted(Tool):
    name = "rooted"
    description = "The square root of a number, with numpy."
    inputs = {"x": {"type": "number", "description": "A number"}}  # noqa: RUF012
    output_type = "number"

    def forward(self, x: float) -> float:
        import numpy as np  # noqa: PLC0415

        return float(np.sqrt(x))


def test_a_function_as_tool(executor: LocalExecutor) -> None:
    executor.send_tools({"shout": shout})
    assert executor("shout('hello')").output == "'HELLO!'"
    assert executor("shout(text='hello')").output == "'HELLO!'"
    assert executor("shout({'text': 'hello'})").output == "'HELLO!'"


def test_a_class_as_tool_keeps_its_arguments_and_its_state(executor: LocalExecutor) -> None:
    executor.send_tools({"counter": Counter(start=40)})
    assert executor("counter(1); counter(1)").output == "'n=42'"


def test_a_tool_that_imports(executor: LocalExecutor) -> None:
    executor.send_tools({"rooted": Rooted()})
    assert executor("rooted(2.25)").output == "1.5"


def test_no_tools_at_all(executor: LocalExecutor) -> None:
    executor.send_tools({})
    assert executor.installed_packages == []


def test_only_changes_are_sent(executor: LocalExecutor) -> None:
    tools: dict[str, Any] = {"counter": Counter(), "shout": shout, "final_answer": FinalAnswerTool()}
    executor.send_tools(tools)
    executor("counter(5)")
    executor.send_tools(tools)
    assert executor("counter(1)").output == "'n=6'", "the tool was made anew though it had not changed"
    executor.send_tools({**tools, "counter": Counter(label="m")})
    assert executor("counter(1)").output == "'m=1'"


def test_a_changed_class_is_sent_again(executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    executor.send_tools({"counter": Counter()})
    monkeypatch.setattr(Counter, "description", "Counts otherwise.")
    executor.send_tools({"counter": Counter()})
    assert executor("counter.description").output == "'Counts otherwise.'"


def test_a_name_that_the_agent_has_taken_is_bound_again(executor: LocalExecutor) -> None:
    executor.send_tools({"shout": shout})
    executor("shout = 'overwritten'")
    executor.send_tools({"shout": shout})
    assert executor("shout('x')").output == "'X!'"


def test_names_that_the_agent_binds_do_not_break_a_tool(executor: LocalExecutor) -> None:
    executor.send_tools({"shout": shout, "counter": Counter()})
    executor("Tool = Any = None; re = 5; class_ = SimpleTool = None")
    assert executor("shout('x'), counter(1)").output == "('X!', 'n=1')"


def test_base_modules_are_there_as_with_smolagents(executor: LocalExecutor) -> None:
    executor.send_tools({})
    assert executor("math.floor(2.5), itertools.__name__").output == "(2, 'itertools')"


def test_an_error_in_a_tool_shows_the_tools_line(executor: LocalExecutor) -> None:
    executor.send_tools({"shout": shout})
    with pytest.raises(AgentExecutionError) as raised:
        executor("shout(3)")
    message = str(raised.value)
    assert "shout(3)" in message
    assert 'return text.upper() + "!"' in message
    assert "AttributeError: 'int' object has no attribute 'upper'" in message
    assert "<sandkernel>" not in message
    assert "__call__" not in message


class Unsendable(Tool):
    name = "unsendable"
    description = "Holds a client."
    inputs = {}  # noqa: RUF012
    output_type = "string"

    def __init__(self, client: Any = None) -> None:
        super().__init__()
        self.client = client

    def forward(self) -> str:
        return "never"


class NeedsKey(Tool):
    name = "needs_key"
    description = "Needs a key."
    inputs = {}  # noqa: RUF012
    output_type = "string"

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def forward(self) -> str:
        return self.key


@pytest.mark.parametrize(
    ("name", "tool", "said"),
    [
        ("unsendable", Unsendable(client=object()), r"'unsendable' \(Unsendable\).*object of type object"),
        ("needs_key", NeedsKey("secret"), r"'needs_key' \(NeedsKey\)"),
        ("helper", CodeAgent([], Model(), name="helper"), r"managed agent 'helper' \(CodeAgent\)"),
    ],
)
def test_what_has_to_be_sent_and_can_not_be_is_named(name: str, tool: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Placement("ship", print).define({name: tool})


def test_a_tool_that_fails_in_the_kernel_is_named(executor: LocalExecutor) -> None:
    class Fails(Tool):
        name = "fails"
        description = "Can't be constructed there."
        inputs = {}  # noqa: RUF012
        output_type = "string"

        def __init__(self) -> None:
            super().__init__()
            import sys  # noqa: PLC0415

            if "_sandkernel" in sys.modules:
                raise RuntimeError("not here")

        def forward(self) -> str:
            return "never"

    executor("1 + 1")
    executor.send_tools({"fails": Fails(), "shout": shout})
    with pytest.raises(
        AgentExecutionError, match="'fails' can't be used in this sandbox: RuntimeError: not here"
    ):
        executor("fails()")
    assert executor("shout('x')").output == "'X!'"


def test_what_a_tool_imports_is_installed(executor: LocalExecutor) -> None:
    class Imports(Tool):
        name = "imports"
        description = "Imports what is not there."
        inputs = {}  # noqa: RUF012
        output_type = "string"

        def forward(self) -> str:
            import surely_not_there_pkg  # type: ignore[import-not-found] # noqa: PLC0415

            return str(surely_not_there_pkg)

    installed: list[list[str]] = []
    with patch.object(executor._sandbox, "install", installed.append):
        executor("1 + 1")
        executor.send_tools({"imports": Imports(), "shout": shout})
        # The package is in no index: its import fails when the tool is made.
        with pytest.raises(AgentExecutionError, match="No module named 'surely_not_there_pkg'"):
            executor("imports()")
    assert [[name.replace("_", "-") for name in names] for names in installed] == [["surely-not-there-pkg"]]
