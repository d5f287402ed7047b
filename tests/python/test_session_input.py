"""Code that asks for input, on a real kernel."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from typing import TYPE_CHECKING

import pytest

import sandkernel
from sandkernel import InputRequest, Session
from sandkernel.providers.local import LocalSandbox
from waiting import UNHURRIED, time_limits, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ASKS = "import getpass\n[input('name? '), getpass.getpass('word? ')]"
# A request of the kernel's own making, beside what `input()` asks.
SENDS = """
kernel = get_ipython().kernel
kernel.session.send(
    kernel.stdin_socket, "input_request", {"prompt": "own", "password": False}, kernel.get_parent("shell"),
    ident=kernel._get_shell_context_var(kernel._shell_parent_ident), buffers=[b"one", b"two"],
)
kernel.stdin_socket.poll()
reply = kernel.session.recv(kernel.stdin_socket)[1]
reply["content"]["value"], [bytes(buffer) for buffer in reply["buffers"]]
"""
tenant = contextvars.ContextVar("tenant", default="nobody")


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with (
        LocalSandbox() as sandbox,
        Session.connect(
            sandbox.endpoint.url,
            sandbox.endpoint.token,
            kernel_id=sandbox.endpoint.kernel_id,
            timeout=60,
            **UNHURRIED,
        ) as session,
    ):
        yield session


def answer(request: InputRequest) -> str:
    return f"{request.prompt}{request.password} é☃"


def test_input_asks_the_host(session: Session) -> None:
    assert session.run(ASKS, on_input=answer).text == "['name? False é☃', 'word? True é☃']"


async def test_input_asks_a_coroutine_and_a_function(session: Session) -> None:
    async def answer_later(request: InputRequest) -> str:
        await asyncio.sleep(0)
        return answer(request)

    for on_input in (answer_later, answer):
        execution = await session.arun(ASKS, on_input=on_input)
        assert execution.text == "['name? False é☃', 'word? True é☃']"


def test_without_anybody_to_ask_input_fails_at_once(session: Session) -> None:
    for options in ({}, {"on_stdout": print}, {"on_request": print}):
        error = session.run("input()", **options).error  # type: ignore[arg-type]
        assert error is not None
        assert error.name == "StdinNotImplementedError"


def test_a_large_answer_arrives_whole(session: Session) -> None:
    text = "é" * 2_500_000
    assert session.run("answer = input()\nlen(answer), set(answer)", on_input=lambda _: text).text == (
        "(2500000, {'é'})"
    )


def test_who_answers_is_in_the_callers_context_and_not_in_its_thread(session: Session) -> None:
    seen: list[tuple[str, bool]] = []

    def look(_: InputRequest) -> str:
        seen.append((tenant.get(), threading.current_thread() is threading.main_thread()))
        return ""

    token = tenant.set("acme")
    try:
        session.run("input()", on_input=look)
    finally:
        tenant.reset(token)
    assert seen == [("acme", False)]


def test_an_error_of_who_answers_is_the_end_of_input(session: Session) -> None:
    def fail(request: InputRequest) -> str:
        raise LookupError(request.prompt)

    code = "try:\n    input('asked')\nexcept EOFError:\n    caught = True"
    with pytest.raises(LookupError, match="asked"):
        session.run(code, on_input=fail)
    assert session.run("caught").text == "True"
    with pytest.raises(TypeError, match="returns the text that was typed, not NoneType"):
        session.run(code, on_input=lambda _: None)  # type: ignore[arg-type,return-value]


def test_the_end_of_input_is_no_error_here(session: Session) -> None:
    def end(_: InputRequest) -> str:
        raise EOFError

    error = session.run("input()", on_input=end).error
    assert error is not None
    assert error.name == "EOFError"


def test_who_hangs_is_bounded_by_the_timeout_and_its_late_answer_is_dropped(session: Session) -> None:
    release = threading.Event()
    asked: list[bool] = []
    late: list[bool] = []

    def hang(request: InputRequest) -> None:
        asked.append(True)
        release.wait(60)
        late.append(request.reply("late"))

    def hang_and_say(request: InputRequest) -> str:
        hang(request)
        return ""

    session.run("kept = 1")
    for limit in time_limits():
        with pytest.raises(sandkernel.ExecutionTimeout) as caught:
            session.run("input()", on_input=hang_and_say, timeout=limit)
        if asked:
            break
    assert not caught.value.restarted
    release.set()
    assert session.run("[kept, input()]", on_input=lambda _: "in time").text == "[1, 'in time']"
    until(lambda: late)
    assert late == [False]


def test_ctrl_c_while_somebody_answers_interrupts_the_kernel(session: Session) -> None:
    release = threading.Event()

    def hang(_: InputRequest) -> str:
        signal.raise_signal(signal.SIGINT)
        release.wait(60)
        return ""

    session.run("kept = 2")
    with pytest.raises(KeyboardInterrupt):
        session.run("input()", on_input=hang)
    release.set()
    assert session.run("kept").text == "2"


async def test_a_cancelled_task_cancels_who_answers(session: Session) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def hang(_: InputRequest) -> str:
        asked.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()
        return ""

    running = asyncio.create_task(session.arun("input()", on_input=hang))
    await asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await ended.wait()
    assert (await session.arun("1 + 1")).text == "2"


def test_a_stream_has_the_requests(session: Session) -> None:
    stream = session.stream("print('hi ' + input('who? '))", allow_input=True)
    seen: list[object] = []
    for event in stream:
        if isinstance(event, InputRequest):
            assert repr(event) == '<InputRequest "who? ">'
            assert event.reply("you")
        else:
            seen.append(event.text)  # type: ignore[union-attr]
    assert "".join(map(str, seen)) == "hi you\n"


def test_other_requests_have_attachments_both_ways(session: Session) -> None:
    def reply(request: InputRequest) -> None:
        assert (request.prompt, request.buffers) == ("own", [b"one", b"two"])
        request.reply("ours", [b"\x00" * 3_000_000, b"four"])

    execution = session.run(SENDS, on_request=reply)
    assert execution.error is None, execution.error
    assert session.run("(_[0], [len(part) for part in _[1]])").text == "('ours', [3000000, 4])"


def test_there_is_one_who_answers(session: Session) -> None:
    with pytest.raises(sandkernel.ConfigurationError, match="either on_input or on_request"):
        session.run("1", on_input=answer, on_request=print)
