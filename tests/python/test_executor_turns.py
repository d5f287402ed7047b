"""Calls that would wait for somebody who waits for them: each gets an answer, or at once an error."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from smolagents import Tool

from sandkernel import ConfigurationError, LocalExecutor
from sandkernel.exceptions import ClosedError
from waiting import wait_for_file, wait_until, write_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NEVER = "would never get its turn"


class Calling(Tool):  # type: ignore[misc] # smolagents has no types
    """A tool on the host that does whatever a test gives it to do."""

    name = "calling"
    description = "Calls a function on the host."
    inputs = {}  # noqa: RUF012
    output_type = "any"

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self) -> Any:
        return self.function()


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    """A pool whose thread is older than every call."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        yield pool


CALLS: dict[str, Callable[[LocalExecutor], object]] = {
    "code": lambda executor: executor("1"),
    "files": lambda executor: executor.files.exists("."),
    "send_variables": lambda executor: executor.send_variables({"sent": 1}),
    "send_tools": lambda executor: executor.send_tools({"calling": Calling(int)}),
    "install_packages": lambda executor: executor.install_packages(["not-there-at-all"]),
    "is_alive": lambda executor: executor.is_alive(),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_stops_the_loop_which_its_predecessor_needs_is_told(
    executor: LocalExecutor, name: str
) -> None:
    async with aclosing(executor.astream("print('begun')\nkept = 5\nkept")) as stream:
        await anext(stream)
        running = asyncio.create_task(executor.arun("kept + 1", timeout=None))
        await asyncio.sleep(0)
        # Both the stream and the task are in front.
        with pytest.raises(ConfigurationError, match=NEVER):
            CALLS[name](executor)
        async for _ in stream:
            pass
    assert (await running).output == "6"
    assert executor("kept").output == "5"


async def test_a_task_that_waits_in_front_is_seen(executor: LocalExecutor, tmp_path: Path) -> None:
    code = wait_for_file(tmp_path / "go") + "'thread'"
    thread = asyncio.create_task(asyncio.to_thread(executor, code))
    await asyncio.to_thread(wait_until, lambda: executor._turns._turn is not None)
    waiting = asyncio.create_task(executor.arun("'task'"))
    await asyncio.sleep(0)
    with pytest.raises(ConfigurationError, match="Await the async twin"):
        executor("1")
    (tmp_path / "go").touch()
    assert (await thread).output == "'thread'"
    assert (await waiting).output == "'task'"


async def test_a_thread_beside_the_loop_waits_for_its_turn(executor: LocalExecutor) -> None:
    running = asyncio.create_task(executor.arun("import time; time.sleep(0.5); 'task'"))
    await asyncio.sleep(0)
    assert (await asyncio.to_thread(executor, "'thread'")).output == "'thread'"
    assert running.done()
    assert (await running).output == "'task'"


def thread_of(function: Callable[[], object]) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append(function())
        except Exception as error:  # noqa: BLE001 looked at by the test
            outcome.append(error)

    # As they are made by servers, too.
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread, outcome


def joined(function: Callable[[], object], _: ThreadPoolExecutor) -> object:
    thread, outcome = thread_of(function)
    thread.join()
    return outcome[0]


def joined_by_another_one(function: Callable[[], object], pool: ThreadPoolExecutor) -> object:
    return joined(lambda: joined(function, pool), pool)


def in_a_new_pool(function: Callable[[], object], _: ThreadPoolExecutor) -> object:
    with ThreadPoolExecutor() as pool:
        return pool.submit(function).exception()


def left_to_a_new_pool(function: Callable[[], object], _: ThreadPoolExecutor) -> object:
    with ThreadPoolExecutor() as pool:
        future = pool.submit(function)
    return future.exception()


def in_an_old_pool(function: Callable[[], object], pool: ThreadPoolExecutor) -> object:
    return pool.submit(function).result()


def mapped(function: Callable[[], object], pool: ThreadPoolExecutor) -> object:
    return list(pool.map(lambda _: function(), range(2)))


def waited_for(function: Callable[[], object], pool: ThreadPoolExecutor) -> object:
    (done,), _ = concurrent.futures.wait([pool.submit(function)])
    return done.exception()


def as_completed(function: Callable[[], object], pool: ThreadPoolExecutor) -> object:
    return next(concurrent.futures.as_completed([pool.submit(function)])).exception()


def directly(function: Callable[[], object], _: ThreadPoolExecutor) -> object:
    return function()


def in_an_event_loop(function: Callable[[], object], pool: ThreadPoolExecutor) -> object:
    async def main() -> None:
        function()

    return joined(lambda: asyncio.run(main()), pool)


WAYS = [
    directly,
    joined,
    joined_by_another_one,
    in_a_new_pool,
    left_to_a_new_pool,
    in_an_old_pool,
    mapped,
    waited_for,
    as_completed,
    in_an_event_loop,
]
Way = Any


def error_of(way: Way, call: Callable[[], object], pool: ThreadPoolExecutor) -> Callable[[], str]:
    """What a tool is to do: it calls in some way, and returns the error."""

    def function() -> str:
        try:
            outcome = way(call, pool)
        except ConfigurationError as error:
            outcome = error
        return f"{type(outcome).__name__}: {outcome}"

    return function


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["code", "is_alive", "files"])
def test_a_tool_that_calls_its_own_executor_from_another_thread_is_told(
    executor: LocalExecutor, pool: ThreadPoolExecutor, way: Way, name: str
) -> None:
    call = CALLS[name]
    executor.send_tools({"calling": Calling(error_of(way, lambda: call(executor), pool))})
    # Nothing but that ends it.
    output = str(executor.run_code_raise_errors("calling()", timeout=None).output)
    assert "ConfigurationError" in output
    assert "executor of its own" in output


