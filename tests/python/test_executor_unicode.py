"""Text that is no valid Unicode: a lone surrogate is replaced by U+FFFD, and all around it is there."""

from __future__ import annotations

import io
import pathlib
import pickle
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from smolagents import CodeAgent
from smolagents.memory import ActionStep
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.utils import AgentExecutionError

from executor_support import ScriptedModel, running_gateway
from sandkernel import GatewayExecutor, LocalExecutor
from sandkernel.exceptions import ConfigurationError
from sandkernel.sandbox import final_answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandkernel import KernelExecutor

# As source, so that the code itself is valid: the kernel makes the surrogate.
LONE = r"\ud800"
GONE = "\ufffd"


@pytest.fixture(scope="module", params=["local", "stock gateway"])
def kernel(request: pytest.FixtureRequest) -> Iterator[KernelExecutor]:
    if request.param == "local":
        with LocalExecutor(timeout=60) as executor:
            yield executor
    else:
        with (
            running_gateway() as gateway,
            GatewayExecutor(url=gateway.url, token=gateway.token, timeout=60) as executor,
        ):
            yield executor


def assert_serves(executor: KernelExecutor) -> None:
    """The next execution shows what it prints, and nothing of the one before."""
    result = executor("print('next')\n6 * 7")
    assert (result.logs, result.output) == ("next\n", "42")
    assert executor.last_execution.stderr == ""


@pytest.mark.parametrize("lone", [r"\ud800", r"\udbff", r"\udc00", r"\udcff", r"\udfff"])
def test_printed(kernel: KernelExecutor, lone: str) -> None:
    assert (
        kernel(f"print('before')\nprint('a{lone}b')\nprint('after é')").logs == f"before\na{GONE}b\nafter é\n"
    )
    assert kernel.last_execution.stderr == ""
    assert_serves(kernel)


def test_written_to_stderr(kernel: KernelExecutor) -> None:
    kernel(f"import sys\nprint('a{LONE}b', file=sys.stderr)\nprint('out')")
    assert kernel.last_execution.stderr == f"a{GONE}b\n"
    assert kernel.last_execution.stdout == "out\n"
    assert_serves(kernel)


def test_printed_by_a_thread(kernel: KernelExecutor) -> None:
    start = "thread.start()\nthread.join()"
    code = f"import threading\nthread = threading.Thread(target=print, args=('a{LONE}b',))\n{start}"
    assert kernel(code).logs == f"a{GONE}b\n"


def test_shown_as_the_result(kernel: KernelExecutor) -> None:
    code = f"class Shown:\n    def __repr__(self): return 'a{LONE}b'\nprint('printed')\nShown()"
    result = kernel(code)
    assert (result.output, result.logs) == (f"a{GONE}b", "printed\n")
    assert kernel(f"display({{'text/plain': 'a{LONE}b'}}, raw=True)").logs == f"a{GONE}b\n"
    # The text that Python itself shows has it escaped.
    assert kernel(f"'a{LONE}b'").output == rf"'a{LONE}b'"
    assert_serves(kernel)


def test_in_an_exceptions_message(kernel: KernelExecutor) -> None:
    with pytest.raises(AgentExecutionError) as raised:
        kernel(f"print('so far')\nraise ValueError('a{LONE}b')")
    assert str(raised.value).endswith(f"ValueError: a{GONE}b")
    assert kernel.last_execution.error.name == "ValueError"
    assert kernel.last_execution.error.value == f"a{GONE}b"
    assert kernel.state["_print_outputs"] == "so far\n"
    assert_serves(kernel)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (f"'a{LONE}b'", f"a{GONE}b"),
        (f"pathlib.Path('a{LONE}b')", pathlib.Path(f"a{GONE}b")),
        # Where nothing prints them as they are they are kept: keys that differ in them alone stay apart.
        (rf"{{'a{LONE}': 1, 'a\ud801': ['{LONE}']}}", {"a\ud800": 1, "a" + "\ud801": ["\ud800"]}),
        (r"'a\U0001f600b'", "a\U0001f600b"),
    ],
)
def test_in_the_final_answer(kernel: KernelExecutor, answer: str, value: object) -> None:
    kernel.send_tools(agent_of(kernel).tools)
    result = kernel(f"import pathlib\nprint('{LONE}')\nfinal_answer({answer})")
    assert result.is_final_answer
    assert result.output == value
    assert result.logs == f"{GONE}\n"
    assert_serves(kernel)


