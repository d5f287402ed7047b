"""One deadline for a step: nothing that is done for it goes on for long past its timeout."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from smolagents import FinalAnswerTool
from smolagents.monitoring import AgentLogger, LogLevel

from executor_support import StockGateway, running_gateway
from sandkernel import GatewayExecutor, LocalExecutor, PayloadError, Session
from sandkernel.exceptions import ConfigurationError, ExecutionTimeout, SandboxFileError
from sandkernel.files import transfer
from sandkernel.plans import Deadline, Request, Work, drive, within
from sandkernel.sandbox import final_answer, prelude

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Far more than the timeouts here, and far less than what used to follow them.
MUCH_SECONDS = 40.0
# Each line in a message of its own: they take turns, and nothing gathers them.
TALK = """
import sys
for n in range(100):
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
    sys.stderr.write(f"{n}\\n")
    sys.stderr.flush()
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[StockGateway]:
    with running_gateway() as gateway:
        yield gateway


@pytest.fixture
def fetching(gateway: StockGateway) -> Iterator[GatewayExecutor]:
    """An executor on a gateway whose limits drop an answer, so that it is fetched."""
    with GatewayExecutor(url=gateway.url, token=gateway.token, timeout=60) as executor:
        executor.send_tools({"final_answer": FinalAnswerTool()})
        yield executor


def forged(size: int, body: str) -> str:
    """Code that ends with a ticket for an answer that the kernel gives as `body` says."""
    return (
        "import _sandkernel, base64, time\n"
        "def answer_piece(name, start, size):\n"
        f"    {body}\n"
        "    raise _sandkernel.Reply('safe:' + base64.b64encode(piece).decode())\n"
        "_sandkernel.answer_piece = answer_piece\n"
        "class FinalAnswerException(BaseException): pass\n"
        f"raise FinalAnswerException('sandkernel:' + 32 * 'a' + ':{size}:{size}')\n"
    )


async def by_stream(executor: Any, code: str, **options: Any) -> Any:
    async with aclosing(executor.astream(code, **options)) as stream:
        async for event in stream:
            last = event
    return last


KINDS: dict[str, Callable[..., Any]] = {
    "sync": lambda executor, code, **options: executor.run_code_raise_errors(code, **options),
    "async": lambda executor, code, **options: asyncio.run(executor.arun(code, **options)),
    "stream": lambda executor, code, **options: asyncio.run(by_stream(executor, code, **options)),
}


@pytest.mark.parametrize("body", ["piece = b'1'", "piece = b'12' * size", "piece = b''"])
def test_an_answer_comes_in_whole_pieces_only(executor: LocalExecutor, body: str) -> None:
    with pytest.raises(PayloadError, match="did not arrive whole"):
        executor(forged(5_000_000, body))
    assert executor("1").output == "1"


@pytest.mark.parametrize("kind", KINDS)
def test_fetching_an_answer_is_part_of_the_step(executor: LocalExecutor, kind: str) -> None:
    code = forged(200 << 20, "time.sleep(0.5); piece = b'1' * size")
    began = time.monotonic()
    with pytest.raises(ExecutionTimeout, match="The code ended, but its final answer did not arrive in time"):
        KINDS[kind](executor, code, timeout=3)
    assert 2.5 < time.monotonic() - began < MUCH_SECONDS
    assert executor("1").output == "1"


def test_fetching_an_answer_ends_without_a_time_limit_too(
    executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_answer, "FETCH_SECONDS", 2.0)
    code = forged(200 << 20, "time.sleep(0.5); piece = b'1' * size")
    with pytest.raises(ExecutionTimeout, match="did not arrive in time"):
        executor.run_code_raise_errors(code, timeout=None)


def test_an_honest_answer_that_is_fetched_arrives(fetching: GatewayExecutor) -> None:
    answer = "0123456789abcdef" * 300_000
    assert fetching(f"final_answer({answer[:16]!r} * 300_000)").output == answer


