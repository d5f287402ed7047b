"""Sandboxes that end under an executor, and those that take their place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from smolagents import FinalAnswerTool, tool

from executor_support import agent_of, running_gateway
from fault_proxy import FaultProxy
from sandkernel import GatewayExecutor, LocalExecutor, ModalExecutor, Session
from sandkernel.exceptions import (
    BootError,
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    SandboxGone,
)
from sandkernel.integrations.smolagents import KernelExecutor
from sandkernel.providers.local import LocalSandbox
from waiting import until
from wheels import make_wheel, only_from

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandkernel.testing import LocalModal

SLEEPS = "print('begun\\n', end='', flush=True)\nimport time\ntime.sleep(60)"
# So that the tests need not wait for a gateway that does not come back.
AT_ONCE = {"reconnect_timeout": 0.2}


@tool
def double(number: int) -> int:
    """Double a number.

    Args:
        number: The number.
    """
    return number * 2


def provide(executor: KernelExecutor) -> None:
    executor.send_variables({"sent": (1, 2)})
    executor.send_tools({"double": double, "final_answer": FinalAnswerTool()})
    executor("own = 1")


def assert_provided(executor: KernelExecutor) -> None:
    result = executor("double(21), sent, 'own' in globals()")
    assert result.output == "(42, (1, 2), False)"
    assert result.logs.count("[Note: the sandbox had ended, and a new one has taken its place") == 1
    again = executor("double(21), sent")
    assert (again.output, again.logs) == ("(42, (1, 2))", ""), "the model was told twice"
    assert executor("final_answer(sent)").output == (1, 2)


def kill(executor: LocalExecutor) -> None:
    os.kill(executor._sandbox.process_id, signal.SIGKILL)


def end_under(executor: LocalExecutor, ledger: Path) -> SandboxGone:
    """Kill the gateway under running code, and return the error."""
    code = f"with open({str(ledger)!r}, 'a') as file: file.write('ran;')\n{SLEEPS}"
    killer = threading.Thread(target=kill_when_running, args=(executor, ledger, len(contents(ledger))))
    killer.start()
    with pytest.raises(SandboxGone) as raised:
        executor(code)
    killer.join()
    return raised.value


def contents(ledger: Path) -> str:
    return ledger.read_text() if ledger.exists() else ""


def kill_when_running(executor: LocalExecutor, ledger: Path, before: int) -> None:
    until(lambda: len(contents(ledger)) > before, 60)
    kill(executor)


@pytest.fixture
def rebooting() -> Iterator[LocalExecutor]:
    with LocalExecutor(timeout=60, auto_reboot=True, session_options=AT_ONCE) as executor:
        provide(executor)
        yield executor


def test_the_next_call_boots_a_new_sandbox(rebooting: LocalExecutor, tmp_path: Path) -> None:
    ledger, former = tmp_path / "ledger", rebooting._sandbox
    error = end_under(rebooting, ledger)
    assert "ended by signal 9: all state is gone" in str(error)
    assert isinstance(error.__cause__, ConnectionLost)
    assert error.execution is not None
    assert_provided(rebooting)
    assert rebooting._sandbox is not former
    assert former._process.terminated
    # The code was not run again.
    assert contents(ledger) == "ran;"


def test_without_it_later_calls_fail_at_once(tmp_path: Path) -> None:
    with LocalExecutor(timeout=60, session_options=AT_ONCE) as executor:
        end_under(executor, tmp_path / "ledger")
        with pytest.raises(SandboxGone):
            executor("1")
        with pytest.raises(SandboxGone):
            executor.send_variables({"a": 1})
        assert not executor.is_alive()


def test_an_idle_sandbox_that_ended(rebooting: LocalExecutor) -> None:
    kill(rebooting)
    with pytest.raises(SandboxGone):
        rebooting("1")
    assert_provided(rebooting)


async def test_in_an_event_loop(rebooting: LocalExecutor) -> None:
    kill(rebooting)
    with pytest.raises(SandboxGone):
        await rebooting.arun("1")
    events: list[Any] = [event async for event in rebooting.astream("double(21)")]
    assert events[-1].output == "42"
    seen = []
    with pytest.raises(SandboxGone) as raised:  # noqa: PT012
        async for event in rebooting.astream(SLEEPS):
            seen.append(event.text)
            kill(rebooting)
    assert "".join(seen) == "begun\n"
    # What had arrived is there, and no more was waited for than that the process has ended.
    assert raised.value.execution is not None
    assert raised.value.execution.stdout == "begun\n"
    assert (await rebooting.arun("double(21)")).output == "42"
    kill(rebooting)
    with pytest.raises(SandboxGone):
        await rebooting.asend_variables({"b": 1})
    assert (await rebooting.arun("double(21)")).output == "42"


def test_an_agent_goes_on(rebooting: LocalExecutor, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    steps = [
        f"import time\nwith open({str(ledger)!r}, 'a') as file: file.write('ran;')\ntime.sleep(60)",
        "print(double(4))",
        "final_answer(double(21))",
    ]
    agent = agent_of(rebooting, *steps, tools=[double])
    killer = threading.Thread(target=kill_when_running, args=(rebooting, ledger, 0))
    killer.start()
    assert agent.run("What is it?") == 42
    killer.join()
    seen = agent.model.seen
    assert "The local sandbox ended by signal 9: all state is gone" in seen[1]
    assert seen[2].count("a new one has taken its place") == 1


def test_packages_are_there_again(tmp_path: Path) -> None:
    for name in ("sandfirst", "sandlater"):
        make_wheel(tmp_path, name)
    with LocalExecutor(
        ["sandfirst"],
        timeout=60,
        auto_reboot=True,
        environment=only_from(tmp_path),
        session_options=AT_ONCE,
    ) as executor:
        assert executor.install_packages(["sandlater"]) == ["sandlater"]
        kill(executor)
        with pytest.raises(SandboxGone):
            executor("1")
        assert executor("import sandfirst, sandlater; sandlater.version").output == "'1.0'"
        assert executor.installed_packages == ["sandfirst", "sandlater"]


def directories(where: Path) -> list[Path]:
    return list(where.glob("sandkernel-*"))


class Boots:
    """A factory that can be made to fail, and counts."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.made: list[LocalSandbox] = []

    def __call__(self) -> LocalSandbox:
        assert all(sandbox._process.terminated for sandbox in self.made), "two sandboxes are alive"
        if self.failures:
            raise self.failures.pop()
        self.made.append(LocalSandbox())
        return self.made[-1]


