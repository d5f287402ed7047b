"""Kernels that lose their state: what they need is sent again, and the model is told once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from smolagents import FinalAnswerTool, tool
from smolagents.utils import AgentExecutionError

from sandkernel import LocalExecutor
from sandkernel.exceptions import ExecutionTimeout, KernelDied
from waiting import UNHURRIED, time_limits, wait_for_file, write_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@tool
def double(number: int) -> int:
    """Double a number.

    Args:
        number: The number.
    """
    return number * 2


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    with LocalExecutor(timeout=60, session_options={"interrupt_grace": 1}) as executor:
        yield executor


@pytest.fixture(autouse=True)
def prepared(executor: LocalExecutor) -> None:
    prepare(executor)


def prepare(executor: LocalExecutor) -> None:
    executor.send_variables({"sent": (1, 2)})
    executor.send_tools({"double": double, "final_answer": FinalAnswerTool()})
    executor("own = 'of the agent'")


def assert_restored(executor: LocalExecutor) -> None:
    result = executor("double(21), sent")
    assert result.output == "(42, (1, 2))"
    assert "restarted" not in result.logs, "the model was told twice"
    assert executor("'own' in globals()").output == "False"
    assert executor("final_answer((1, 2))").output == (1, 2)


STUBBORN = f"""
import signal, time
signal.signal(signal.SIGINT, lambda *_: None)
{write_line("stubborn")}
while True: time.sleep(0.01)
"""


def test_a_kernel_that_ignores_the_interrupt(executor: LocalExecutor) -> None:
    for limit in time_limits():
        with pytest.raises(ExecutionTimeout) as raised:
            executor.run_code_raise_errors(STUBBORN, timeout=limit)
        if executor.state["_print_outputs"]:
            break
    assert raised.value.restarted is True
    assert f"{limit:g} s" in str(raised.value)
    assert "was restarted" in str(raised.value)
    assert "are gone" in str(raised.value)
    assert executor.state["_print_outputs"] == "stubborn\n"
    assert_restored(executor)


async def test_a_cancelled_step_that_ignores_the_interrupt(executor: LocalExecutor) -> None:
    # The kernel is restarted after the task has left; the next step is asked for before that is done.
    stream = executor.astream(STUBBORN)
    assert (await anext(stream)).text == "stubborn\n"
    await stream.aclose()
    result = await executor.arun("double(21), sent")
    assert result.output == "(42, (1, 2))"
    assert result.logs.startswith("[Note: the kernel was restarted since the last step")
    assert_restored(executor)


async def test_what_is_sent_after_a_cancelled_step_arrives(executor: LocalExecutor) -> None:
    stream = executor.astream(STUBBORN)
    await anext(stream)
    await stream.aclose()
    await executor.asend_variables({"sent": (1, 2), "later": "value"})
    assert (await executor.arun("later, double(21)")).output == "('value', 42)"
    assert_restored(executor)


def test_a_kernel_that_dies(executor: LocalExecutor, tmp_path: Path) -> None:
    # What a process has written is lost with it, unless it has left: it dies once that was heard.
    executor.on_stdout = lambda _: (tmp_path / "heard").touch()
    with pytest.raises(KernelDied) as raised:
        executor(f"{write_line('last words')}\n{wait_for_file(tmp_path / 'heard')}os._exit(1)")
    executor.on_stdout = None
    assert "are gone" in str(raised.value)
    assert executor.state["_print_outputs"] == "last words\n"
    assert_restored(executor)


def test_a_kernel_that_was_restarted_between_steps(executor: LocalExecutor) -> None:
    executor._session.restart()
    result = executor("print('next step')\n1")
    assert result.logs.startswith("[Note: the kernel was restarted since the last step")
    assert result.logs.endswith("next step\n")
    assert result.output == "1"
    assert_restored(executor)


def test_the_note_comes_with_an_error_too(executor: LocalExecutor) -> None:
    executor._session.restart()
    with pytest.raises(AgentExecutionError) as raised:
        executor("own")
    assert str(raised.value).startswith("[Note: the kernel was restarted since the last step")
    assert str(raised.value).endswith("NameError: name 'own' is not defined")
    assert_restored(executor)


def test_the_note_comes_with_a_timeout_too() -> None:
    with LocalExecutor(timeout=60, session_options=UNHURRIED) as executor:
        prepare(executor)
        for limit in time_limits():
            executor._session.restart()
            with pytest.raises(ExecutionTimeout) as raised:
                executor.run_code_raise_errors(f"{write_line('begun')}\nwhile True: pass", timeout=limit)
            if executor.state["_print_outputs"]:
                break
        assert str(raised.value).startswith("[Note: the kernel was restarted since the last step")
        assert "are kept" in str(raised.value)
        assert_restored(executor)
