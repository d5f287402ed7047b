"""Agents that share an executor: each has its own tools, and no others."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from smolagents import CodeAgent, FinalAnswerTool, Tool
from smolagents.memory import ActionStep
from smolagents.utils import AgentExecutionError

from executor_support import ScriptedModel, agent_of
from sandkernel.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandkernel import LocalExecutor


class Who(Tool):
    """Stays on the host, since it holds a key."""

    name = "who"
    description = "Says whose it is."
    inputs = {}  # noqa: RUF012
    output_type = "string"

    def __init__(self, key: str, name: str = "who") -> None:
        super().__init__()
        self.key = key
        self.name = name

    def forward(self) -> str:
        return f"{self.name} of {self.key}"


class Shipped(Tool):
    name = "shipped"
    description = "Runs in the kernel."
    inputs = {}  # noqa: RUF012
    output_type = "string"

    def forward(self) -> str:
        return "here"


class Signed(FinalAnswerTool):
    def forward(self, answer: Any) -> Any:
        return f"{answer} -- signed"


FORGE = (
    "__import__('_sandkernel_calls').calls.call"
    "({!r}, 'buffers-1', [b'{{\"value\": [[], {{}}], \"sizes\": []}}'])"
)


def steps_of(agent: Any) -> list[ActionStep]:
    return [step for step in agent.memory.steps if isinstance(step, ActionStep)]


def test_a_later_agent_has_its_own_tools_only(executor: LocalExecutor) -> None:
    first = agent_of(
        executor,
        "kept = who\nfinal_answer([who(), secret(), shipped()])",
        "final_answer([who(), secret(), shipped()])",
        tools=[Who("first"), Who("first", "secret"), Shipped()],
    )
    expected = ["who of first", "secret of first", "here"]
    assert first.run("Go on.") == expected
    second = agent_of(
        executor,
        "secret()",
        FORGE.format("secret"),
        "shipped()",
        # What the first one's code kept calls by name: what it gets is the second one's.
        "final_answer([who(), kept()])",
        tools=[Who("second"), Signed()],
    )
    assert second.run("Go on.") == "['who of second', 'who of second'] -- signed"
    errors = [step.error.message for step in steps_of(second)[:3]]
    assert "NameError: name 'secret' is not defined" in errors[0]
    assert "LookupError: There is no tool 'secret' on the host" in errors[1]
    assert "NameError: name 'shipped' is not defined" in errors[2]
    # And the first one again, with its own final answer.
    assert first.run("Again.") == expected


def test_a_variable_that_took_a_former_tools_name_stays(executor: LocalExecutor) -> None:
    agent_of(executor, "final_answer(who())", tools=[Who("first")]).run("Go on.")
    other = agent_of(executor, "who = 5", "final_answer(who)")
    assert other.run("Go on.") == 5
    assert agent_of(executor, "final_answer(who)").run("Go on.") == 5


def run_at_once(executor: LocalExecutor, second: Callable[[], object]) -> tuple[CodeAgent, Any]:
    """Have a second agent begin while a first one waits for its model; return the first, and its answer."""
    waits, goes_on = threading.Event(), threading.Event()

    class Slow(ScriptedModel):
        def generate(self, *args: Any, **options: Any) -> Any:
            if len(self.seen) == 1:
                waits.set()
                assert goes_on.wait(60)
            return super().generate(*args, **options)

    model = Slow("x = who()", "final_answer([x, who()])")
    first = CodeAgent([Who("first")], model, executor=executor, verbosity_level=0, name="analyst")
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(first.run("Go on.")))
    thread.start()
    try:
        assert waits.wait(60)
        second()
    finally:
        goes_on.set()
        thread.join(60)
    return first, answers[0]


def test_two_agents_at_once_on_one_executor(executor: LocalExecutor) -> None:
    agent = agent_of(executor, "final_answer(who())", tools=[Who("second")])

    def second() -> None:
        with pytest.raises(ConfigurationError, match=r"Another agent \(analyst\) is running.*new_kernel\(\)"):
            agent.run("Go on.", additional_args={"x": "overwritten"})
        assert agent.model.seen == []

    _, answer = run_at_once(executor, second)
    assert answer == ["who of first", "who of first"]
    # Once it is over, the second one may.
    assert agent.run("Go on.") == "who of second"


def test_two_agents_at_once_on_kernels_of_their_own(executor: LocalExecutor) -> None:
    def second() -> None:
        with executor.new_kernel() as kernel:
            agent = agent_of(kernel, "x = 5\nfinal_answer(who())", tools=[Who("second")])
            assert agent.run("Go on.") == "who of second"

    assert run_at_once(executor, second)[1] == ["who of first", "who of first"]


def test_runs_that_take_turns(executor: LocalExecutor) -> None:
    """Two streamed runs in one thread, a step of each at a time."""
    runs = [
        agent_of(
            executor, "print(who())", "print(who())", "final_answer(who())", tools=[Who(name), tool]
        ).run("Go on.", stream=True)
        for name, tool in (("first", Shipped()), ("second", Who("second", "other")))
    ]
    outputs: list[list[Any]] = [[], []]
    for _ in range(20):
        for run, output in zip(runs, outputs, strict=True):
            event = next(run, None)
            if isinstance(event, ActionStep):
                assert event.error is None
                output.append(
                    event.observations.split()[2:5] if not event.is_final_answer else event.action_output
                )
    assert outputs == [[["who", "of", name]] * 2 + [f"who of {name}"] for name in ("first", "second")]


def test_a_run_within_a_callback_of_another(executor: LocalExecutor) -> None:
    inner = agent_of(executor, "final_answer(who())", tools=[Who("inner")])
    answers: list[Any] = []

    def ask(step: Any, agent: Any) -> None:  # noqa: ARG001 as smolagents calls it
        if not answers:
            answers.append(inner.run("Check."))

    outer = agent_of(
        executor, "who()", "final_answer(who())", tools=[Who("outer")], step_callbacks={ActionStep: ask}
    )
    assert outer.run("Go on.") == "who of outer"
    assert answers == ["who of inner"]


def test_a_run_that_ended_with_its_last_step_or_an_error_holds_nobody_up(executor: LocalExecutor) -> None:
    class Broken(ScriptedModel):
        def generate(self, *_: Any, **__: Any) -> Any:
            raise OSError("no network")

    first = CodeAgent([Who("first")], Broken(), executor=executor, verbosity_level=0)
    with pytest.raises(Exception, match="no network"):
        first.run("Go on.")
    second = agent_of(executor, "who()", "done", tools=[Who("second")], max_steps=1)
    thread = threading.Thread(target=lambda: second.run("Go on."))
    thread.start()
    thread.join(60)
    assert agent_of(executor, "final_answer(who())", tools=[Who("third")]).run("Go on.") == "who of third"


def test_an_agent_that_is_gone_is_forgotten(executor: LocalExecutor) -> None:
    for name in ("first", "second"):
        agent_of(executor, "final_answer(who())", tools=[Who(name)]).run("Go on.")
    import gc  # noqa: PLC0415

    gc.collect()
    assert len(executor._runs._tools) == 0


def test_tools_that_are_given_by_hand_are_added(executor: LocalExecutor) -> None:
    """As with smolagents' remote executors; a run's own, with a `final_answer`, are all that there are."""
    agent = agent_of(executor, "final_answer(1)", tools=[Who("first")])
    agent.run("Go on.")
    executor.send_tools({"shipped": Shipped()})
    executor.send_tools({"other": Who("hand", "other")})
    assert executor("[who(), shipped(), other()]").output == "['who of first', 'here', 'other of hand']"
    agent_of(executor, "final_answer(1)").run("Go on.")
    for name in ("who", "shipped", "other"):
        with pytest.raises(AgentExecutionError, match=f"NameError: name '{name}'"):
            executor(f"({name})")  # alone, `who` is a command of IPython's


def test_after_a_restart_only_those_of_the_run_are_there(executor: LocalExecutor) -> None:
    agent_of(executor, "final_answer(1)", tools=[Who("first"), Who("first", "secret")]).run("Go on.")
    agent = agent_of(
        executor,
        "import os; os._exit(1)",
        "secret()",
        FORGE.format("secret"),
        "final_answer(who())",
        tools=[Who("second")],
    )
    assert agent.run("Go on.") == "who of second"
    errors = [step.error.message for step in steps_of(agent)[1:3]]
    assert "NameError" in errors[0]
    assert "LookupError" in errors[1]
    with executor.new_kernel(inherit=True) as kernel:
        assert kernel("who()").output == "'who of second'"
        with pytest.raises(AgentExecutionError, match="LookupError"):
            kernel(FORGE.format("secret"))
    (outcome,) = executor.run_many(["[who(), 'secret' in globals()]"])
    assert outcome.result().output == "['who of second', False]"
