"""Executors in a program on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from smolagents import FinalAnswerTool
from smolagents.utils import AgentExecutionError

from loop_watch import the_loop_goes_on
from sandkernel import LocalExecutor
from sandkernel.concurrency.fair_lock import FairLock
from sandkernel.exceptions import ClosedError, ExecutionTimeout
from waiting import auntil, wait_for_file

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_whole_life() -> None:
    # Booting takes a second and more: the loop runs on.
    with the_loop_goes_on():
        executor = await LocalExecutor.acreate(timeout=60)
        await executor.asend_tools({"final_answer": FinalAnswerTool()})
        await executor.asend_variables({"sent": 2})
        assert (await executor.arun("import time; time.sleep(0.3); sent + 1")).output == "3"
        assert await executor.ainstall_packages(["json"]) == []
        result = await executor.arun("final_answer(sent)")
        assert (result.output, result.is_final_answer) == (2, True)
        await executor.aclose()
    with pytest.raises(ClosedError):
        await executor.arun("1")


async def test_errors_are_those_of_the_sync_calls(executor: LocalExecutor) -> None:
    with pytest.raises(AgentExecutionError, match="ZeroDivisionError"):
        await executor.arun("print('before')\n1 / 0")
    assert executor.state["_print_outputs"] == "before\n"
    with pytest.raises(ExecutionTimeout):
        await executor.arun("while True: pass", timeout=0.3)


async def test_tasks_are_served_in_order(executor: LocalExecutor) -> None:
    await executor.arun("order = []")
    await asyncio.gather(*(executor.arun(f"order.append({number})") for number in range(10)))
    assert (await executor.arun("order")).output == str(list(range(10)))


async def test_events_come_as_they_happen(executor: LocalExecutor, tmp_path: Path) -> None:
    executor.send_tools({"final_answer": FinalAnswerTool()})
    seen: list[Any] = []
    # The code goes on only once its first event was seen.
    code = f"print('one', flush=True)\n{wait_for_file(tmp_path / 'seen')}print('two')\n'value'"
    async for event in executor.astream(code):
        seen.append(event)
        (tmp_path / "seen").touch()
    # The kernel may send the end of a line by itself.
    assert "".join(event.text for event in seen[:-1]) == "one\ntwo\n'value'"
    assert seen[-1].output == "'value'"
    assert executor.last_execution.stdout == "one\ntwo\n"


async def test_a_streamed_answer_is_the_output(executor: LocalExecutor) -> None:
    executor.send_tools({"final_answer": FinalAnswerTool()})
    events: list[Any] = [event async for event in executor.astream("print('a')\nfinal_answer((1,))")]
    assert events[-1].is_final_answer
    assert events[-1].output == (1,)
    assert "".join(event.text for event in events if hasattr(event, "stream")) == "a\n"


async def test_a_streamed_error_is_raised(executor: LocalExecutor) -> None:
    events = []
    with pytest.raises(AgentExecutionError, match="ZeroDivisionError"):  # noqa: PT012
        async for event in executor.astream("print('a')\n1 / 0"):
            events.append(event)  # noqa: PERF401 a comprehension would lose those before the error
    assert "".join(event.text for event in events if hasattr(event, "stream")) == "a\n"


async def test_who_stops_listening_stops_the_code(executor: LocalExecutor) -> None:
    # Nothing but that stops it.
    stream = executor.astream("print('a', flush=True)\nwhile True: pass", timeout=None)
    async with contextlib.aclosing(stream) as events:
        async for _ in events:
            break
    assert (await executor.arun("'next'")).output == "'next'"


async def test_cancelling_interrupts_the_kernel(executor: LocalExecutor, tmp_path: Path) -> None:
    code = f"import time\nkept = 1\nopen({str(tmp_path / 'begun')!r}, 'w').close()\ntime.sleep(600)"
    task = asyncio.create_task(executor.arun(code, timeout=None))
    await auntil((tmp_path / "begun").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await executor.arun("kept")).output == "1"


async def test_a_cancelled_wait_lets_the_next_one_in(executor: LocalExecutor, tmp_path: Path) -> None:
    first = asyncio.create_task(executor.arun(wait_for_file(tmp_path / "go") + "'first'"))
    second = asyncio.create_task(executor.arun("second_ran = True"))
    third = asyncio.create_task(executor.arun("'second_ran' in globals()"))
    await auntil(lambda: len(executor._turns._waiting) == 2)
    second.cancel()
    (tmp_path / "go").touch()
    assert (await first).output == "'first'"
    assert (await third).output == "False"


async def test_a_context_manager() -> None:
    async with await LocalExecutor.acreate() as executor:
        assert (await executor.arun("1 + 1")).output == "2"
    assert executor._sandbox._process.terminated


async def test_turns_are_had_one_at_a_time_and_in_order() -> None:
    turns, order, inside = FairLock(), [], 0

    async def work(number: int) -> None:
        nonlocal inside
        async with turns.atake():
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            order.append(number)
            inside -= 1

    def block(number: int) -> None:
        with turns.take():
            order.append(number)

    await asyncio.gather(work(0), work(1), asyncio.to_thread(block, 2))
    await work(3)
    assert sorted(order[:3]) == [0, 1, 2]
    assert order[3] == 3


async def test_a_turn_that_is_not_waited_for_any_more_goes_to_the_next() -> None:
    turns, order = FairLock(), []

    async def work(number: int) -> None:
        async with turns.atake():
            order.append(number)

    async with turns.atake():
        tasks = [asyncio.create_task(work(number)) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
    # Its turn has come, and it does not know yet.
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [2]
    await asyncio.wait_for(work(3), 30)
    assert order == [2, 3]
