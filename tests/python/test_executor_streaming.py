"""Output reaches who looks on while the code runs, in the runs of agents too."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from smolagents.monitoring import AgentLogger, LogLevel

from executor_support import agent_of
from sandkernel import LocalExecutor
from waiting import wait_for_file, write_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BAR = (
    "import sys\n"
    "for n in range(2000):\n"
    "    sys.stderr.write(f'\\r{n / 20:.0f}% [bold]')\n"
    "    if n % 100 == 0: sys.stderr.flush()\n"
    "sys.stderr.write('\\r100%\\r\\n')\n"
    "print('first'); print('no end', end='')"
)


@pytest.fixture(scope="module")
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def streaming(screen: io.StringIO) -> Iterator[LocalExecutor]:
    logger = AgentLogger(level=LogLevel.INFO, console=Console(file=screen, width=200))
    with LocalExecutor((), logger, timeout=60) as executor:
        yield executor


@pytest.fixture(autouse=True)
def nobody_looks_on(streaming: LocalExecutor, screen: io.StringIO) -> Iterator[None]:
    # What the constructor wrote is no test's either.
    screen.truncate(0)
    screen.seek(0)
    yield
    streaming.on_stdout = streaming.on_stderr = streaming.on_result = None
    streaming.stream_logs = False


def test_output_comes_while_the_code_runs(streaming: LocalExecutor, tmp_path: Path) -> None:
    heard: list[Any] = []

    def hear(text: str) -> None:
        heard.append(text)
        # The code goes on only once this was heard.
        (tmp_path / "heard").touch()

    streaming.on_stdout = hear
    streaming.on_result = heard.append
    code = f"{write_line('begun')}\n{wait_for_file(tmp_path / 'heard')}display('shown'); 6 * 7"
    agent = agent_of(streaming, code, "final_answer('answer')")
    assert agent.run("Go.") == "answer"
    assert heard[0] == "begun\n"
    assert [result.text for result in heard[1:]] == ["'shown'", "42"]


def test_lines_reach_the_logger_while_the_code_runs(
    streaming: LocalExecutor, screen: io.StringIO, tmp_path: Path
) -> None:
    streaming.stream_logs = True
    streaming.on_stdout = lambda _: (tmp_path / "heard").write_text(screen.getvalue())
    streaming("print('[red]one[/red]', flush=True)\n" + wait_for_file(tmp_path / "heard") + "print('two')")
    assert screen.getvalue() == "[red]one[/red]\ntwo\n"


def test_a_progress_bar_is_one_line(streaming: LocalExecutor, screen: io.StringIO) -> None:
    streaming.stream_logs = True
    streaming(BAR)
    assert sorted(screen.getvalue().splitlines()) == ["100%", "first", "no end"]


def test_nothing_is_told_where_nobody_asks(streaming: LocalExecutor, screen: io.StringIO) -> None:
    streaming("print('quiet')")
    assert screen.getvalue() == ""


def test_a_callback_that_raises_loses_nothing(streaming: LocalExecutor, screen: io.StringIO) -> None:
    called = []

    def fail(text: str) -> None:
        called.append(text)
        raise ValueError("[bold]no")

    streaming.on_stdout = fail
    streaming.on_stderr = called.append
    code = "import sys\nfor n in range(3): sys.stdout.write(f'{n}\\n'), sys.stdout.flush()\n"
    output = streaming(f"{code}sys.stderr.write('end'); n")
    assert output.output == "2"
    assert streaming.last_execution is not None
    assert streaming.last_execution.stdout == "0\n1\n2\n"
    assert called[0].startswith("0\n")
    assert called[1:] == ["end"]
    assert screen.getvalue() == "on_stdout raised ValueError: [bold]no; it is not called again\n"
    streaming("print('anew')")
    assert "".join(called).endswith("endanew\n")


def test_the_answer_is_no_result(streaming: LocalExecutor) -> None:
    heard: list[Any] = []
    streaming.on_result = heard.append
    assert agent_of(streaming, "final_answer(7)").run("Go.") == 7
    assert heard == []


async def test_in_an_event_loop(streaming: LocalExecutor) -> None:
    heard: list[str] = []
    streaming.on_stdout = heard.append
    await streaming.arun("print('one')")
    events = [event async for event in streaming.astream("print('two')")]
    assert "".join(heard) == "one\ntwo\n"
    assert "".join(event.text for event in events[:-1]) == "two\n"
