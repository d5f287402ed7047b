"""Code of a step uses asyncio as a program does, in kernels of ours and of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from smolagents import FinalAnswerTool, Tool
from smolagents.utils import AgentExecutionError

from executor_support import running_gateway
from sandkernel import GatewayExecutor, LocalExecutor
from sandkernel.exceptions import ExecutionTimeout
from waiting import UNHURRIED, time_limits

if TYPE_CHECKING:
    from collections.abc import Iterator


PREPARATION = """
import asyncio, contextvars, threading, time
from tornado.ioloop import IOLoop
events, begun, marked = [], [], contextvars.ContextVar("marked", default="unmarked")
async def main(value=5):
    await asyncio.sleep(0.01)
    print("in main")
    return value
async def fail():
    await asyncio.sleep(0)
    raise LookupError("failed")
async def slow():
    begun.append(1)
    try:
        await asyncio.sleep(3600)
    finally:
        events.append("cleaned up")
async def blocks():
    begun.append(1)
    time.sleep(3600)
async def spins():
    begun.append(1)
    while True:
        pass
"""

WORKS = {
    "asyncio.run(main())": "5",
    "asyncio.run(main(), debug=True)": "5",
    "from asyncio import run\nrun(main(6))": "6",
    "await asyncio.sleep(0)\nasyncio.run(main())": "5",
    "with asyncio.Runner() as runner:\n    both = runner.run(main(1)), runner.run(main(2))\nboth": "(1, 2)",
    "asyncio.Runner(loop_factory=asyncio.new_event_loop).run(main())": "5",
    "loop = asyncio.new_event_loop()\ntry:\n    value = loop.run_until_complete(main())\nfinally:\n"
    "    loop.close()\nvalue": "5",
    "loop = asyncio.new_event_loop()\nloop.call_later(0.05, loop.stop)\nloop.run_forever()\n7": "7",
    "asyncio.get_event_loop().run_until_complete(main())": "5",
    "await asyncio.sleep(0)\nasyncio.get_event_loop().run_until_complete(main())": "5",
    "loop = asyncio.get_event_loop()\ntask = loop.create_task(main(3))\n"
    "loop.run_until_complete(asyncio.gather(task, main(4)))": "[3, 4]",
    "loop = asyncio.get_event_loop()\nloop.call_later(0.05, loop.stop)\nloop.run_forever()\n7": "7",
    "loop = asyncio.get_event_loop()\nloop.run_until_complete(loop.run_in_executor(None, lambda: 7))": "7",
    "IOLoop.current().run_sync(main)": "5",
    "async def outer():\n    return asyncio.run(main())\nasyncio.run(outer())": "5",
    "async def outer():\n    return [asyncio.run(main()), await main(6)]\nawait outer()": "[5, 6]",
    "loop = asyncio.get_event_loop()\nasync def outer():\n    return loop.run_until_complete(main())\n"
    "loop.run_until_complete(outer())": "5",
    "async def many():\n    return sum(await asyncio.gather(*(main(1) for _ in range(20))))\n"
    "asyncio.run(asyncio.wait_for(many(), 30))": "20",
    "async def reads():\n    child = await asyncio.create_subprocess_exec('echo', 'said', stdout=-1)\n"
    "    return (await child.communicate())[0]\nasyncio.run(reads())": "b'said\\n'",
    "async def threaded():\n    return await asyncio.to_thread(lambda: 7)\nasyncio.run(threaded())": "7",
    "async def count():\n    for number in range(3):\n        yield number\n"
    "async def add():\n    return sum([number async for number in count()])\nasyncio.run(add())": "3",
    "marked.set('marked')\nasync def look():\n    return marked.get()\nasyncio.run(look())": "'marked'",
    "async def thread():\n    return threading.current_thread() is threading.main_thread()\n"
    "asyncio.run(thread())": "True",
    "found = []\nthread = threading.Thread(target=lambda: found.append(asyncio.run(main())))\n"
    "thread.start()\nthread.join()\nfound": "[5]",
    "async def leaves():\n    asyncio.ensure_future(slow())\n    await asyncio.sleep(0)\n"
    "asyncio.run(leaves())\nevents.pop()": "'cleaned up'",
    "loop = asyncio.get_running_loop()\nasyncio.run(main())\n"
    "asyncio.get_running_loop() is loop and loop.is_running()": "True",
}


@pytest.fixture(scope="module", params=["ours", "stock"])
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "ours":
        with LocalExecutor(timeout=60, session_options=UNHURRIED) as executor:
            executor(PREPARATION)
            yield executor
    else:
        with (
            running_gateway() as gateway,
            GatewayExecutor(
                url=gateway.url, token=gateway.token, timeout=60, session_options=UNHURRIED
            ) as executor,
        ):
            executor(PREPARATION)
            yield executor


@pytest.mark.parametrize(("code", "value"), WORKS.items())
def test_it_works(executor: Any, code: str, value: str) -> None:
    if "Runner" in code and executor("hasattr(asyncio, 'Runner')").output == "False":
        code, value = "5", "5"
    output = executor(code)
    assert output.output == value
    assert output.logs == "in main\n" * output.logs.count("in main")
    # And the kernel's own loop goes on as before.
    assert executor("await asyncio.sleep(0.001, 'awaited')").output == "'awaited'"


@pytest.mark.parametrize("call", ["asyncio.run({})", "asyncio.get_event_loop().run_until_complete({})"])
@pytest.mark.parametrize("before", ["", "await asyncio.sleep(0)\n"])
def test_an_error_of_it_is_the_codes(executor: Any, call: str, before: str) -> None:
    with pytest.raises(AgentExecutionError) as caught:
        executor(before + call.format("fail()"))
    assert "LookupError: failed" in str(caught.value)
    # What makes it work is not what the model has to mend.
    assert "sandkernel" not in str(caught.value)
    assert executor("1 + 1").output == "2"


@pytest.mark.parametrize("call", ["asyncio.run({})", "asyncio.get_event_loop().run_until_complete({})"])
@pytest.mark.parametrize("before", ["", "await asyncio.sleep(0)\n"])
@pytest.mark.parametrize("main", ["slow()", "blocks()", "spins()"])
def test_a_timeout_ends_it_and_keeps_the_state(executor: Any, call: str, before: str, main: str) -> None:
    executor("events.clear(); begun.clear(); kept = 41")
    for limit in time_limits():
        with pytest.raises(ExecutionTimeout) as caught:
            executor.run_code_raise_errors(before + call.format(main), timeout=limit)
        assert executor("await asyncio.sleep(0.01); kept").output == "41"
        if executor("begun").output == "[1]":
            break
    assert "are kept" in str(caught.value)
    if main == "slow()":
        assert executor("events").output == "['cleaned up']"


def test_an_interrupt_handler_of_the_code_stays_its_own(executor: Any) -> None:
    code = """
