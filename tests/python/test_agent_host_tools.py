"""Whole runs of a CodeAgent whose tools are here and there: MCP servers, managed agents, open connections."""

from __future__ import annotations

import contextlib
import re
import runpy
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from mcp import StdioServerParameters
from PIL import Image
from smolagents import CodeAgent, Tool, ToolCollection, tool
from smolagents.memory import ActionStep

from executor_support import ScriptedModel, agent_of
from sandkernel import LocalExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator

MCP_SERVER = StdioServerParameters(
    command=sys.executable, args=[str(Path(__file__).with_name("mcp_server.py"))]
)


@tool
def double(number: int) -> int:
    """Double a number.

    Args:
        number: The number.
    """
    return number * 2


class Sales(Tool):
    name = "sales"
    description = "Looks up sales in the company's database."
    inputs = {"city": {"type": "string", "description": "Where"}}  # noqa: RUF012
    output_type = "object"

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self.connection = connection

    def forward(self, city: str) -> list[tuple[int, float]]:
        return self.connection.execute("select year, amount from sales where city = ?", (city,)).fetchall()


class Brightness(Tool):
    name = "brightness"
    description = "Says how bright an image is."
    inputs = {"image": {"type": "image", "description": "The image"}}  # noqa: RUF012
    output_type = "number"

    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, image: Image.Image) -> float:
        self.seen.append(image)
        return float(image.convert("L").getpixel((0, 0)))


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        connection.execute("create table sales (city text, year integer, amount real)")
        rows = [("Oslo", 2025, 1.5), ("Oslo", 2026, 2.5), ("Rome", 2026, 9.0)]
        connection.executemany("insert into sales values (?, ?, ?)", rows)
        yield connection


@pytest.fixture(scope="module")
def own() -> Iterator[LocalExecutor]:
    """The executor of the managed agents."""
    with LocalExecutor(timeout=60) as executor:
        yield executor


@pytest.fixture(scope="module")
def weather() -> Iterator[list[Tool]]:
    """The tools of an MCP server, which runs in a process of its own."""
    with ToolCollection.from_mcp(MCP_SERVER, trust_remote_code=True, structured_output=False) as collection:
        yield collection.tools


def test_tools_of_an_mcp_server(executor: LocalExecutor, weather: list[Tool]) -> None:
    executor.send_tools({each.name: each for each in weather})
    assert executor("temperature(city='Oslo')").output == "'4 degrees in Oslo'"
    assert "it is under water" in executor("temperature(city='Atlantis')").output


def test_a_managed_agent_with_an_executor_of_its_own(executor: LocalExecutor, own: LocalExecutor) -> None:
    helper = agent_of(
        own,
        "final_answer(f'{double(given)} by {word}')",
        tools=[double],
        name="helper",
        description="Helps.",
        provide_run_summary=True,
    )
    agent = agent_of(
        executor,
        "report = helper(task='Double it.', additional_args={'given': 21, 'word': 'helper'})",
        "final_answer(report)",
        managed_agents=[helper],
    )
    answer = agent.run("Delegate.")
    assert "42 by helper" in answer
    assert "<summary_of_work>" in answer
    assert "Double it." in helper.model.seen[0]


def test_a_managed_agent_on_its_managers_executor_is_told(executor: LocalExecutor) -> None:
    helper = agent_of(executor, name="helper", description="Helps.")
    agent = agent_of(executor, "helper('Anything.')", "final_answer('done')", managed_agents=[helper])
    assert agent.run("Delegate.") == "done"
    assert "an executor of its own, such as one of new_kernel()" in agent.model.seen[1]


def test_a_managed_agent_on_a_kernel_of_its_own_in_its_managers_sandbox(executor: LocalExecutor) -> None:
    with executor.new_kernel() as kernel:
        helper = agent_of(kernel, "final_answer(6 * 7)", name="helper", description="Helps.")
        agent = agent_of(executor, "final_answer(helper('Anything.'))", managed_agents=[helper])
        assert "42" in agent.run("Delegate.")


def test_one_run_with_everything(
    executor: LocalExecutor, own: LocalExecutor, connection: sqlite3.Connection, weather: list[Tool]
) -> None:
    seen: list[Any] = []
    analyst = agent_of(
        own,
        "final_answer(f'{len(rows)} years, {double(3)} reasons')",
        tools=[double],
        name="analyst",
        description="Analyses.",
    )
    agent = agent_of(
        executor,
        # A tool whose source is sent, one with a connection on the host, one of an MCP server.
        "rows = sales('Oslo')\nprint(double(21), rows, temperature(city='Oslo'))",
        # A managed agent, and an image as an argument.
        "from PIL import Image\n"
        "report = analyst('Why?', additional_args={'rows': rows})\n"
        "print(report, brightness(Image.new('RGB', (40, 30), 'white')), brightness(photo))",
        # A figure as the result.
        "import matplotlib.pyplot as plt\n"
        "figure, axes = plt.subplots()\naxes.plot([row[1] for row in rows])\nfigure",
        # A frame as the answer.
        "import pandas as pd\nfinal_answer(pd.DataFrame(rows, columns=['year', 'amount']))",
        tools=[double, Sales(connection), Brightness(seen), *weather],
        managed_agents=[analyst],
    )
    answer = agent.run("Explain.", additional_args={"photo": Image.new("L", (5, 5), 7)})
    steps = [step for step in agent.memory.steps if isinstance(step, ActionStep)]
    assert [step.error for step in steps] == [None] * 4
    assert "42 [(2025, 1.5), (2026, 2.5)] 4 degrees in Oslo" in steps[0].observations
    assert "2 years, 6 reasons" in steps[1].observations
    assert "255.0 7.0" in steps[1].observations
    assert [image.size for image in seen] == [(40, 30), (5, 5)]
    assert isinstance(steps[2].action_output, Image.Image)
    pd.testing.assert_frame_equal(answer, pd.DataFrame({"year": [2025, 2026], "amount": [1.5, 2.5]}))


def test_the_readmes_example() -> None:
    readme = Path(__file__).parents[2] / "README.md"
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
        if "from_mcp" in block
    )
    for stated, ours in (
        ('"sales.db"', '":memory:"'),
        ("ModalExecutor", "LocalExecutor"),
        ("trust_remote_code=True", "trust_remote_code=True, structured_output=False"),
    ):
        code = code.replace(stated, ours)
    names = {
        "sqlite3": sqlite3,
        "ToolCollection": ToolCollection,
        "parameters": MCP_SERVER,
        "LocalExecutor": LocalExecutor,
        "CodeAgent": CodeAgent,
        "Sales": Sales,
        "model": ScriptedModel("final_answer([sales('Oslo'), temperature(city='Rome')])"),
        "analyst": agent_of(None, name="analyst", description="Analyses."),
    }
    code += (
        "    connection.execute('create table sales (city, year, amount)')\n    answer = agent.run('Go.')\n"
    )
    exec(code, names)
    names["connection"].close()  # type: ignore[attr-defined]
    assert names["answer"] == [[], "4 degrees in Rome"]


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "examples" / "host_tools.py"
    runpy.run_path(str(path))["main"]()
    assert capsys.readouterr().out.endswith("Sales in Oslo grew by 1.0 million.\n")
