"""Kernels that run no Python: code works, and what takes Python is refused at once."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from smolagents import CodeAgent, FinalAnswerTool, tool
from smolagents.utils import AgentExecutionError

from executor_support import StockGateway, agent_of, executor
from fault_proxy import FaultProxy
from other_kernels import with_other_kernels
from sandkernel import (
    ExecutionTimeout,
    GatewayExecutor,
    KernelDied,
    KernelExecutor,
    LocalExecutor,
    Session,
)
from sandkernel.exceptions import ConnectionLost, UnsupportedKernelError
from waiting import time_limits, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["executor"]

# Far above what an answer takes on a machine under load, and far below the two minutes of a request of ours.
AT_ONCE = 30.0


@pytest.fixture(scope="module", params=["gateway", "server"])
def gateway(request: pytest.FixtureRequest) -> Iterator[StockGateway]:
    with with_other_kernels(request.param) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def session(gateway: StockGateway) -> Iterator[Session]:
    with Session.connect(gateway.url, gateway.token, kernel_name="bash", timeout=60) as session:
        yield session


@pytest.fixture(scope="module")
def bash(gateway: StockGateway) -> Iterator[GatewayExecutor]:
    with GatewayExecutor(url=gateway.url, token=gateway.token, kernel_name="bash", timeout=60) as bash:
        yield bash


def begun(path: Path) -> str:
    """Code of bash that tells that it has begun, and then waits for long."""
    return f"touch {path}\nsleep 300"


def test_a_session_names_the_language(gateway: StockGateway, session: Session) -> None:
    assert (session.language, session.kernel_name) == ("bash", "bash")
    with Session.connect(gateway.url, gateway.token) as python:
        assert (python.language, python.kernel_name) == ("python", "python3")

    async def language() -> str | None:
        async with await Session.aconnect(gateway.url, gateway.token, kernel_name="bash") as other:
            return other.language

    assert asyncio.run(language()) == "bash"


def test_the_language_of_a_kernel_that_is_busy(gateway: StockGateway, tmp_path: Path) -> None:
    with Session.connect(gateway.url, gateway.token) as session:
        code = f"import pathlib, time\npathlib.Path({str(tmp_path / 'begun')!r}).touch()\ntime.sleep(300)"
        running = session.stream(code)
        until((tmp_path / "begun").exists)
        began = time.monotonic()
        with Session.connect(gateway.url, gateway.token, kernel_id=session.kernel_id) as other:
            assert other.language == "python"
        assert time.monotonic() - began < AT_ONCE
        running.close()


def test_the_language_of_a_kernel_of_ours(executor: LocalExecutor) -> None:
    assert executor._session is not None
    assert executor._session.language == "python"


def test_output_and_errors(session: Session) -> None:
    assert session.run("echo one; echo two >&2").stdout.split() == ["one", "two"]
    failed = session.run("echo before; (exit 3)")
    assert failed.stdout == "before\n"
    assert failed.error is not None
    assert (failed.error.name, failed.error.value) == ("", "3")
    assert session.run("echo $((6 * 7))").stdout == "42\n"
    # Below what the gateway takes in a second.
    large = session.run("for number in $(seq 300); do printf '%01000d\\n' $number; done").stdout
    assert large.split() == [f"{number:01000}" for number in range(1, 301)]
    events = [event.text for event in session.stream("echo streamed") if hasattr(event, "text")]
    assert "".join(map(str, events)) == "streamed\n"
    assert asyncio.run(session.arun("echo awaited")).stdout == "awaited\n"


@pytest.mark.parametrize("silent", [False, True])
def test_an_interrupted_execution_is_told_as_that(session: Session, tmp_path: Path, *, silent: bool) -> None:
    def interrupt() -> None:
        until((tmp_path / "begun").exists)
        session.interrupt()

    session.run("kept=7")
    thread = threading.Thread(target=interrupt)
    thread.start()
    execution = session.run(begun(tmp_path / "begun"), silent=silent)
    thread.join()
    assert execution.error is not None
    assert execution.error.name == "ExecutionInterrupted"
    assert session.run("echo $kept").stdout == "7\n"


def test_a_timeout_keeps_the_state(session: Session, tmp_path: Path) -> None:
    session.run("kept=8")
    for limit in time_limits():
        with pytest.raises(ExecutionTimeout) as raised:
            session.run(f"echo began\n{begun(tmp_path / 'begun')}", timeout=limit)
        if raised.value.execution is not None and (tmp_path / "begun").exists():
            break
    assert raised.value.restarted is False
    assert raised.value.execution is not None
    assert raised.value.execution.stdout.startswith("began\n")
    assert session.run("echo $kept").stdout == "8\n"


def test_a_cancelled_execution_keeps_the_state(session: Session, tmp_path: Path) -> None:
    async def cancel() -> None:
        task = asyncio.create_task(session.arun(begun(tmp_path / "begun")))
        await asyncio.to_thread(until, (tmp_path / "begun").exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    session.run("kept=9")
    asyncio.run(cancel())
    assert session.run("echo $kept").stdout == "9\n"


def test_a_kernel_that_dies(session: Session) -> None:
    generation = session.generation
    with pytest.raises(KernelDied):
        session.run("kept=1; kill -9 $PPID; sleep 300")
    assert session.run("echo ${kept:-gone}").stdout == "gone\n"
    assert session.generation > generation


def test_steps_of_an_executor(bash: GatewayExecutor) -> None:
    lines: list[str] = []
    bash.on_stdout = lines.append
    result = bash("kept=5; echo hello")
    bash.on_stdout = None
    assert (result.output, result.logs, result.is_final_answer) == (None, "hello\n", False)
    assert "".join(lines) == "hello\n"
    with pytest.raises(AgentExecutionError, match="Error: 4"):
        bash("echo before; (exit 4)")
    assert "before" in bash.state["_print_outputs"]
    assert bash("echo $kept").logs == "5\n"
    assert bash.is_alive()

    async def steps() -> list[Any]:
        return [
            (await bash.arun("echo $kept")).logs,
            [event async for event in bash.astream("echo x")][-1].logs,
        ]

    assert asyncio.run(steps()) == ["5\n", "x\n"]


def test_a_time_limit_and_a_death_of_an_executors_kernel(bash: GatewayExecutor, tmp_path: Path) -> None:
    bash("kept=6")
    for limit in time_limits():
        with pytest.raises(ExecutionTimeout, match="it ran longer than its time limit"):
            bash.run_code_raise_errors(begun(tmp_path / "begun"), timeout=limit)
        if (tmp_path / "begun").exists():
            break
    assert bash("echo $kept").logs == "6\n"
    with pytest.raises(KernelDied, match="The kernel died"):
        bash("kill -9 $PPID; sleep 300")
    assert bash("echo ${kept:-gone}").logs.endswith("gone\n")
    assert bash("echo again").logs == "again\n"


def test_further_kernels_are_of_the_same_kind(bash: GatewayExecutor, gateway: StockGateway) -> None:
    outcomes = bash.run_many(["echo $((1 + 1))", "(exit 5)"], max_kernels=2)
    assert outcomes[0].result().logs == "2\n"
    assert isinstance(outcomes[1].error, AgentExecutionError)
    # Also where the first one was given by its id alone.
    assert bash._session is not None
    shared = GatewayExecutor(url=gateway.url, token=gateway.token, kernel_id=bash._session.kernel_id)
    with shared, shared.new_kernel(inherit=True) as kernel:
        assert kernel("echo $BASH_VERSION").logs.strip()


def upper(text: str) -> str:
    """Return a text in capital letters.

    Args:
        text: The text.
    """
    return text.upper()


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda bash: bash.send_variables({"x": 1}), id="variables"),
        pytest.param(lambda bash: bash.send_variables({"x": object()}), id="unsendable variables"),
        pytest.param(lambda bash: bash.send_tools({"upper": tool(upper)}), id="a tool"),
        pytest.param(lambda bash: bash.send_tools({"final_answer": FinalAnswerTool()}), id="final answer"),
        pytest.param(lambda bash: bash.install_packages(["six"]), id="packages"),
        pytest.param(lambda bash: bash.install_packages(["six==1.16"]), id="a requirement"),
        pytest.param(lambda bash: bash.files.read("x"), id="read"),
        pytest.param(lambda bash: bash.files.write("x", b"x"), id="write"),
        pytest.param(lambda bash: bash.files.upload("/no/such/file", "x"), id="upload"),
        pytest.param(lambda bash: bash.files.exists("x"), id="exists"),
        pytest.param(lambda bash: bash._session.files.list(), id="files of the session"),
        pytest.param(lambda bash: asyncio.run(bash._session.files.alist()), id="async files of the session"),
        pytest.param(lambda bash: asyncio.run(bash.asend_variables({"x": 1})), id="async variables"),
        pytest.param(lambda bash: asyncio.run(bash.asend_tools({"upper": tool(upper)})), id="async tools"),
        pytest.param(lambda bash: asyncio.run(bash.ainstall_packages(["six"])), id="async packages"),
        pytest.param(lambda bash: asyncio.run(bash.files.aremove("x")), id="async files"),
        pytest.param(lambda bash: agent_of(bash, "1"), id="an agent"),
    ],
)  # fmt: skip
def test_what_takes_python_is_refused_at_once(
    bash: GatewayExecutor, ask: Callable[[KernelExecutor], object]
) -> None:
    began = time.monotonic()
    with pytest.raises(UnsupportedKernelError, match=r"takes a kernel that runs Python.*'bash'") as raised:
        ask(bash)
    assert time.monotonic() - began < AT_ONCE
    assert raised.value.language == "bash"
    assert bash("echo goes on").logs == "goes on\n"


def test_nothing_to_send_is_no_error(bash: GatewayExecutor) -> None:
    bash.send_variables({})
    bash.send_tools({})
    assert bash.install_packages([]) == []


def test_an_agent_that_gets_its_executor_later_is_refused(bash: GatewayExecutor) -> None:
    with LocalExecutor() as python:
        agent: CodeAgent = agent_of(python, "1")
        agent.python_executor = bash
        with pytest.raises(UnsupportedKernelError, match="as a CodeAgent always does"):
            agent.run("What is it?")


def test_a_constructor_that_can_not_do_what_it_is_to_leaves_no_kernel() -> None:
    with with_other_kernels("server") as server:
        request = urllib.request.Request(
            f"{server.url}/api/kernels", headers={"Authorization": f"token {server.token}"}
        )
        options: dict[str, Any]
        for options in ({"environment": {"A": "b"}}, {"additional_imports": ["six"]}):
            began = time.monotonic()
            with pytest.raises(UnsupportedKernelError, match="'bash'"):
                GatewayExecutor(url=server.url, token=server.token, kernel_name="bash", **options)
            assert time.monotonic() - began < AT_ONCE
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert json.load(answer) == []


def test_a_connection_that_breaks_is_said_and_the_state_stays(gateway: StockGateway, tmp_path: Path) -> None:
    with FaultProxy(int(gateway.url.rpartition(":")[2])) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        with GatewayExecutor(url=url, token=gateway.token, kernel_name="bash", timeout=60) as bash:
            bash("kept=3")

            def cut() -> None:
                until((tmp_path / "begun").exists)
                proxy.cut("reset")
                (tmp_path / "cut").touch()

            thread = threading.Thread(target=cut)
            thread.start()
            with pytest.raises(ConnectionLost):
                bash(f"touch {tmp_path}/begun; until [ -e {tmp_path}/cut ]; do sleep 0.1; done")
            thread.join()
            assert bash("echo $kept").logs == "3\n"
