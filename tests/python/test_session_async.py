"""`Session`, the async side, on a real kernel."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING

import pytest

import sandkernel
from sandkernel import Session
from sandkernel.providers.local import LocalSandbox
from waiting import UNHURRIED, wait_for_file, write_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandkernel.providers.endpoint import Endpoint

SLEEPS = f"import time\n{write_line('began')}\ntime.sleep(600)"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with LocalSandbox() as sandbox:
        yield sandbox.endpoint


async def connect(endpoint: Endpoint, timeout: float = 60) -> Session:
    return await Session.aconnect(
        endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id, timeout=timeout, **UNHURRIED
    )


async def test_the_twins_do_what_the_sync_ones_do(endpoint: Endpoint) -> None:
    async with await connect(endpoint) as session:
        execution = await session.arun("print('out')\n1 / 0")
        assert execution.stdout == "out\n"
        assert execution.error is not None
        generation = session.generation
        await session.arestart()
        assert session.generation == generation + 1
        stream = session.astream(SLEEPS)
        assert isinstance(await anext(stream), sandkernel.Output)
        await session.ainterrupt()
        # The kernel may send the end of the line by itself.
        *outputs, error = [event async for event in stream]
        assert all(isinstance(event, sandkernel.Output) for event in outputs)
        assert isinstance(error, sandkernel.ExecutionError)
        with pytest.raises(sandkernel.ExecutionTimeout):
            await session.arun(SLEEPS, timeout=0.2)
    assert session.closed
    with pytest.raises(sandkernel.ClosedError):
        await session.arun("1")


async def test_calls_are_served_in_the_order_they_were_made(endpoint: Endpoint) -> None:
    async with await connect(endpoint) as session:
        await session.arun("order = []")
        await asyncio.gather(*[session.arun(f"order.append({number})") for number in range(20)])
        assert (await session.arun("order == list(range(20))")).text == "True"


async def test_the_event_loop_goes_on_meanwhile(endpoint: Endpoint, tmp_path: Path) -> None:
    async with await connect(endpoint) as session:
        # The code ends only once the loop has had its turns.
        running = asyncio.ensure_future(session.arun(wait_for_file(tmp_path / "go") + "'done'"))
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert not running.done()
        (tmp_path / "go").touch()
        assert (await running).text == "'done'"


async def test_cancelling_interrupts_the_kernel(endpoint: Endpoint) -> None:
    async with await connect(endpoint) as session:
        await session.arun("kept = 1")
        began = asyncio.Event()
        running = asyncio.ensure_future(session.arun(SLEEPS, on_stdout=lambda _: began.set()))
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        # The next one waits for the interrupt, and is not hit by it.
        assert (await session.arun("kept")).text == "1"


async def test_a_plain_wait_can_be_cancelled_too(endpoint: Endpoint) -> None:
    async with await connect(endpoint) as session:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(session.arun(SLEEPS), 0.3)
        assert (await session.arun("'alive'")).text == "'alive'"


async def test_callbacks_run_in_the_loop_of_the_caller(endpoint: Endpoint) -> None:
    async with await connect(endpoint) as session:
        seen: list[tuple[str, int]] = []
        await session.arun(
            "print('a')\nprint('b')", on_stdout=lambda text: seen.append((text, threading.get_ident()))
        )
        assert "".join(text for text, _ in seen) == "a\nb\n"
        assert {thread for _, thread in seen} == {threading.get_ident()}


async def test_a_dropped_stream_interrupts(endpoint: Endpoint) -> None:
    async with await connect(endpoint) as session:
        stream = session.astream(SLEEPS)
        await anext(stream)
        del stream
        gc.collect()
        assert (await session.arun("'alive'")).text == "'alive'"


async def test_errors_of_connecting(endpoint: Endpoint) -> None:
    with pytest.raises(sandkernel.AuthError):
        await Session.aconnect(endpoint.url, "wr0ng")
    with pytest.raises(sandkernel.ConfigurationError):
        await Session.aconnect("nonsense")


async def test_many_sessions_in_one_loop(endpoint: Endpoint) -> None:
    sessions = await asyncio.gather(*[connect(endpoint) for _ in range(16)])
    texts = await asyncio.gather(*[session.arun(str(number)) for number, session in enumerate(sessions)])
    assert [execution.text for execution in texts] == [str(number) for number in range(16)]
    await asyncio.gather(*[session.aclose() for session in sessions])


def test_one_session_in_several_loops_and_threads(endpoint: Endpoint) -> None:
    with Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id, timeout=60) as session:

        async def ask(number: int) -> str | None:
            return (await session.arun(str(number))).text

        for number in range(3):
            assert asyncio.run(ask(number)) == str(number)
        answers: dict[int, str | None] = {}
        threads = [
            threading.Thread(target=lambda number=number: answers.update({number: asyncio.run(ask(number))}))
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        assert session.run("'sync'").text == "'sync'"
        for thread in threads:
            thread.join()
        assert answers == {number: str(number) for number in range(4)}


def test_a_loop_that_ends_first_leaves_the_session_usable(endpoint: Endpoint) -> None:
    with Session.connect(
        endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id, timeout=60, **UNHURRIED
    ) as session:

        async def give_up() -> None:
            began = asyncio.Event()
            waiting = asyncio.ensure_future(session.arun(SLEEPS, on_stdout=lambda _: began.set()))
            await began.wait()
            del waiting

        asyncio.run(give_up())
        assert session.run("'alive'").text == "'alive'"