@contextmanager
def booted_by(boots: Boots) -> Iterator[KernelExecutor]:
    with KernelExecutor(
        boots, timeout=60, install=False, auto_reboot=True, session_options=AT_ONCE
    ) as executor:
        provide(executor)
        yield executor
    assert all(sandbox._process.terminated for sandbox in boots.made)


def test_a_reboot_that_fails_can_be_tried_again() -> None:
    boots = Boots()
    with booted_by(boots) as executor:
        kill(executor)
        with pytest.raises(SandboxGone):
            executor("1")
        boots.failures.append(BootError("no room"))
        with pytest.raises(BootError, match="no room"):
            executor("1")
        assert_provided(executor)


def test_a_new_sandbox_that_ends_while_it_is_provided(monkeypatch: pytest.MonkeyPatch) -> None:
    boots = Boots()
    with booted_by(boots) as executor:
        kill(executor)
        with pytest.raises(SandboxGone):
            executor("1")
        prepare = executor._provision.prepare

        def prepare_once_in_vain() -> Any:
            monkeypatch.setattr(executor._provision, "prepare", prepare)
            kill(executor)
            return prepare()

        monkeypatch.setattr(executor._provision, "prepare", prepare_once_in_vain)
        with pytest.raises(SandboxGone):
            executor("1")
        assert_provided(executor)
        assert len(boots.made) == 3


async def test_a_cancelled_reboot_leaves_nothing_and_can_be_tried_again(nothing_left_behind: Path) -> None:
    executor = await LocalExecutor.acreate(timeout=60, auto_reboot=True, session_options=AT_ONCE)
    async with executor:
        await asyncio.to_thread(provide, executor)
        kill(executor)
        with pytest.raises(SandboxGone):
            await executor.arun("1")
        for seconds in (0, 0.1, 0.4):
            task = asyncio.create_task(executor.arun("1"))
            await asyncio.sleep(seconds)
            task.cancel()
            # Where this loop had no turn for long, it was done already.
            with suppress(asyncio.CancelledError):
                await task
            if executor._reboots.is_due:
                assert directories(nothing_left_behind) == []
        assert (await executor.arun("double(21), sent")).output == "(42, (1, 2))"


