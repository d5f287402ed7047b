"""Whole runs of a CodeAgent whose tools belong to one side: they ask somebody, run code, or are awaited."""

from __future__ import annotations

import asyncio
import contextvars
import io
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from smolagents import PythonInterpreterTool, Tool, ToolCallingAgent, UserInputTool, tool
from smolagents.memory import ActionStep
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.utils import AgentExecutionError

from executor_support import ScriptedModel, agent_of
from sandkernel import LocalExecutor
from sandkernel.exceptions import ConfigurationError, ExecutionTimeout
from sandkernel.integrations.smolagents.placement import Placement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

tenant = contextvars.ContextVar("tenant", default="nobody")


class Lines(AgentLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(LogLevel.INFO)
        self.lines: list[str] = []

    def log(self, *args: Any, **_: Any) -> None:
        self.lines.extend(map(str, args))


@tool
def confirm(question: str) -> str:
    """Ask.

    Args:
        question: What.
    """
    return input(question)


@tool
def password() -> str:
    """Ask."""
    import getpass  # noqa: PLC0415

    return getpass.getpass()


@tool
def first_line() -> str:
    """Ask."""
    import sys  # noqa: PLC0415

    return sys.stdin.readline()


@tool
def calculate(expression: str) -> int:
    """Calculate.

    Args:
        expression: What.
    """
    return eval(expression)


class Calculator(Tool):
    name = "calculator"
    description = "Calculates."
    inputs = {"expression": {"type": "string", "description": "What"}}  # noqa: RUF012
    output_type = "any"

    def __init__(self, names: Any = None) -> None:
        super().__init__()
        self.names = names

    def forward(self, expression: str) -> Any:
        return max(eval(each, self.names) for each in [expression])


class MyInterpreter(PythonInterpreterTool):
    def forward(self, code: str) -> str:
        return super().forward(code)


class Doubling(Tool):
    """Its source can be sent."""

    name = "doubling"
    description = "Doubles."
    inputs = {"number": {"type": "integer", "description": "What with"}}  # noqa: RUF012
    output_type = "integer"

    async def forward(self, number: int) -> int:
        import asyncio  # noqa: PLC0415

        await asyncio.sleep(0)
        return number * 2


class Awaited(Tool):
    """Calls a coroutine function of the host's."""

    name = "awaited"
    description = "Awaits."
    inputs = {"number": {"type": "integer", "description": "What with"}}  # noqa: RUF012
    output_type = "any"

    def __init__(self, function: Callable[[int], Any]) -> None:
        super().__init__()
        self.function = function

    async def forward(self, number: int) -> Any:
        return await self.function(number)


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    """One whose loop for coroutines has begun: its thread is not left by a test."""
    with LocalExecutor(timeout=60) as executor:
        executor.send_tools({"awaited": Awaited(lambda number: asyncio.sleep(0, number))})
        assert executor("awaited(3)").output == "3"
        yield executor


# Who is asked


def test_a_tool_that_asks_its_user_stays_here(
    executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("blue\nyes\n"))
    agent = agent_of(
        executor, "final_answer([user_input('Colour?'), confirm('Sure?')])", tools=[UserInputTool(), confirm]
    )
    assert agent.run("Ask.") == ["blue", "yes"]


@pytest.mark.parametrize(
    "asking", [UserInputTool(), confirm, password, first_line], ids=lambda each: each.name
)
def test_what_asks_is_said(asking: Tool) -> None:
    lines: list[str] = []
    (placed,) = Placement("auto", lines.append).define({asking.name: asking})
    assert type(placed).__name__ == "Stub"
    assert f"The tool {asking.name!r} stays on this machine" in lines[0]
    assert "asks whoever is here" in lines[0]
    # Who says where it runs is believed.
    (placed,) = Placement("ship", lines.append).define({asking.name: asking})
    assert type(placed).__name__ == "Definition"


# Who runs code


def test_the_interpreter_runs_in_the_sandbox(executor: LocalExecutor) -> None:
    code = "import os\nprint('in', os.getpid())\nx = 20\nx + 1"
    agent = agent_of(
        executor,
        f"import os\nfinal_answer([python_interpreter({code!r}), os.getpid()])",
        tools=[PythonInterpreterTool(authorized_imports=["os"])],
    )
    output, kernel = agent.run("Run.")
    assert output == f"Stdout:\nin {kernel}\n\nOutput: 21"
    assert kernel != os.getpid()
    # Statements alone, an error, and a state of its own each time.
    assert executor("python_interpreter('y = 1')").output == repr("Stdout:\n\nOutput: None")
    with pytest.raises(AgentExecutionError, match="NameError: name 'y' is not defined"):
        executor("python_interpreter('y')")


def test_what_runs_code_does_not_come_to_the_host_unasked(executor: LocalExecutor) -> None:
    for given in (MyInterpreter(), Calculator({"x": 1})):
        agent = agent_of(executor, "final_answer(1)", tools=[given])
        with pytest.raises(ConfigurationError, match=rf"'{given.name}'.*tools=.*'{given.name}': 'host'"):
            agent.run("Run.")
    # Where its source can be sent it runs in the kernel, as ever; and on the host where that is said.
    agent = agent_of(executor, "final_answer(calculate('__import__(\"os\").getpid()'))", tools=[calculate])
    assert agent.run("Run.") != os.getpid()
    lines: list[str] = []
    for place in ("host", {"calculator": "host", "python_interpreter": "host"}):
        placement = Placement(place, lines.append)  # type: ignore[arg-type]
        placed = placement.define(
            {"calculator": Calculator({}), "python_interpreter": PythonInterpreterTool()}
        )
        assert [type(each).__name__ for each in placed] == ["Stub", "Stub"]
    assert lines == ["The tool 'python_interpreter' runs the code of a model in this process"] * 2


def test_a_managed_agent_that_runs_code_here_is_told(executor: LocalExecutor) -> None:
    lines: list[str] = []
    coder = agent_of(None, name="coder", description="Codes.")
    caller = ToolCallingAgent(
        [PythonInterpreterTool()], ScriptedModel(), name="caller", description="Calls.", verbosity_level=0
    )
    safe = agent_of(executor, name="safe", description="Codes.")
    Placement("auto", lines.append).define({each.name: each for each in (coder, caller, safe)})
    assert [line.split("'")[1] for line in lines] == ["coder", "caller"]
    assert all("runs the code of its model in this process" in line for line in lines)


# What a managed agent is called with


def test_a_managed_agent_takes_a_task_and_additional_args_only(executor: LocalExecutor) -> None:
    with executor.new_kernel() as kernel:
        calls = (
            "helper('a')",
            "helper(task='a')",
            "helper('a', {'given': 5})",
            "helper('a', additional_args={'given': 5})",
            "helper(task='a', additional_args=None)",
        )
        helper = agent_of(
            kernel, *["final_answer('helped')"] * len(calls), name="helper", description="Helps.", max_steps=2
        )
        agent = agent_of(
            executor, *calls, "final_answer('done')", managed_agents=[helper], max_steps=len(calls) + 1
        )
        assert agent.run("Delegate.") == "done"
        steps = [step for step in agent.memory.steps if isinstance(step, ActionStep)]
        assert [step.error for step in steps] == [None] * (len(calls) + 1)
        assert all("helped" in step.observations for step in steps[:-1])

        refused = (
            "helper('a', max_steps=10**9)",
            "helper('a', reset=False)",
            "helper('a', stream=True)",
            "helper('a', images=[])",
            "helper('a', return_full_result=True)",
            "helper('a', None, 5)",
            "helper('a', False, True, None)",
            "helper()",
            "helper(5)",
            "helper('a', [1])",
            "helper(additional_args={})",
            "helper('a', task='b')",
        )
        for code in refused:
            with pytest.raises(AgentExecutionError, match="TypeError: The agent 'helper' takes a task"):
                executor(code)
    assert len(helper.model.seen) == len(calls)


def test_a_tool_is_not_called_with_what_it_does_not_declare(executor: LocalExecutor) -> None:
    executor.send_tools({"awaited": Awaited(lambda _: asyncio.sleep(0, 1))})
    with pytest.raises(AgentExecutionError, match="unexpected keyword argument 'sanitize_inputs_outputs'"):
        executor("awaited(1, sanitize_inputs_outputs=True)")


# What is awaited


@pytest.mark.parametrize("place", ["auto", "host", "ship"])
def test_a_coroutine_function_as_a_tool(executor: LocalExecutor, place: Any) -> None:
    before, executor._provision.placement = executor._provision.placement, Placement(place, print)
    try:
        agent = agent_of(
            executor,
            "import asyncio\nawait asyncio.sleep(0)\nprint(doubling(number=4))",
            "from concurrent.futures import ThreadPoolExecutor\n"
            "final_answer([doubling(5), *ThreadPoolExecutor(3).map(doubling, range(3))])",
            tools=[Doubling()],
        )
        assert agent.run("Double.") == [10, 0, 2, 4]
        assert "8" in agent.memory.steps[1].observations
        assert ("HostTool" in executor("type(doubling).__name__").output) is (place == "host")
    finally:
        executor._provision.placement = before


def test_what_a_tool_opened_in_one_call_is_there_in_the_next(executor: LocalExecutor) -> None:
    """As an HTTP client is, which belongs to the loop that it was made in."""
    opened: dict[str, Any] = {}

    async def use(number: int) -> Any:
        lock = opened.setdefault("lock", asyncio.Lock())
        loop = opened.setdefault("loop", asyncio.get_running_loop())
        async with lock:
            await asyncio.sleep(0)
        return [number, loop is asyncio.get_running_loop(), tenant.get()]

    token = tenant.set("acme")
    try:
        agent = agent_of(executor, "x = awaited(1)", "final_answer([x, awaited(2)])", tools=[Awaited(use)])
        assert agent.run("Use.") == [[1, True, "acme"], [2, True, "acme"]]
    finally:
        tenant.reset(token)


async def test_awaited_code_has_its_tools_awaited_in_the_same_loop(executor: LocalExecutor) -> None:
    here = asyncio.get_running_loop()
    token = tenant.set("acme")

    async def look(number: int) -> Any:
        await asyncio.sleep(0)
        return [number, asyncio.get_running_loop() is here, tenant.get()]

    await executor.asend_tools({"awaited": Awaited(look)})
    assert (await executor.arun("awaited(1)")).output == "[1, True, 'acme']"
    events = [event async for event in executor.astream("awaited(2)")]
    assert events[-1].output == "[2, True, 'acme']"
    # Called as a function here, the loop stands still: the tool has another one, and nobody waits for ever.
    assert executor.run_code_raise_errors("awaited(3)", timeout=30).output == "[3, False, 'acme']"
    assert (await asyncio.to_thread(executor, "awaited(4)")).output == "[4, False, 'acme']"
    tenant.reset(token)


def test_errors_and_hanging_coroutines(executor: LocalExecutor) -> None:
    release = threading.Event()

    async def fail(number: int) -> Any:
        if number == 2:
            while not release.is_set():  # noqa: ASYNC110 an event of threads
                await asyncio.sleep(0.05)
            return None
        if number == 3:
            return await executor.arun("1")
        raise FileNotFoundError(2, "No such file", "x")

    executor.send_tools({"awaited": Awaited(fail)})
    with pytest.raises(AgentExecutionError, match=r"FileNotFoundError: \[Errno 2\]") as raised:
        executor("awaited(1)")
    assert "test_agent_tool_places.py, line" in str(raised.value)
    assert "coroutines.py" not in str(raised.value)
    with pytest.raises(ExecutionTimeout):
        executor.run_code_raise_errors("awaited(2)", timeout=0.5)
    with pytest.raises(AgentExecutionError, match="waits for this tool"):
        executor("awaited(3)")
    release.set()


def test_an_asynchronous_generator_is_refused(executor: LocalExecutor) -> None:
    class Numbers(Tool):
        name = "numbers"
        description = "Counts."
        inputs = {"number": {"type": "integer", "description": "What with"}}  # noqa: RUF012
        output_type = "any"

        def __init__(self, given: Any) -> None:
            super().__init__()
            self.given = given

        async def forward(self, number: int) -> Any:
            yield number

    executor.send_tools({"numbers": Numbers(object())})
    with pytest.raises(AgentExecutionError, match="TypeError: The tool returned an asynchronous generator"):
        executor("numbers(1)")


def test_the_loop_of_the_tools_ends_with_the_executor() -> None:
    async def hang(_: int) -> None:
        await asyncio.sleep(1000)

    with LocalExecutor(timeout=60) as executor:
        executor.send_tools({"awaited": Awaited(hang)})
        with pytest.raises(ExecutionTimeout):
            executor.run_code_raise_errors("awaited(1)", timeout=0.5)
        assert "sandkernel-tools" in {thread.name for thread in threading.enumerate()}
    # That nothing is left, each test is asked.


def test_an_interrupt_ends_a_coroutine_in_the_kernel(executor: LocalExecutor) -> None:
    class Sleeping(Tool):
        name = "sleeping"
        description = "Sleeps."
        inputs = {"number": {"type": "integer", "description": "What with"}}  # noqa: RUF012
        output_type = "any"

        async def forward(self, number: int) -> Any:
            import asyncio  # noqa: PLC0415
            import builtins  # noqa: PLC0415

            try:
                await asyncio.sleep(number)
            finally:
                builtins.ended = True

    executor.send_tools({"sleeping": Sleeping()})
    for code in ("sleeping(1000)", "import asyncio\nawait asyncio.sleep(0)\nsleeping(1000)"):
        executor("import builtins; builtins.ended = False; kept = 3")
        with pytest.raises(ExecutionTimeout) as caught:
            executor.run_code_raise_errors(code, timeout=1)
        assert not caught.value.restarted
        wait = "import time\nwhile not ended: time.sleep(0.01)\n[kept, ended]"
        assert executor(wait).output == "[3, True]"
