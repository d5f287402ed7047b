"""Ours and smolagents' own executor on the same stand-in: the same answers, and more of them."""

from __future__ import annotations

import asyncio
import time
import warnings
from typing import TYPE_CHECKING, Any

import modal
import pytest
import smolagents.remote_executors
from smolagents import Tool
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.utils import AgentExecutionError, AgentGenerationError

from executor_support import agent_of
from sandkernel.exceptions import ExecutionTimeout, PackageInstallError, PayloadError
from sandkernel.integrations.smolagents import ModalExecutor

if TYPE_CHECKING:
    from sandkernel.testing import LocalModal

PEER = smolagents.remote_executors.ModalExecutor
QUIET = AgentLogger(level=LogLevel.OFF)


class CountLetters(Tool):
    name = "count_letters"
    description = "Counts the letters of a text."
    inputs = {"text": {"type": "string", "description": "The text."}}  # noqa: RUF012
    output_type = "integer"

    def forward(self, text: str) -> int:
        count = 0
        for character in text:
            count += character.isalpha()
        return count


SCRIPTS: list[tuple[list[str], dict[str, Any]]] = [
    (["final_answer(6 * 7)"], {}),
    (["x = count_letters('a1b2c3')", "print(x)", "final_answer(x + start)"], {"start": 1}),
    (["1 / 0", "final_answer('recovered')"], {}),
    (["final_answer({'list': [1, 2.5, None], 'text': 'ü'})"], {}),
    (["import math\nfinal_answer([math.floor(value) for value in values])"], {"values": [1.5, 2.5]}),
]


def make(kind: type[Any]) -> Any:
    return kind([], QUIET)


@pytest.mark.parametrize("script", range(len(SCRIPTS)))
def test_the_same_agent_gives_the_same_answer(cloud: LocalModal, script: int) -> None:
    steps, variables = SCRIPTS[script]
    answers = []
    for kind in (PEER, ModalExecutor):
        executor = make(kind)
        try:
            agent = agent_of(executor, *steps, tools=[CountLetters()])
            answers.append(agent.run("go", additional_args=variables))
        finally:
            executor.cleanup()
    assert answers[0] == answers[1]
    assert len(cloud.sandboxes) == 2


def test_arguments_are_those_of_smolagents(cloud: LocalModal) -> None:
    arguments = ([], QUIET, False, "an-app", 8889, {"timeout": 100})
    for kind in (PEER, ModalExecutor):
        executor = kind(*arguments)
        try:
            assert executor("1 + 1").output == "2"
            assert executor.port == 8889
            assert isinstance(executor.sandbox, modal.Sandbox)
        finally:
            executor.delete()
    one, other = cloud.sandboxes
    assert one.app_name == other.app_name == "an-app"
    assert one.definition.timeout_secs == other.definition.timeout_secs == 100
    assert list(one.tunnels) == list(other.tunnels) == [8889]


# What fails in smolagents' own: by the numbers of the list in the documentation.


@pytest.fixture
def ours(cloud: LocalModal) -> Any:  # noqa: ARG001
    with ModalExecutor([], QUIET) as executor:
        yield executor


@pytest.fixture
def peer(cloud: LocalModal) -> Any:  # noqa: ARG001
    executor = PEER([], QUIET)
    try:
        yield executor
    finally:
        executor.cleanup()


def test_1_the_second_run(ours: Any, peer: Any) -> None:
    for executor, fails in ((peer, True), (ours, False)):
        agent = agent_of(executor, "final_answer(1)", "final_answer(2)")
        assert agent.run("go") == 1
        if fails:
            with pytest.raises(AgentGenerationError):
                agent.run("again")
            assert "allow_pickle_setting" in str(agent.memory.steps[1].error)
        else:
            assert agent.run("again") == 2


def test_2_prints_before_an_error_and_plain_tracebacks(ours: Any, peer: Any) -> None:
    steps = []
    for executor in (peer, ours):
        agent = agent_of(executor, "print('before'); 1 / 0", "final_answer(1)")
        agent.run("go")
        steps.append(agent.memory.steps[1])
    assert "before" not in str(steps[0].observations)
    assert "before" in str(steps[1].observations)
    assert "ZeroDivisionError" in str(steps[1].error)
    assert "\x1b[" in str(steps[0].error)
    assert "\x1b[" not in str(steps[1].error)


