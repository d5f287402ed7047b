"""What smolagents finds by the installed package's entry points."""

from __future__ import annotations

from importlib.metadata import distribution, entry_points
from typing import Any

import pytest
from smolagents import CodeAgent
from smolagents.monitoring import LogLevel

import sandkernel
from executor_support import ScriptedModel

GROUP = "smolagents.executors"


def test_each_name_is_a_class_of_the_package() -> None:
    points = distribution("sandkernel").entry_points.select(group=GROUP)
    assert {point.name: point.load() for point in points} == {
        "sandkernel": sandkernel.ModalExecutor,
        "sandkernel-gateway": sandkernel.GatewayExecutor,
        "sandkernel-local": sandkernel.LocalExecutor,
        "sandkernel-modal": sandkernel.ModalExecutor,
    }


class DiscoveringAgent(CodeAgent):  # type: ignore[misc] # smolagents has no types
    """Makes its executor as smolagents' pull request 2806 has it."""

    def create_python_executor(self) -> Any:
        (point,) = entry_points(group=GROUP, name=self.executor_type)
        return point.load()(self.additional_authorized_imports, self.logger, **self.executor_kwargs)


@pytest.mark.parametrize("name", ["sandkernel", "sandkernel-local"])
@pytest.mark.usefixtures("cloud")
def test_an_agent_that_asks_for_it_by_name(name: str) -> None:
    agent = DiscoveringAgent(
        [],
        ScriptedModel("import decimal\nfinal_answer(str(decimal.Decimal(6) * 7))"),
        executor_type=name,
        executor_kwargs={"timeout": 30},
        additional_authorized_imports=["decimal"],
        verbosity_level=LogLevel.OFF,
    )
    with agent:
        assert agent.run("6 * 7") == "42"
        assert agent.python_executor.timeout == 30
        assert agent.python_executor.logger is agent.logger
        # It is found again when the agent is loaded: without `executor=`, nothing else is written down.
        saved = agent.to_dict()
        assert (saved["executor_type"], saved["executor_kwargs"]) == (name, {"timeout": 30})
