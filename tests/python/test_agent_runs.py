"""Whole runs of a CodeAgent whose model has a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from smolagents import FinalAnswerTool, tool
from smolagents.memory import ActionStep
from smolagents.monitoring import AgentLogger, LogLevel

from executor_support import agent_of
from sandkernel import LocalExecutor
from sandkernel.exceptions import PayloadError
from sandkernel.pytest_plugin.model import ScriptedModel
from waiting import time_limits

if TYPE_CHECKING:
    from smolagents import CodeAgent
    from smolagents.models import ChatMessage


@tool
def double(number: int) -> int:
    """Double a number.

    Args:
        number: The number.
    """
    return number * 2


def steps_of(agent: CodeAgent) -> list[ActionStep]:
    return [step for step in agent.memory.steps if isinstance(step, ActionStep)]


def test_ten_runs_of_one_agent(executor: LocalExecutor) -> None:
    agent = agent_of(executor, *(f"final_answer(double({number}))" for number in range(10)), tools=[double])
    assert [agent.run("Double it.") for _ in range(10)] == [number * 2 for number in range(10)]
    assert type(agent.tools["final_answer"]) is FinalAnswerTool


def test_state_is_kept_between_steps(executor: LocalExecutor) -> None:
    agent = agent_of(
        executor,
        "import numpy as np\nvalues = np.arange(5)\nprint('made', len(values))",
        "total = int(values.sum())\ntotal",
        "final_answer({'total': total, 'mean': float(values.mean())})",
    )
    assert agent.run("Sum up.") == {"total": 10, "mean": 2.0}
    first, second, last = steps_of(agent)
    assert "made 5" in first.observations
    assert "Last output from code snippet:\n10" in second.observations
    assert last.is_final_answer


def test_an_error_is_shown_with_what_was_printed_and_mended(executor: LocalExecutor) -> None:
    agent = agent_of(executor, "print('so far')\nnumber = int('seven')", "final_answer(7)")
    assert agent.run("Give a number.") == 7
    failed = steps_of(agent)[0]
    assert failed.observations == "Execution logs:\nso far\n"
    assert "ValueError: invalid literal for int() with base 10: 'seven'" in failed.error.message
    seen = agent.model.seen[1]
    assert "so far" in seen
    assert "ValueError: invalid literal" in seen
    assert "\x1b" not in seen
    assert "ipykernel" not in seen


class HurriesOnce(ScriptedModel):
    """Has an executor's first step end in time; not the tools that are sent before it, nor the next step."""

    def __init__(self, executor: LocalExecutor, limit: float, *steps: str) -> None:
        super().__init__(*steps)
        self.executor = executor
        self.limit = limit

    def generate(self, messages: list[ChatMessage], **options: Any) -> ChatMessage:
        self.executor.timeout = 60 if self.seen else self.limit
        return super().generate(messages, **options)


def test_a_timeout_is_shown_and_the_run_goes_on(executor: LocalExecutor) -> None:
    for limit in time_limits():
        agent = agent_of(executor)
        agent.model = HurriesOnce(
            executor,
            limit,
            "x = 5\nprint('waiting', flush=True)\nwhile True: pass",
            "final_answer(globals().get('x'))",
        )
        answer = agent.run("Wait.")
        if "waiting" in agent.model.seen[1]:
            break
    assert f"longer than its time limit of {limit:g} s" in agent.model.seen[1]
    assert answer == 5


def test_a_dead_kernel_is_shown_and_the_tools_are_back(executor: LocalExecutor) -> None:
    agent = agent_of(
        executor,
        "x = 1\nimport os; os._exit(1)",
        "print('x' in globals())\ndouble(sent)",
        "final_answer('done')",
        tools=[double],
    )
    assert agent.run("Survive.", additional_args={"sent": 4}) == "done"
    assert "The kernel died" in agent.model.seen[1]
    step = steps_of(agent)[1]
    assert "False" in step.observations
    assert "Last output from code snippet:\n8" in step.observations
    assert "restarted since" not in step.observations


def test_additional_arguments_are_variables(executor: LocalExecutor) -> None:
    agent = agent_of(executor, "final_answer(sorted(numbers))")
    assert agent.run("Sort.", additional_args={"numbers": [3, 1, 2]}) == [1, 2, 3]


def test_an_argument_that_cannot_be_sent_is_named(executor: LocalExecutor) -> None:
    agent = agent_of(executor, "final_answer(1)")
    with pytest.raises(PayloadError, match="'client' of type object"):
        agent.run("Call.", additional_args={"client": object()})


def test_a_subclass_of_the_final_answer_tool(executor: LocalExecutor) -> None:
    class SignedFinalAnswerTool(FinalAnswerTool):
        def forward(self, answer: str) -> str:
            return f"{answer} -- signed"

    agent = agent_of(
        executor, "final_answer('text')", "final_answer('text')", tools=[SignedFinalAnswerTool()]
    )
    assert agent.run("Sign.") == "text -- signed"
    assert agent.run("Sign.") == "text -- signed"


def test_two_agents_share_an_executor(executor: LocalExecutor) -> None:
    first = agent_of(executor, "shared = double(4)\nfinal_answer(1)", tools=[double])
    second = agent_of(executor, "final_answer(shared)")
    first.run("Leave something.")
    assert second.run("Take it.") == 8


def test_streamed_runs(executor: LocalExecutor) -> None:
    agent = agent_of(executor, "print('step')", "final_answer('streamed')")
    events = list(agent.run("Stream.", stream=True))
    assert events[-1].output == "streamed"


def test_the_agents_context_manager_ends_the_executor() -> None:
    executor = LocalExecutor([], AgentLogger(LogLevel.OFF))
    with agent_of(executor, "final_answer(1)") as agent:
        assert agent.run("Once.") == 1
    assert executor._sandbox._process.terminated


def test_very_long_output_is_bounded_for_the_model(executor: LocalExecutor) -> None:
    agent = agent_of(executor, "for i in range(50_000): print('line', i)", "final_answer(1)")
    agent.run("Print.")
    assert len(steps_of(agent)[0].observations) < 21_000
    assert "line 49999" in agent.model.seen[1]
