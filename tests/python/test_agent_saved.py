"""A saved agent must not come back with an executor in the host's process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from smolagents import CodeAgent, Tool, ToolCallingAgent, tool
from smolagents import models as smolagents_models

from executor_support import ScriptedModel, agent_of
from sandkernel import GatewayExecutor, KernelExecutor, LocalExecutor
from sandkernel.exceptions import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def loadable_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """smolagents loads only the models that it knows."""
    from smolagents import agents  # noqa: PLC0415

    registry = {**smolagents_models.MODEL_REGISTRY, "ScriptedModel": ScriptedModel}
    monkeypatch.setattr(agents, "MODEL_REGISTRY", registry)
    monkeypatch.setattr(
        ScriptedModel, "from_dict", classmethod(lambda cls, _: cls("final_answer(double(offset(20)))"))
    )


@tool
def double(number: int) -> int:
    """Double a number.

    Args:
        number: The number.
    """
    return number * 2


class Offset(Tool):
    name = "offset"
    description = "Adds one."
    inputs = {"number": {"type": "integer", "description": "A number"}}  # noqa: RUF012
    output_type = "integer"

    def __init__(self, offset: int = 1) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, number: int) -> int:
        return number + self.offset


def saved(agent: CodeAgent) -> dict[str, Any]:
    text = json.dumps(agent.to_dict(), default=str)
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def test_a_saved_agent_is_not_loaded_without_an_executor(executor: LocalExecutor) -> None:
    # Nothing but `executor=` was given, and the agent has never run.
    record = saved(agent_of(executor))
    assert record["executor_type"] == "sandkernel.LocalExecutor"
    with pytest.raises(ValueError, match=r"Unsupported executor type: sandkernel\.LocalExecutor"):
        CodeAgent.from_dict(record)


def test_a_saved_agent_is_loaded_with_an_executor_of_its_settings() -> None:
    with LocalExecutor(["json"], timeout=7, max_logs_length=100) as first:
        record = saved(agent_of(first, tools=[double, Offset(offset=5)]))
    assert record["executor_kwargs"] == {
        "additional_imports": ["json"],
        "allow_pickle": False,
        "timeout": 7,
        "max_logs_length": 100,
    }
    with LocalExecutor(**record["executor_kwargs"]) as second:
        agent = second.load_agent(record)
        assert agent.python_executor is second
        assert agent.run("Again.") == 42
        again = saved(agent)
        assert again["executor_type"] == "sandkernel.LocalExecutor"
        assert {tool["name"] for tool in again["tools"]} == {"double", "offset", "final_answer"}
        assert second.load_agent(again).run("Once more.") == 42


def test_a_saved_agent_on_a_gateway_holds_no_token(executor: LocalExecutor) -> None:
    endpoint = executor._sandbox.endpoint
    with GatewayExecutor(url=endpoint.url, token=endpoint.token) as remote:
        record = saved(agent_of(remote))
    assert endpoint.token not in json.dumps(record)
    assert record["executor_type"] == "sandkernel.GatewayExecutor"
    with GatewayExecutor(**record["executor_kwargs"], token=endpoint.token) as again:
        assert again("1 + 1").output == "2"


def test_a_subclass_of_the_agent_is_found(executor: LocalExecutor) -> None:
    class Special(CodeAgent):
        def __init__(self, **options: Any) -> None:
            super().__init__([], ScriptedModel(), **options)

    assert Special(executor=executor).to_dict()["executor_type"] == "sandkernel.LocalExecutor"


def test_bind_does_it_in_the_open(executor: LocalExecutor) -> None:
    agent = CodeAgent([], ScriptedModel())
    agent.python_executor = executor
    assert agent.to_dict()["executor_type"] == "local"
    executor.bind(agent)
    assert agent.to_dict()["executor_type"] == "sandkernel.LocalExecutor"


def test_other_agents_and_other_questions_change_nothing(executor: LocalExecutor) -> None:
    other = CodeAgent([], ScriptedModel())

    class Holder:
        def __init__(self, executor: LocalExecutor) -> None:
            self.executor = executor or None

    assert Holder(executor).executor is executor
    assert other.to_dict()["executor_type"] == "local"


class OwnModel(ScriptedModel):
    """A model whose class smolagents does not know."""


class OwnAgent(CodeAgent):
    """An agent whose class smolagents does not know."""


def own(*steps: str) -> OwnModel:
    return OwnModel(*steps)


@pytest.mark.parametrize("kind", ["dictionary", "folder"])
def test_an_agent_with_a_model_of_ones_own_is_loaded(
    executor: LocalExecutor, tmp_path: Path, kind: str
) -> None:
    agent = CodeAgent([double], own(), executor=executor, max_steps=3, planning_interval=7, name="mine")
    agent.prompt_templates["system_prompt"] = "Answer in code. {{code_block_opening_tag}}"
    if kind == "folder":
        agent.save(tmp_path / "agent")
        record: Any = tmp_path / "agent"
    else:
        record = saved(agent)
    with pytest.raises(ConfigurationError, match=r"class 'OwnModel'.* give load_agent a model="):
        executor.load_agent(record)
    loaded = executor.load_agent(record, model=own("final_answer(double(21))"), planning_interval=None)
    assert (loaded.max_steps, loaded.name, loaded.planning_interval) == (3, "mine", None)
    assert loaded.prompt_templates == agent.prompt_templates
    assert loaded.run("Go.") == 42
    assert saved(loaded)["tools"] == saved(agent)["tools"]


@pytest.mark.parametrize("kind", ["dictionary", "folder"])
def test_managed_agents_are_loaded_each_with_a_kernel_of_its_own(tmp_path: Path, kind: str) -> None:
    with LocalExecutor(timeout=60) as first:
        coder = CodeAgent([], own(), executor=first.new_kernel(), name="coder", description="Codes.")
        caller = ToolCallingAgent([double], own(), name="caller", description="Calls tools.")
        agent = CodeAgent([], own(), executor=first, managed_agents=[coder, caller])
        coder.python_executor.bind(coder)
        record: Any = saved(agent)
        if kind == "folder":
            agent.save(tmp_path / "agent")
            record = tmp_path / "agent"
    with LocalExecutor(timeout=60) as second:
        model = own("x = coder('Add.')", "final_answer(41)", "final_answer('41' in x)")
        loaded = second.load_agent(record, model=model)
        assert sorted(loaded.managed_agents) == ["caller", "coder"]
        assert type(loaded.managed_agents["caller"]) is ToolCallingAgent
        own_kernel = loaded.managed_agents["coder"].python_executor
        assert isinstance(own_kernel, KernelExecutor)
        assert own_kernel is not second
        assert loaded.run("Go.") is True
        # A managed agent without code of its own keeps the executor that it was saved with.
        assert loaded.managed_agents["caller"].tools["double"](4) == 8


def test_a_managed_agent_of_a_class_of_ones_own(executor: LocalExecutor) -> None:
    inner = OwnAgent([], own(), executor=executor.new_kernel(), name="inner", description="Is inside.")
    record = saved(CodeAgent([], own(), executor=executor, managed_agents=[inner]))
    with pytest.raises(ConfigurationError, match=r"class 'OwnAgent'.*managed_agents="):
        executor.load_agent(record, model=own())
    loaded = executor.load_agent(record, model=own("final_answer(7)"), managed_agents=[inner])
    assert loaded.managed_agents == {"inner": inner}
    assert loaded.run("Go.") == 7


def test_tools_that_are_given_are_not_made_of_code_that_was_saved(executor: LocalExecutor) -> None:
    record = saved(CodeAgent([double], own(), executor=executor))
    for each in record["tools"]:
        each["code"] = "raise SystemExit('run')"
    loaded = executor.load_agent(record, model=own("final_answer(double(4))"), tools=[double])
    assert loaded.run("Go.") == 8


@pytest.mark.parametrize("record", [{}, {"model": 3}, {"model": {"class": "x"}, "tools": []}, "/nowhere"])
def test_what_is_no_saved_agent_is_refused(executor: LocalExecutor, record: Any) -> None:
    with pytest.raises(ConfigurationError):
        executor.load_agent(record)