def test_closed_in_another_thread_while_it_boots(nothing_left_behind: Path) -> None:
    executor = LocalExecutor(timeout=60, auto_reboot=True, session_options=AT_ONCE)
    kill(executor)
    with pytest.raises(SandboxGone):
        executor("1")
    errors: list[BaseException] = []

    def call() -> None:
        try:
            executor(SLEEPS)
        except BaseException as error:  # noqa: BLE001 looked at below
            errors.append(error)

    calling = threading.Thread(target=call)
    calling.start()
    # A new sandbox is under way: it has a directory.
    until(lambda: directories(nothing_left_behind))
    executor.cleanup()
    calling.join()
    assert [type(error) for error in errors] == [ClosedError]
    assert directories(nothing_left_behind) == []


def test_it_takes_a_function() -> None:
    with LocalSandbox() as sandbox, pytest.raises(ConfigurationError, match="a function that boots"):
        KernelExecutor(sandbox, auto_reboot=True)


# On a gateway that someone else runs.


def test_a_new_kernel_once_the_gateway_is_back() -> None:
    with contextlib.ExitStack() as stack:
        with running_gateway() as gateway:
            # It stands for the gateway's address, which somebody else may have taken when the next one comes.
            proxy = stack.enter_context(FaultProxy(port_of(gateway.url)))
            options = {"url": proxy.url, "token": gateway.token, "session_options": AT_ONCE}
            executor = GatewayExecutor(timeout=60, auto_reboot=True, **options)
            provide(executor)
        with pytest.raises(SandboxGone, match="The gateway or its kernel is gone"):
            executor("1")
        with running_gateway(gateway.token) as again:
            proxy.target = port_of(again.url)
            assert_provided(executor)
            executor.cleanup()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_a_shared_kernel_that_was_deleted(executor: LocalExecutor) -> None:
    endpoint = executor._sandbox.endpoint
    shared = Session.connect(endpoint.url, endpoint.token)
    options = {"url": endpoint.url, "token": endpoint.token, "timeout": 60, "auto_reboot": True}
    with GatewayExecutor(kernel_id=shared.kernel_id, **options) as sharing:
        provide(sharing)
        shared.close()
        # The gateway does not tell, so that it is found out when the code is to be interrupted.
        with pytest.raises(SandboxGone, match=shared.kernel_id):
            sharing.run_code_raise_errors("1", timeout=0.5)
        assert_provided(sharing)


# On Modal.


def reasons(cloud: LocalModal) -> list[str | None]:
    return [record.end_reason for record in cloud.sandboxes]


def test_a_sandbox_on_modal_whose_lifetime_is_over(cloud: LocalModal) -> None:
    with ModalExecutor(timeout=60, auto_reboot=True, lifetime=100, name="mine") as executor:
        provide(executor)
        first, expires_at = executor.sandbox_id, executor.expires_at
        threading.Timer(0.3, cloud.sandboxes[0].expire).start()
        with pytest.raises(SandboxGone):
            executor(SLEEPS)
        assert_provided(executor)
        assert executor.sandbox_id == executor.sandbox.object_id == cloud.sandboxes[1].id != first
        assert executor.expires_at > expires_at
        assert reasons(cloud) == ["timeout", None]
        sandbox_id = executor.detach()
    with ModalExecutor.from_id(sandbox_id) as executor:
        assert executor("sent").output == "(1, 2)"
    assert reasons(cloud) == ["timeout", "terminated"]


async def test_a_cancelled_reboot_on_modal(cloud: LocalModal) -> None:
    async with await ModalExecutor.acreate(timeout=60, auto_reboot=True) as executor:
        await asyncio.to_thread(executor.sandbox.terminate)
        with pytest.raises(SandboxGone):
            await executor.arun("1")
        cloud.faults.create_takes(1, times=1)
        task = asyncio.create_task(executor.arun("1"))
        await asyncio.to_thread(
            until, lambda: [call.method for call in cloud.calls].count("SandboxCreateV2") == 2
        )
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cloud.faults.clear()
        assert None not in reasons(cloud)
        assert (await executor.arun("6 * 7")).output == "42"
        assert reasons(cloud).count(None) == 1
