"""Environment variables that the kernels of an executor have, and nobody is shown."""

from __future__ import annotations

import json
import logging
import os
import signal
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from smolagents import CodeAgent, Tool
from smolagents.monitoring import AgentLogger, LogLevel

from executor_support import agent_of, running_gateway
from sandkernel import GatewayExecutor, LocalExecutor, ModalExecutor, SandboxPool
from sandkernel.exceptions import ConfigurationError, KernelDied, PackageInstallError, SandboxGone
from sandkernel.integrations.smolagents import KernelExecutor
from sandkernel.providers.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "s3cr3t-välue with = and 'quotes' and\nlines"
ENVIRONMENT = MappingProxyType({"SEARCH_KEY": SECRET, "EMPTY": "", "LANGUAGE": None})


class KeyedTool(Tool):
    """Looks for its key when it is made."""

    name = "keyed"
    description = "Returns its key."
    inputs = {}  # noqa: RUF012
    output_type = "string"

    def __init__(self) -> None:
        import os  # noqa: PLC0415 it runs in a kernel

        super().__init__()
        self.found = os.environ.get("SEARCH_KEY", "none")

    def forward(self) -> str:
        return self.found


@contextmanager
def local(**options: Any) -> Iterator[KernelExecutor]:
    with LocalExecutor(timeout=60, **options) as executor:
        yield executor


@contextmanager
def gateway(**options: Any) -> Iterator[KernelExecutor]:
    with (
        running_gateway() as running,
        GatewayExecutor(url=running.url, token=running.token, timeout=60, **options) as executor,
    ):
        yield executor


@contextmanager
def own_sandbox(**options: Any) -> Iterator[KernelExecutor]:
    with KernelExecutor(LocalSandbox, timeout=60, **options) as executor:
        yield executor


@contextmanager
def modal(**options: Any) -> Iterator[KernelExecutor]:
    with ModalExecutor(timeout=60, **options) as executor:
        yield executor


def assert_it_is_there(executor: KernelExecutor) -> None:
    code = "import os; os.environ.get('SEARCH_KEY'), os.environ.get('EMPTY'), os.environ.get('LANGUAGE')"
    assert executor(code).output == repr((SECRET, "", None))
    executor("import subprocess; told = subprocess.run(['sh', '-c', 'printf %s \"$SEARCH_KEY\"'], stdout=-1)")
    assert executor("told.stdout.decode()").output == repr(SECRET)


@pytest.mark.parametrize("make", [local, gateway, own_sandbox, modal])
@pytest.mark.usefixtures("cloud")
def test_it_is_in_every_kernel_of_the_executor(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGE", "de")
    with make(environment=ENVIRONMENT) as executor:
        assert_it_is_there(executor)
        # Before tools are made, also those that need it then.
        executor.send_tools({"keyed": KeyedTool()})
        assert executor("keyed()").output == repr(SECRET)
        with executor.new_kernel(inherit=True) as further:
            assert_it_is_there(further)
            assert further("keyed()").output == repr(SECRET)
        [outcome] = executor.run_many(["import os; os.environ['SEARCH_KEY']"])
        assert outcome.result().output == repr(SECRET)
        with pytest.raises(KernelDied):
            executor("import os; os._exit(1)")
        assert_it_is_there(executor)
        assert executor("keyed()").output == repr(SECRET)
        # What the code makes of it is the code's.
        executor("import os; os.environ['SEARCH_KEY'] = 'other'")
        assert executor("import os; os.environ['SEARCH_KEY']").output == "'other'"
        executor._open().restart()
        assert_it_is_there(executor)


def test_it_is_in_the_sandbox_that_follows() -> None:
    for make in (LocalExecutor, lambda **options: KernelExecutor(LocalSandbox, **options)):
        with make(environment=ENVIRONMENT, auto_reboot=True, timeout=60) as executor:
            executor("1")
            os.kill(executor._sandbox.process_id, signal.SIGKILL)
            with pytest.raises(SandboxGone):
                executor("import time; time.sleep(60)")
            assert_it_is_there(executor)


async def test_it_is_there_in_async_twins_and_pools() -> None:
    async with await LocalExecutor.acreate(environment=ENVIRONMENT, timeout=60) as executor:
        assert (await executor.arun("import os; os.environ['SEARCH_KEY']")).output == repr(SECRET)
        async with await executor.anew_kernel() as further:
            assert (await further.arun("import os; os.environ['SEARCH_KEY']")).output == repr(SECRET)


def test_it_is_there_in_a_pool() -> None:
    with (
        SandboxPool(1, lambda: LocalExecutor(environment=ENVIRONMENT, timeout=60)) as pool,
        pool.acquire(60) as executor,
    ):
        assert_it_is_there(executor)


def test_it_is_a_copy() -> None:
    environment: dict[str, str | None] = {"SEARCH_KEY": SECRET}
    with KernelExecutor(LocalSandbox, timeout=60, environment=environment) as executor:
        environment["SEARCH_KEY"] = "changed"
        executor._open().restart()
        assert executor("import os; os.environ['SEARCH_KEY']").output == repr(SECRET)


@pytest.mark.parametrize("make", [local, own_sandbox])
def test_nobody_is_shown_a_value(
    make: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "s3cr3t"
    logger = AgentLogger(level=LogLevel.DEBUG)
    with make(environment={"SEARCH_KEY": secret}, logger=logger) as executor:
        agent = agent_of(executor, "1 / 0", "final_answer(1)", tools=[KeyedTool()])
        agent.run("go")
        shown = [repr(executor), json.dumps(agent.to_dict()), str(agent.memory.get_full_steps())]
        assert "SEARCH_KEY" not in agent.to_dict()["executor_kwargs"]
        assert isinstance(agent, CodeAgent)
        with pytest.raises(PackageInstallError) as caught:
            executor.install_packages(["sandkernel-no-such-package==0.0.1"])
        shown += [str(caught.value), caught.value.output or ""]
        # Not by way of IPython's history, its sources, or the traceback of an error of ours.
        shown.append(str(executor("import linecache; linecache.cache, In, Out, dir()").output))
        shown.append(executor._sandbox.output() if hasattr(executor._sandbox, "output") else "")
    assert secret not in "\n".join([*shown, caplog.text, *capsys.readouterr()])


WRONG = [
    ["SEARCH_KEY", SECRET],
    [("SEARCH_KEY", SECRET)],
    SECRET,
    5,
    {"SEARCH_KEY": 5},
    {"SEARCH_KEY": SECRET.encode()},
    {"SEARCH_KEY": [SECRET]},
    {b"SEARCH_KEY": SECRET},
    {5: SECRET},
    {None: SECRET},
    {"": SECRET},
    {f"SEARCH_KEY={SECRET}": SECRET},
    {"=": SECRET},
    {"SEARCH\0KEY": SECRET},
    {"SEARCH_KEY": SECRET + "\0"},
    {"SEARCH_KEY": SECRET + "\udc80"},
    {"SEARCH\ud800": SECRET},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_what_no_process_can_have_is_refused_at_once(wrong: Any) -> None:
    def must_not_boot() -> Any:
        raise AssertionError("it was booted")

    for make in (
        lambda: LocalExecutor(environment=wrong),
        lambda: GatewayExecutor(url="http://127.0.0.1:9", environment=wrong),
        lambda: ModalExecutor(environment=wrong),
        lambda: KernelExecutor(must_not_boot, environment=wrong),
        lambda: LocalSandbox(environment=wrong),
    ):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert "environment" in str(caught.value)
        assert "s3cr3t" not in str(caught.value)