def test_3_a_limit_of_time_and_a_dead_kernel(ours: Any) -> None:
    # smolagents' waits without end. What the kernel is given first has its time in the same limit.
    ours("0")
    with pytest.raises(ExecutionTimeout, match=r"longer than its time limit of 0\.5 s"):
        ours.run_code_raise_errors("while True: pass", timeout=0.5)
    assert ours("1").output == "1"
    with pytest.raises(Exception, match="kernel died"):
        ours("import os; os._exit(1)")
    assert ours("2").output == "2"


def test_4_answers_that_are_no_200_are_waited_out_without_a_spin(cloud: LocalModal) -> None:
    cloud.faults.slow_boot(1)
    cloud.faults.bad_gateway(0, while_booting=True)
    began = time.monotonic()
    with ModalExecutor([], QUIET) as executor:
        assert executor("1").output == "1"
        (tunnel,) = cloud.sandboxes[0].tunnels.values()
        # Soon twice a second, however long it took.
        assert tunnel.accepted < 4 * (time.monotonic() - began) + 20


def test_5_no_token_in_what_is_logged_or_raised(ours: Any, peer: Any) -> None:
    assert "token=" in peer.ws_url
    token = ours._modal.endpoint.token
    assert token not in ours._session.url
    ours.sandbox.terminate()
    with pytest.raises(Exception, match="sandbox") as raised:
        ours("1")
    error: BaseException | None = raised.value
    while error is not None:
        assert token not in str(error)
        error = error.__cause__


def test_6_a_package_that_cannot_be_installed(ours: Any, peer: Any) -> None:
    assert peer.install_packages(["no-such-package-of-ours"])
    with pytest.raises(PackageInstallError):
        ours.install_packages(["no-such-package-of-ours"])
    assert ours.install_packages(["os.path", "*", "PIL"]) == []


def test_7_an_error_after_create_leaves_nothing(cloud: LocalModal) -> None:
    with pytest.raises(Exception, match="made-up"):
        ModalExecutor([], QUIET, session_options={"made-up": 1})
    cloud.assert_no_running_sandboxes()


PNG = (
    "import base64; from IPython.display import Image, display\n"
    "from PIL import Image as P; import io; b = io.BytesIO(); P.new('RGB', (3, 2)).save(b, 'png')\n"
    "display(Image(b.getvalue()))"
)


def test_8_a_plot(ours: Any, peer: Any) -> None:
    assert peer(PNG).output is None
    assert ours(PNG).output.size == (3, 2)


def test_9_one_connection_for_all_executions(cloud: LocalModal, ours: Any, peer: Any) -> None:
    def accepted(executor: Any) -> int:
        (record,) = [each for each in cloud.sandboxes if each.id == executor.sandbox.object_id]
        return sum(tunnel.accepted for tunnel in record.tunnels.values())

    before = accepted(peer), accepted(ours)
    for _ in range(3):
        peer("1")
        ours("1")
    assert accepted(peer) - before[0] == 3
    assert accepted(ours) - before[1] == 0


async def test_10_in_an_event_loop(cloud: LocalModal) -> None:
    with pytest.warns(modal.exception.AsyncUsageWarning):
        peer = PEER([], QUIET)
    await peer.sandbox.terminate.aio()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with await ModalExecutor.acreate([], QUIET) as executor:
            results = await asyncio.gather(*(executor.arun(str(number)) for number in range(5)))
    assert [result.output for result in results] == ["0", "1", "2", "3", "4"]
    assert len(cloud.sandboxes) == 2


def test_11_a_very_large_output(cloud: LocalModal) -> None:
    options = {"max_output_bytes": 1 << 20}
    with ModalExecutor([], QUIET, session_options=options, max_logs_length=1000) as executor:
        result = executor("for _ in range(200): print('x' * 100_000)")
        assert len(result.logs) < 2000
        assert len(executor.last_execution.stdout) <= (1 << 20) + 200
    assert len(cloud.sandboxes) == 1


def test_12_a_bomb_for_an_answer(ours: Any) -> None:
    bomb = "raise type('FinalAnswerException', (Exception,), {})('safe:' + '[' * 100_000)"
    with pytest.raises((PayloadError, AgentExecutionError)):
        ours(bomb)
    assert ours("1").output == "1"
