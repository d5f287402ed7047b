"""Kernels that run Python and are no ipykernel: what works there, and what is refused at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from smolagents import FinalAnswerTool, Tool, UserInputTool, tool
from smolagents.utils import AgentExecutionError

from executor_support import StockGateway, agent_of
from other_kernels import PYTHONS, with_other_kernels
from sandkernel import ExecutionTimeout, GatewayExecutor, KernelDied, Session
from sandkernel.exceptions import SandboxFileNotFoundError, UnsupportedKernelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT_ONCE = 30.0


@pytest.fixture(scope="module")
def gateway() -> Iterator[StockGateway]:
    with with_other_kernels("gateway") as gateway:
        yield gateway


@pytest.fixture(scope="module", params=PYTHONS)
def python(gateway: StockGateway, request: pytest.FixtureRequest) -> Iterator[GatewayExecutor]:
    options = {"kernel_name": request.param, "environment": {"SANDKERNEL_GIVEN": "here"}}
    with GatewayExecutor(url=gateway.url, token=gateway.token, timeout=60, **options) as python:
        python.send_tools({"final_answer": FinalAnswerTool()})
        yield python


def test_code_output_and_errors(python: GatewayExecutor) -> None:
    result = python("kept = 20\nprint('here')\nkept + 1")
    assert (result.output, result.logs) == ("21", "here\n")
    with pytest.raises(AgentExecutionError, match="ZeroDivisionError: division by zero"):
        python("print('before')\n1 / 0")
    assert python.state["_print_outputs"] == "before\n"
    assert python.last_execution is not None
    assert python.last_execution.error is not None
    assert python.last_execution.error.name == "ZeroDivisionError"
    assert python("kept").output == "20"
    assert python.is_alive()


@pytest.mark.parametrize(
    "value", ["text", {"a": [1, 2.5, None]}, "large " * 500_000], ids=["text", "dict", "large"]
)
def test_a_final_answer(python: GatewayExecutor, value: object) -> None:
    python.send_variables({"value": value})
    result = python("print('before')\nfinal_answer(value)\nprint('after')")
    assert result.is_final_answer
    assert (result.output, result.logs) == (value, "before\n")


def test_answers_that_follow_each_other(python: GatewayExecutor) -> None:
    assert [python(f"final_answer({number})").output for number in range(3)] == [0, 1, 2]


def test_variables(python: GatewayExecutor) -> None:
    numbers = np.arange(3_000_000)
    python.send_variables({"numbers": numbers, "word": "ä\ud800"})
    assert python("int(numbers.sum())").output == str(numbers.sum())
    assert python("ascii(word)").output.strip("'\"") == ascii("ä\ud800")[1:-1].replace("\\", "\\\\")
    answer = python("final_answer(numbers)").output
    assert np.array_equal(answer, numbers)


@tool
def shout(text: str) -> str:
    """Return a text in capital letters.

    Args:
        text: The text.
    """
    return text.upper()


def test_a_tool_that_is_sent(python: GatewayExecutor) -> None:
    python.send_tools({"shout": shout})
    assert python("shout('ready')").output == "'READY'"


def test_the_environment(python: GatewayExecutor) -> None:
    assert python("import os\nos.environ['SANDKERNEL_GIVEN']").output == "'here'"


def test_a_package_that_is_there(python: GatewayExecutor) -> None:
    assert python.install_packages(["numpy"]) == []


def test_files(python: GatewayExecutor, tmp_path: Path) -> None:
    contents = bytes(range(256)) * 40_000
    entry = python.files.write(tmp_path / "directory" / "file", contents)
    assert entry.size == len(contents)
    assert python.files.read(tmp_path / "directory" / "file") == contents
    assert (tmp_path / "directory" / "file").read_bytes() == contents
    python.files.download(tmp_path / "directory", tmp_path / "copy")
    assert (tmp_path / "copy" / "file").read_bytes() == contents
    assert [each.path for each in python.files.list(tmp_path / "directory")] == [
        str(tmp_path / "directory" / "file")
    ]
    with pytest.raises(SandboxFileNotFoundError):
        python.files.read(tmp_path / "missing")
    python.files.remove(tmp_path / "directory", recursive=True)
    assert not (tmp_path / "directory").exists()


def test_files_of_a_session(gateway: StockGateway, python: GatewayExecutor, tmp_path: Path) -> None:
    name = python._session.kernel_name  # type: ignore[union-attr]
    with Session.connect(gateway.url, gateway.token, kernel_name=name) as session:
        session.files.write(tmp_path / "file", b"contents")
        assert session.files.read(tmp_path / "file") == b"contents"


class Counter(Tool):
    name = "counter"
    description = "Counts."
    inputs: dict[str, Any] = {}  # noqa: RUF012
    output_type = "integer"

    def __init__(self, start: int) -> None:
        super().__init__()
        self.count = start

    def forward(self) -> int:
        return self.count


@pytest.mark.parametrize("given", [Counter(3), UserInputTool()], ids=["with arguments", "asks the user"])
def test_a_tool_that_stays_on_the_host_is_refused_at_once(python: GatewayExecutor, given: Tool) -> None:
    began = time.monotonic()
    with pytest.raises(UnsupportedKernelError, match=f"by way of ipykernel.*{given.name!r}"):
        python.send_tools({given.name: given})
    assert time.monotonic() - began < AT_ONCE
    assert python("6 * 7").output == "42"


def test_an_agent(python: GatewayExecutor) -> None:
    agent = agent_of(python, "word = shout('hello')\nprint(word)", "final_answer(word)", tools=[shout])
    assert agent.run("What is it?") == "HELLO"
    assert "HELLO" in agent.model.seen[1]
    agent = agent_of(python, "final_answer(given)")
    assert agent.run("What is it?", additional_args={"given": [1, 2]}) == [1, 2]


def test_further_kernels(python: GatewayExecutor) -> None:
    python.send_variables({"base": 10})
    outcomes = python.run_many(["base + 1", "final_answer(base + 2)"], max_kernels=1)
    assert [outcome.result().output for outcome in outcomes] == ["11", 12]


def test_a_kernel_that_dies_has_everything_again(python: GatewayExecutor) -> None:
    python.send_variables({"base": 10})
    with pytest.raises(KernelDied):
        python("import os\nos._exit(1)")
    assert python("final_answer(base)").output == 10


def test_a_time_limit(python: GatewayExecutor) -> None:
    began = time.monotonic()
    # The interrupt ends the whole of xeus-python: that is seen, or a restart comes before.
    with pytest.raises((ExecutionTimeout, KernelDied)):
        python.run_code_raise_errors("import time\ntime.sleep(300)", timeout=2)
    assert time.monotonic() - began < 2 * AT_ONCE
    assert python("final_answer('next')").output == "next"