def test_in_a_final_answer_that_was_pickled() -> None:
    payload = pickle.dumps("a\ud800b")
    with pytest.warns(FutureWarning, match="Loading a pickle"):
        decoded = final_answer.decode("pickle", [payload], allow_pickle=True)
    assert decoded == f"a{GONE}b"


def test_in_a_variable(kernel: KernelExecutor) -> None:
    kernel.send_variables({"sent": "a\ud800b"})
    assert kernel("[ord(character) for character in sent]").output == "[97, 55296, 98]"


def test_in_the_code_it_is_refused(kernel: KernelExecutor) -> None:
    with pytest.raises(ConfigurationError, match="not valid Unicode"):
        kernel("print('\ud800')")
    assert_serves(kernel)


def test_beside_what_json_has_no_form_for(kernel: KernelExecutor) -> None:
    """What jupyter_client cleans for JSON is cleaned here too."""
    data = f"{{'text': 'a{LONE}b', 'number': float('nan'), 'tuple': (1, 2)}}"
    kernel(f"display({{'application/json': {data}, 'text/plain': 'a{LONE}b'}}, raw=True)")
    (result,) = kernel.last_execution.results
    # JSON is for programs: it is given as it came.
    assert result.json == {"text": "a\ud800b", "number": "nan", "tuple": [1, 2]}
    assert result.text == f"a{GONE}b"


def test_kernels_pack_once(kernel: KernelExecutor) -> None:
    """A second executor of the same kernel wraps nothing that is wrapped."""
    code = "get_ipython().kernel.session.pack.__closure__[0].cell_contents.__module__"
    kernel("import sys\nsys.modules['_sandkernel']._send_any_text(get_ipython().kernel.session)")
    assert kernel(code).output in (
        "'jupyter_client.session'",
        "'sandkernel.gateway.kernel_tuning.publishing'",
    )


def agent_of(executor: KernelExecutor, *steps: str) -> CodeAgent:
    """An agent that logs all to a console as strict as a terminal's."""
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict"), width=200)
    return CodeAgent(
        [],
        ScriptedModel(*steps),
        executor=executor,
        logger=AgentLogger(LogLevel.DEBUG, console=console),
    )


def logged(agent: CodeAgent) -> str:
    file = agent.logger.console.file
    file.flush()
    return file.buffer.getvalue().decode()


@pytest.mark.parametrize("answer", [f"'answer a{LONE}b'", f"['answer a{LONE}b']"])
def test_a_whole_run_of_an_agent(kernel: KernelExecutor, answer: str) -> None:
    agent = agent_of(
        kernel,
        f"print('printed a{LONE}b')\nprint('c{LONE}' * 50_000)\nclass Shown:\n"
        f"    def __repr__(self): return 'shown a{LONE}b' * 10_000\nShown()",
        f"raise ValueError('raised a{LONE}b')",
        f"final_answer({answer})",
    )
    agent.run("Do it.", additional_args={"sent": "a\ud800b"})
    steps = [step for step in agent.memory.steps if isinstance(step, ActionStep)]
    assert len(steps) == 3
    assert f"printed a{GONE}b" in steps[0].observations
    assert f"shown a{GONE}b" in steps[0].observations
    assert f"raised a{GONE}b" in steps[1].error.message
    assert steps[2].is_final_answer
    # All that the model is shown can be sent to one.
    assert [seen.encode() for seen in agent.model.seen]
    assert "Final answer: " in logged(agent)
    agent.replay()
