"""Code that makes the kernel itself fail, and kernels that are taken away: the next step works."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from smolagents.utils import AgentExecutionError

from executor_support import running_gateway
from kernel_client import request
from sandkernel import (
    ExecutionTimeout,
    GatewayExecutor,
    KernelDied,
    KernelExecutor,
    KernelUnresponsive,
    LocalExecutor,
    Session,
)
from sandkernel.providers.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOSED_OUTPUT = "import sys\nwith open('/dev/null', 'w') as sys.stdout:\n    print('x')"
STREAM = """
import sys
class Stream:
    def write(self, text): return len(text)
    def flush(self): raise %s
sys.%s = Stream()
"""
# After them, code runs and the state is kept.
FAILURES = {
    "closed output": CLOSED_OUTPUT,
    "closed output and an error": CLOSED_OUTPUT.replace("print('x')", "1 / 0"),
    "no stream": "import sys\nsys.stdout = object()",
    "a flush that raises": STREAM % ("OSError('full')", "stdout"),
    "a flush of errors that raises": STREAM % ("OSError('full')", "stderr"),
    "a flush that exits": STREAM % ("SystemExit(3)", "stdout"),
    "a flush that interrupts": STREAM % ("KeyboardInterrupt", "stdout"),
    "too deep to compile": " + ".join(["kept"] * 3000),
    "a payload that is no JSON": (
        "get_ipython().payload_manager.write_payload({'source': 's', 'data': object()})"
    ),
}
# These make the next code fail.
DELAYED = {
    "no output": "import sys\nsys.stdout = None",
    "no method": "get_ipython().run_cell = None",
    "no async method": "get_ipython().run_cell_async = None",
    "no handler": "get_ipython().kernel.do_execute = None",
}


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    with LocalExecutor(timeout=60) as executor:
        executor("kept = 7")
        yield executor


def assert_kept(executor: KernelExecutor) -> None:
    assert executor("print(kept)").logs == "7\n"
    with pytest.raises(AgentExecutionError, match="ZeroDivisionError"):
        executor("1 / 0")
    assert executor("kept").output == "7"


@pytest.mark.parametrize("code", FAILURES.values(), ids=FAILURES)
def test_the_step_ends_with_the_error_and_the_state_is_kept(executor: LocalExecutor, code: str) -> None:
    with pytest.raises(AgentExecutionError):
        executor(code)
    assert_kept(executor)


@pytest.mark.parametrize("code", DELAYED.values(), ids=DELAYED)
def test_what_breaks_the_next_step_is_put_back(executor: LocalExecutor, code: str) -> None:
    executor(code)
    with pytest.raises(AgentExecutionError):
        executor("print(kept)")
    assert_kept(executor)


def test_the_error_of_the_code_is_shown_beside_that_of_the_kernel(executor: LocalExecutor) -> None:
    with pytest.raises(AgentExecutionError) as caught:
        executor(FAILURES["closed output and an error"])
    assert "I/O operation on closed file" in str(caught.value)


def test_a_kernel_that_can_not_be_put_back_is_restarted(executor: LocalExecutor) -> None:
    with executor.new_kernel() as kernel:
        kernel.send_variables({"given": 5})
        with pytest.raises(KernelDied):
            kernel("get_ipython().events = None")
        assert kernel("print(given)").logs == "5\n"


async def test_it_is_the_same_in_an_event_loop_and_for_many(executor: LocalExecutor) -> None:
    with pytest.raises(AgentExecutionError):
        await executor.arun(CLOSED_OUTPUT)
    with pytest.raises(AgentExecutionError):
        async for _ in executor.astream(CLOSED_OUTPUT):
            pass
    assert (await executor.arun("print(kept)")).logs == "7\n"
    outcomes = await executor.arun_many([CLOSED_OUTPUT, "print(2)"], max_kernels=2)
    assert isinstance(outcomes[0].error, AgentExecutionError)
    assert outcomes[1].result().logs == "2\n"


def test_an_interrupt_still_ends_code_with_its_timeout(executor: LocalExecutor) -> None:
    with pytest.raises(ExecutionTimeout) as caught:
        executor.run_code_raise_errors("import time\ntime.sleep(100)", timeout=1)
    assert caught.value.restarted is False
    assert_kept(executor)


def test_a_first_kernel_that_others_delete_is_replaced() -> None:
    with LocalExecutor(timeout=60) as executor:
        executor.send_variables({"given": 5})
        session = executor._session
        assert session is not None
        endpoint = executor._sandbox.endpoint
        assert request(endpoint, "DELETE", f"/api/kernels/{session.kernel_id}")[0] == 204
        begun = time.monotonic()
        try:
            logs = executor("print(given)").logs
        except KernelDied:
            logs = executor("print(given)").logs
        assert logs.endswith("5\n")
        assert time.monotonic() - begun < 30


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_gateway() as gateway:
        yield Endpoint(gateway.url, gateway.token)


def test_a_kernel_of_the_executor_is_restarted_and_the_model_told(endpoint: Endpoint) -> None:
    with GatewayExecutor(url=endpoint.url, token=endpoint.token, timeout=100) as executor:
        executor.send_variables({"given": 5})
        executor("kept = 7")
        with pytest.raises(AgentExecutionError, match="ExecutionUnanswered"):
            executor(FAILURES["too deep to compile"])
        assert_kept(executor)
        with pytest.raises(AgentExecutionError, match="ExecutionUnanswered"):
            executor(CLOSED_OUTPUT)
        logs = executor("print(given, 'kept' in globals())").logs
        assert "the kernel was restarted" in logs
        assert logs.endswith("5 False\n")
        assert executor("print(given)").logs == "5\n"


def test_a_shared_kernel_is_named(endpoint: Endpoint) -> None:
    with (
        Session.connect(endpoint.url, endpoint.token) as owner,
        GatewayExecutor(
            url=endpoint.url, token=endpoint.token, kernel_id=owner.kernel_id, timeout=100
        ) as executor,
    ):
        with pytest.raises(AgentExecutionError, match="ExecutionUnanswered"):
            executor(CLOSED_OUTPUT)
        with pytest.raises(KernelUnresponsive, match="does not run code any more"):
            executor("print(1)")
        with pytest.raises(KernelUnresponsive):
            asyncio.run(executor.arun("print(1)"))
        owner.restart()
        # How it failed is told for 10 seconds; then it is tried again.
        end = time.monotonic() + 60
        while True:
            try:
                assert executor("print(2)").logs.endswith("2\n")
                break
            except KernelUnresponsive:
                assert time.monotonic() < end
                time.sleep(0.5)
