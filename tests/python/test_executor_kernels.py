"""Several kernels in one sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from smolagents import FinalAnswerTool, tool
from smolagents.utils import AgentExecutionError

from executor_support import agent_of, running_gateway
from kernel_client import request
from sandkernel import GatewayExecutor, KernelExecutor, LocalExecutor, ModalExecutor
from sandkernel.exceptions import (
    ClosedError,
    ConfigurationError,
    ExecutionTimeout,
    KernelDied,
    KernelNotFoundError,
)
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sandkernel.testing import LocalModal


@tool
def double(number: int) -> int:
    """Double a number.

    Args:
        number: The number.
    """
    return 2 * number


@pytest.fixture(scope="module")
def kernel(executor: LocalExecutor) -> Iterator[KernelExecutor]:
    with executor.new_kernel() as kernel:
        yield kernel


def kernels_of(executor: LocalExecutor) -> set[int]:
    """The process ids of the kernels in a sandbox."""
    found = set()
    for child in psutil.Process(executor._sandbox.process_id).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ipykernel" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def assert_kernels(executor: LocalExecutor, expected: set[int]) -> None:
    """A kernel that is deleted takes a moment to end."""
    if not wait_until(lambda: kernels_of(executor) == expected):
        assert kernels_of(executor) == expected


@pytest.fixture
def before(executor: LocalExecutor, kernel: KernelExecutor) -> set[int]:
    """The kernels that are there all the time."""
    pids = {int(each("import os; os.getpid()").output) for each in (executor, kernel)}
    assert_kernels(executor, pids)
    return pids


def test_a_state_of_its_own_in_the_same_sandbox(executor: LocalExecutor, kernel: KernelExecutor) -> None:
    executor("x = 1; import os, sys")
    with pytest.raises(AgentExecutionError, match="NameError"):
        kernel("x")
    kernel("x = 2; import os, sys")
    assert (executor("x").output, kernel("x").output) == ("1", "2")
    assert executor("os.getpid()").output != kernel("os.getpid()").output
    for same in ("os.getcwd()", "sys.executable", "sys.path"):
        assert executor(same).output == kernel(same).output
    kernel.files.write("shared", "x")
    assert executor.files.read("shared") == b"x"


def test_both_run_at_the_same_time(executor: LocalExecutor, kernel: KernelExecutor) -> None:
    """Each waits for a file that the other one makes."""
    code = (
        "import os, time\nopen({mine!r}, 'w').close()\n"
        "while not os.path.exists({other!r}): time.sleep(0.01)\n'met'"
    )
    met: list[object] = []
    thread = threading.Thread(target=lambda: met.append(kernel(code.format(mine="one", other="two")).output))
    thread.start()
    met.append(executor(code.format(mine="two", other="one")).output)
    thread.join()
    assert met == ["'met'", "'met'"]


def test_tools_and_variables_are_sent_where_that_is_asked(executor: LocalExecutor) -> None:
    executor.send_variables({"sent": [1, 2]})
    executor.send_tools({"double": double, "final_answer": FinalAnswerTool()})
    with executor.new_kernel(inherit=True) as kernel:
        result = kernel("final_answer(double(sum(sent)))")
        assert (result.output, result.is_final_answer) == (6, True)
    with executor.new_kernel() as kernel, pytest.raises(AgentExecutionError, match="NameError"):
        kernel("sent")


def test_an_agent_has_one_with_the_executors_settings(executor: LocalExecutor) -> None:
    with executor.new_kernel() as kernel:
        assert kernel.timeout == executor.timeout
        assert kernel.logger is executor.logger
        assert kernel.installed_packages == executor.installed_packages
        assert agent_of(kernel, "final_answer(double(4))", tools=[double]).run("double 4") == 8


def test_closing_one_ends_its_kernel_alone(executor: LocalExecutor, before: set[int]) -> None:
    kernel = executor.new_kernel()
    kernel("1")
    assert len(kernels_of(executor)) == len(before) + 1
    kernel.cleanup()
    kernel.cleanup()
    assert_kernels(executor, before)
    with pytest.raises(ClosedError):
        kernel("1")
    assert executor("'still here'").output == "'still here'"


def test_one_that_nobody_has_any_more_is_deleted(executor: LocalExecutor, before: set[int]) -> None:
    executor.new_kernel()("1")
    gc.collect()
    assert_kernels(executor, before)


def test_one_that_died_is_deleted_too(executor: LocalExecutor, before: set[int]) -> None:
    """The gateway is just starting it anew."""
    with executor.new_kernel() as kernel:
        kernel_id = kernel._open().kernel_id
        with pytest.raises(KernelDied):
            kernel("import os; os._exit(1)")
    assert_kernels(executor, before)
    # Nor does it come later: the gateway knows of it no more.
    assert request(executor._sandbox.endpoint, "GET", f"/api/kernels/{kernel_id}")[0] == 404


def test_closing_the_executor_closes_all() -> None:
    with LocalExecutor(tools="host") as executor:
        executor.send_tools({"double": double})
        # Tools of the host are had by several kernels, too.
        assert [outcome.result().output for outcome in executor.run_many(["double(2)", "double(3)"])] == [
            "4",
            "6",
        ]
        kernels = [executor.new_kernel() for _ in range(2)]
        assert [kernel("1").output for kernel in kernels] == ["1", "1"]
    for kernel in kernels:
        with pytest.raises(ClosedError):
            kernel("1")
    with pytest.raises(ClosedError):
        executor.new_kernel()
    with pytest.raises(ClosedError):
        executor.run_many(["1"])


def test_another_gateway_is_left_without_any() -> None:
    with running_gateway() as gateway:
        options: dict[str, Any] = {"url": gateway.url, "token": gateway.token}
        with GatewayExecutor(**options) as executor:
            kernel = executor.new_kernel()
            ids = [each._open().kernel_id for each in (executor, kernel)]
            assert kernel("6 * 7").output == "42"
        for kernel_id in ids:
            with pytest.raises(KernelNotFoundError):
                GatewayExecutor(**options, kernel_id=kernel_id)


def test_on_modal(cloud: LocalModal) -> None:
    with ModalExecutor() as executor:
        assert [outcome.result().output for outcome in executor.run_many(["1", "2"])] == ["1", "2"]
        kernel = executor.new_kernel()
        assert kernel("3").output == "3"
        assert len(cloud.sandboxes) == 1
        sandbox_id = executor.detach()
        with pytest.raises(ClosedError):
            kernel("3")
        ModalExecutor.from_id(sandbox_id).cleanup()


async def test_the_async_twin(executor: LocalExecutor) -> None:
    async with await executor.anew_kernel(inherit=True) as kernel:
        await kernel.arun("y = 5")
        assert (await kernel.arun("y")).output == "5"
    with pytest.raises(ClosedError):
        await kernel.arun("1")


async def test_a_start_that_is_cancelled_leaves_no_kernel(executor: LocalExecutor, before: set[int]) -> None:
    while True:
        task = asyncio.create_task(executor.anew_kernel())
        while kernels_of(executor) == before and not task.done():  # noqa: ASYNC110 a process sets no event
            await asyncio.sleep(0.001)
        if task.cancel():
            break
        # It was ready before it was seen.
        await (await task).aclose()
        await asyncio.to_thread(assert_kernels, executor, before)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_kernels(executor, before)


def test_many_in_order_with_errors_as_data(executor: LocalExecutor, before: set[int]) -> None:
    executor.send_variables({"base": 10})
    executor.send_tools({"final_answer": FinalAnswerTool()})
    codes = [
        "print('seen'); mine = base + 1; mine",
        "mine",
        "import os; os._exit(1)",
        "final_answer([base])",
        "import time; time.sleep(0.1); 'last'",
    ]
    outcomes = executor.run_many(codes, max_kernels=3)
    assert [outcome.code for outcome in outcomes] == codes
    assert [type(outcome.error) for outcome in outcomes] == [
        type(None),
        AgentExecutionError,
        KernelDied,
        type(None),
        type(None),
    ]
    first, name_error, _, answer, last = outcomes
    assert first.output is not None
    assert (first.output.output, first.output.logs) == ("11", "seen\n")
    assert first.execution is not None
    assert first.execution.stdout == "seen\n"
    assert "NameError" in str(name_error.error)
    with pytest.raises(AgentExecutionError):
        name_error.result()
    assert answer.result().is_final_answer
    assert answer.result().output == [10]
    assert last.result().output == "'last'"
    assert_kernels(executor, before)
    assert executor("base").output == "10"


def test_many_have_a_time_limit_each(executor: LocalExecutor, before: set[int]) -> None:
    (outcome,) = executor.run_many(["print('so far', flush=True)\nwhile True: pass"], timeout=1)
    assert isinstance(outcome.error, ExecutionTimeout)
    with pytest.raises(ExecutionTimeout):
        outcome.result()
    assert_kernels(executor, before)


def test_no_more_at_once_than_asked(executor: LocalExecutor) -> None:
    code = (
        "import os, time, pathlib\nplace = pathlib.Path('at once')\nplace.mkdir(exist_ok=True)\n"
        "mine = place / str(os.getpid())\nmine.touch()\nseen = len(list(place.iterdir()))\n"
        "time.sleep(0.05)\nmine.unlink()\nseen"
    )
    seen = [int(outcome.result().output) for outcome in executor.run_many([code] * 4, max_kernels=2)]
    assert max(seen) <= 2
    assert executor.run_many([]) == []


async def test_many_in_a_task(executor: LocalExecutor) -> None:
    outcomes = await executor.arun_many([f"{number} ** 2" for number in range(3)], inherit=False)
    assert [outcome.result().output for outcome in outcomes] == ["0", "1", "4"]


def endless(directory: Path) -> tuple[list[str], Callable[[], bool]]:
    """Pieces of code that do not end, and whether one runs."""
    name = f"os.path.join({str(directory)!r}, str(os.getpid()))"
    return [f"import os\nopen({name}, 'w').close()\nwhile True: pass"] * 3, lambda: any(directory.iterdir())


async def test_many_that_are_cancelled(executor: LocalExecutor, before: set[int], tmp_path: Path) -> None:
    codes, runs = endless(tmp_path)
    task = asyncio.create_task(executor.arun_many(codes, timeout=None, max_kernels=2))
    while not runs():  # noqa: ASYNC110 a process sets no event
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_kernels(executor, before)


def test_many_that_are_interrupted(executor: LocalExecutor, before: set[int], tmp_path: Path) -> None:
    codes, runs = endless(tmp_path)

    def interrupt() -> None:
        while not runs():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        executor.run_many(codes, timeout=None, max_kernels=2)
    thread.join()
    assert_kernels(executor, before)


@pytest.mark.parametrize(
    "call",
    [
        lambda executor: executor.run_many("1"),
        lambda executor: executor.run_many([1]),
        lambda executor: executor.run_many(["1"], max_kernels=0),
        lambda executor: executor.run_many(["1"], max_kernels=1.5),
    ],
)
def test_what_can_not_work(executor: LocalExecutor, call: Callable[[LocalExecutor], object]) -> None:
    with pytest.raises(ConfigurationError):
        call(executor)
