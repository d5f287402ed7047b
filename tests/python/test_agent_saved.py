"""A saved agent must not come back with an executor in the host's process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from smolagents import CodeAgent, Tool, tool
from smolagents import models as smolagents_models

from executor_support import ScriptedModel, agent_of
from sandkernel import GatewayExecutor, LocalExecutor


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