import signal
before = signal.getsignal(signal.SIGINT)
caught = []
signal.signal(signal.SIGINT, lambda *_: caught.append(1))
async def interrupts_itself():
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(0)
    return len(caught)
value = asyncio.run(interrupts_itself())
signal.signal(signal.SIGINT, before)
value, signal.getsignal(signal.SIGINT) is before
"""
    assert executor(code).output == "(1, True)"


def test_a_final_answer_in_it_ends_the_step(executor: Any) -> None:
    executor.send_tools({"final_answer": FinalAnswerTool()})
    for call in ("asyncio.run(answer())", "asyncio.get_event_loop().run_until_complete(answer())"):
        executor("async def answer():\n    await asyncio.sleep(0)\n    final_answer([1, 2])")
        output = executor(f"{call}\nprint('after')")
        assert (output.output, output.is_final_answer, output.logs) == ([1, 2], True, "")


def test_a_tool_of_the_host_is_called_in_it(executor: Any) -> None:
    called = []

    class Doubler(Tool):
        name = "double"
        description = "Doubles a number."
        inputs = {"number": {"type": "integer", "description": "The number."}}  # noqa: RUF012
        output_type = "integer"

        def __init__(self, calls: list[int]) -> None:
            super().__init__()
            self.calls = calls

        def forward(self, number: int) -> int:
            self.calls.append(number)
            return 2 * number

    executor.send_tools({"double": Doubler(called)})
    assert "of the host" in executor("repr(double)").output
    code = (
        "async def calls():\n    direct = double(2)\n"
        "    return direct, await asyncio.gather(*(asyncio.to_thread(double, n) for n in (3, 4)))\n"
        "asyncio.run(calls())"
    )
    assert executor(code).output == "(4, [6, 8])"
    assert sorted(called) == [2, 3, 4]