async def test_likewise_where_the_code_is_awaited_or_streamed(
    executor: LocalExecutor, pool: ThreadPoolExecutor
) -> None:
    def awaits() -> object:
        return asyncio.run(executor.arun("1"))

    for call in (awaits, lambda: executor("1")):
        executor.send_tools({"calling": Calling(error_of(joined, call, pool))})
        assert NEVER in str((await executor.arun("calling()", timeout=None)).output)
        async with aclosing(executor.astream("calling()", timeout=None)) as stream:
            *_, last = [event async for event in stream]
        assert NEVER in last.output


async def test_a_tool_that_calls_through_the_loop_it_is_waited_for_in_is_told(
    executor: LocalExecutor, pool: ThreadPoolExecutor
) -> None:
    loop = asyncio.get_running_loop()

    def call() -> object:
        return asyncio.run_coroutine_threadsafe(executor.arun("1"), loop).result()

    executor.send_tools({"calling": Calling(error_of(directly, call, pool))})
    assert "executor of its own" in str((await executor.arun("calling()", timeout=None)).output)


def test_threads_that_no_tool_waits_for_get_their_turn(executor: LocalExecutor) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> str:
        # It waits for another thread, and for none that wants the executor.
        begun.set()
        thread_of(lambda: go_on.wait(30))[0].join()
        return "slow"

    executor.send_tools({"calling": Calling(slow)})
    step, outcome = thread_of(lambda: executor("calling()").output)
    assert begun.wait(30)
    other, other_outcome = thread_of(lambda: executor("'other'").output)
    assert wait_until(lambda: len(executor._turns._waiting) == 1)
    # Longer than it takes until the waiting one looks.
    other.join(0.5)
    go_on.set()
    step.join(30)
    other.join(30)
    assert (outcome, other_outcome) == (["'slow'"], ["'other'"])


@pytest.mark.parametrize("way", [directly, joined, in_an_old_pool])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_callback_that_calls_its_own_executor_is_told(
    executor: LocalExecutor, pool: ThreadPoolExecutor, way: Way, kind: str
) -> None:
    told: list[str] = []
    function = error_of(way, lambda: executor("1"), pool)
    executor.on_stdout = lambda _: told.append(function())
    try:
        if kind == "sync":
            executor.run_code_raise_errors(write_line("a"), timeout=None)
        else:
            asyncio.run(executor.arun(write_line("a"), timeout=None))
    finally:
        executor.on_stdout = None
    assert len(told) == 1
    assert NEVER in told[0]
    assert executor("'goes on'").output == "'goes on'"


def test_progress_that_calls_its_own_executor_is_told(executor: LocalExecutor) -> None:
    with pytest.raises(ConfigurationError, match=NEVER):
        executor.send_variables({"more": 1}, on_progress=lambda *_: executor("1"))
    assert executor("'goes on'").output == "'goes on'"


async def test_a_stream_and_the_task_that_takes_its_events(executor: LocalExecutor) -> None:
    async with aclosing(executor.astream("print('a')\n'streamed'", timeout=None)) as stream:
        await anext(stream)
        with pytest.raises(ConfigurationError, match="astream"):
            await executor.arun("1")
        with pytest.raises(ConfigurationError, match="astream"):
            executor("1")
        # Another task waits until the stream is left.
        other = asyncio.create_task(executor.arun("'other'"))
        await asyncio.sleep(0.2)
        assert not other.done()
    assert (await other).output == "'other'"


async def test_a_stream_that_another_task_goes_on_with(executor: LocalExecutor) -> None:
    stream = executor.astream("print('a')\nimport time; time.sleep(0.2)\nprint('b')")

    async def take() -> Any:
        return await anext(stream)

    await asyncio.create_task(take())
    await take()
    with pytest.raises(ConfigurationError, match="astream"):
        await executor.arun("1")
    await stream.aclose()
    assert (await executor.arun("'after'")).output == "'after'"


def test_a_stream_left_in_a_loop_that_is_closed_holds_up_nobody(executor: LocalExecutor) -> None:
    loop = asyncio.new_event_loop()
    stream = executor.astream("print('a')")
    loop.run_until_complete(anext(stream))
    # The loop stands still, so that nobody can go on with the stream while this thread waits.
    with pytest.raises(ConfigurationError, match=NEVER):
        executor("1")
    waiting, outcome = thread_of(lambda: executor("'waited'").output)
    assert wait_until(lambda: len(executor._turns._waiting) == 1)
    loop.close()
    waiting.join(30)
    assert outcome == ["'waited'"]
    assert executor("'after'").output == "'after'"
    # Its end comes late, and takes nobody's turn.
    asyncio.run(stream.aclose())
    assert executor("'later'").output == "'later'"


async def test_who_waits_behind_a_stream_learns_of_the_end() -> None:
    with LocalExecutor(timeout=60) as executor:
        async with aclosing(executor.astream("print('a')")) as stream:
            await anext(stream)
            waiting = asyncio.create_task(executor.arun("1"))
            thread, outcome = thread_of(lambda: executor("1"))
            await asyncio.to_thread(wait_until, lambda: len(executor._turns._waiting) == 2)
            await executor.aclose()
            with pytest.raises(ClosedError):
                await waiting
            await asyncio.to_thread(thread.join, 30)
            assert isinstance(outcome[0], ClosedError)