@pytest.mark.parametrize("kind", KINDS)
def test_preparing_the_kernel_is_part_of_the_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalExecutor(timeout=60) as executor:
        executor.send_variables({"kept": 5})
        executor._open().restart()
        # What comes anew after a restart never ends.
        monkeypatch.setattr(prelude, "load", lambda **_: "__import__('time').sleep(1000)")
        began = time.monotonic()
        with pytest.raises(ExecutionTimeout, match="could not be given what the code needs within"):
            KINDS[kind](executor, "kept", timeout=2)
        assert 1.5 < time.monotonic() - began < MUCH_SECONDS
        monkeypatch.undo()
        assert executor("kept").output == "5"


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_callback_is_told_nothing_long_after_the_end(
    executor: LocalExecutor, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []

    def slow(text: str) -> None:
        told.append(text)
        time.sleep(1)

    before, executor.logger = executor.logger, AgentLogger(level=LogLevel.INFO)
    executor.on_stdout = slow
    code = f"{TALK}\n'end'"
    began = time.monotonic()
    try:
        assert KINDS[kind](executor, code, timeout=8).output == "'end'"
    finally:
        executor.on_stdout, executor.logger = None, before
    assert time.monotonic() - began < MUCH_SECONDS
    execution = executor.last_execution
    assert execution is not None
    assert execution.stdout == "".join(f"{n}\n" for n in range(100))
    assert 0 < len("".join(told)) < len(execution.stdout)
    logged = " ".join(capsys.readouterr().out.split())
    assert "too slow for the time limit of 8 s" in logged


@pytest.mark.parametrize("code", [TALK, "print('\\n'.join(map(str, range(1000))))"])
def test_a_logger_that_is_slow_is_told_nothing_long_after_the_end(executor: LocalExecutor, code: str) -> None:
    lines: list[str] = []

    class Slow(AgentLogger):  # type: ignore[misc] # smolagents has no types
        def log(self, *args: Any, **_: Any) -> None:
            lines.append(str(args[0]))
            time.sleep(0.5)

    before, executor.logger = executor.logger, Slow()
    executor.stream_logs = True
    began = time.monotonic()
    try:
        executor.run_code_raise_errors(code, timeout=8)
    finally:
        executor.stream_logs, executor.logger = False, before
    assert time.monotonic() - began < MUCH_SECONDS
    assert "too slow" in lines[-1]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_callbacks_of_a_session_likewise(
    executor: LocalExecutor, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def slow(text: str) -> None:
        told.append(text)
        time.sleep(1)

    session = executor._open()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "sandkernel"):
        if kind == "sync":
            execution = session.run(TALK, timeout=8, on_stdout=slow)
        else:
            execution = asyncio.run(session.arun(TALK, timeout=8, on_stdout=slow))
    assert time.monotonic() - began < MUCH_SECONDS
    assert execution.stdout == "".join(f"{n}\n" for n in range(100))
    assert len("".join(told)) < len(execution.stdout)
    assert "too slow for the timeout of 8 s" in caplog.text


def test_what_interrupted_code_says_last_is_told(executor: LocalExecutor) -> None:
    told: list[str] = []
    executor.on_stdout = told.append
    code = "import time\ntry:\n    time.sleep(1000)\nfinally:\n    print('last words', flush=True)"
    try:
        with pytest.raises(ExecutionTimeout):
            executor.run_code_raise_errors(code, timeout=1)
    finally:
        executor.on_stdout = None
    assert "".join(told) == "last words\n"


async def test_a_stream_that_nobody_goes_on_with_lends_its_turn(executor: LocalExecutor) -> None:
    async with aclosing(executor.astream("print('a')\nkept = 'streamed'\nkept", timeout=1)) as stream:
        await anext(stream)
        assert (await executor_in_other_task(executor, "kept + '!'")) == "'streamed!'"
        # It goes on where it was, and has the turn again.
        *_, last = [event async for event in stream]
        assert last.output == "'streamed'"
    assert executor("1").output == "1"


async def executor_in_other_task(executor: LocalExecutor, code: str) -> Any:
    return (await asyncio.create_task(executor.arun(code))).output


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5", True - 1])
def test_a_timeout_that_is_none_is_refused(executor: LocalExecutor, timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout is a number"):
        executor.run_code_raise_errors("1", timeout=timeout)
    assert executor.run_code_raise_errors("1", timeout=float("inf")).output == "1"


def test_requests_share_what_is_left_and_repairs_are_apart(executor: LocalExecutor) -> None:
    session: Session = executor._open()

    def plan() -> Any:
        yield Work(lambda: time.sleep(2))
        yield Request("__import__('time').sleep(2)", 60, counted=False)
        yield Request("__import__('time').sleep(0.2)", None)
        try:
            yield Request("__import__('time').sleep(1000)", None)
        except ExecutionTimeout:
            # Nothing more is begun.
            yield Request("begun = True", 60)

    began = time.monotonic()
    with pytest.raises(ExecutionTimeout):
        drive(within(Deadline(2), plan()), session)
    assert 5.5 < time.monotonic() - began < MUCH_SECONDS
    assert executor("'begun' in globals()").output == "False"


def test_a_transfer_that_creeps_is_given_up(executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    executor.files.write("large", b"x" * 20_000_000)
    monkeypatch.setattr(transfer, "TRANSFER_SECONDS", 1.0)
    monkeypatch.setattr(transfer, "LEAST_BYTES_PER_SECOND", 1 << 40)
    executor(
        "import sys, time\n"
        "files = sys.modules['_sandkernel_files']\n"
        "read = files.read\n"
        "files.read = lambda *args: (time.sleep(0.6), read(*args))[1]"
    )
    try:
        with pytest.raises(SandboxFileError, match="too slow"):
            executor.files.read("large")
    finally:
        executor("files.read = read")
    monkeypatch.undo()
    assert len(executor.files.read("large")) == 20_000_000
