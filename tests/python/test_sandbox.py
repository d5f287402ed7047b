"""The framework-free `Sandbox`: code, variables, functions of this process, kernels, errors."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from smolagents import FinalAnswerTool

from executor_support import running_gateway
from modal_support import cloud, local_modal  # noqa: F401 fixtures
from sandkernel import (
    ClosedError,
    ConfigurationError,
    Execution,
    ExecutionError,
    ExecutionTimeout,
    KernelDied,
    KernelExecutor,
    Output,
    PackageInstallError,
    PayloadError,
    Result,
    Sandbox,
    SandboxGone,
    SandboxPool,
    UnsupportedError,
    VariableNotFoundError,
)
from sandkernel.providers.local import LocalSandbox
from waiting import UNHURRIED, auntil, time_limits, until, wait_for_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sandkernel.testing import LocalModal


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.create("local", timeout=60, session_options={"interrupt_grace": 60.0}) as sandbox:
        yield sandbox


# Code


def test_the_state_stays_and_an_error_of_the_code_is_data(sandbox: Sandbox) -> None:
    execution = sandbox.run("x = 6 * 7\nprint('here')\nx")
    assert (execution.text, execution.stdout, execution.error) == ("42", "here\n", None)
    assert sandbox.last_execution is execution
    failed = sandbox.run("x / 0")
    assert failed.error is not None
    assert failed.error.name == "ZeroDivisionError"
    assert sandbox.run("x").text == "42"


async def test_async(sandbox: Sandbox) -> None:
    assert (await sandbox.arun("kept = 1\nkept")).text == "1"
    await sandbox.aset(given=[1, 2])
    assert await sandbox.aget("given") == [1, 2]
    await sandbox.aprovide(shout=lambda text: text.upper())
    assert (await sandbox.arun("shout('a')")).text == "'A'"
    assert await sandbox.aport_url(80) == "http://127.0.0.1:80"
    assert await sandbox.ainstall([]) == []
    async with await sandbox.anew_kernel() as kernel:
        assert (await kernel.arun("'kept' in globals()")).text == "False"
    [outcome] = await sandbox.arun_many(["given"])
    assert outcome.result().text == "[1, 2]"


def test_callbacks(sandbox: Sandbox) -> None:
    told: list[tuple[str, object]] = []

    def told_of(name: str) -> Callable[[Any], None]:
        return lambda what: told.append((name, what))

    execution = sandbox.run(
        "import sys\nsys.stdout.write('o')\nsys.stderr.write('e')\n7",
        on_stdout=told_of("stdout"),
        on_stderr=told_of("stderr"),
        on_result=lambda result: told.append(("result", result.text)),
    )
    # Between two streams there is no order.
    assert sorted(told, key=str) == [("result", "7"), ("stderr", "e"), ("stdout", "o")]
    assert execution.text == "7"

    def fail(text: str) -> None:
        raise LookupError(text)

    with pytest.raises(LookupError, match="once"):
        sandbox.run("print('once', end='')", on_stdout=fail)
    assert sandbox.last_execution is not None
    assert sandbox.last_execution.stdout == "once"


def test_a_stream_ends_with_its_execution(sandbox: Sandbox) -> None:
    *events, execution = sandbox.stream("print('a')\n1 / 0")
    assert isinstance(execution, Execution)
    assert [type(event) for event in events if not isinstance(event, Output)] == [ExecutionError]
    assert "".join(event.text for event in events if isinstance(event, Output)) == "a\n"
    assert sandbox.last_execution is execution
    with closing(sandbox.stream("print('begun', flush=True)\nwhile True: pass", timeout=None)) as stream:
        assert isinstance(next(stream), Output)
        # The kernel is this stream's until it ends.
        with pytest.raises(ConfigurationError, match="another call of this sandbox"):
            sandbox.run("1")
    assert sandbox.run("2").text == "2"


async def test_an_async_stream(sandbox: Sandbox) -> None:
    async with aclosing(sandbox.astream("print('a')\n2")) as stream:
        *events, execution = [event async for event in stream]
    assert isinstance(execution, Execution)
    assert any(isinstance(event, Result) and event.text == "2" for event in events)
    async with aclosing(sandbox.astream("print(1, flush=True)\nwhile True: pass", timeout=None)) as stream:
        assert isinstance(await anext(stream), Output)
    assert (await sandbox.arun("3")).text == "3"


def test_a_time_limit_ends_the_code_and_keeps_the_state(sandbox: Sandbox) -> None:
    sandbox.run("kept, begun = 5, False")
    for seconds in time_limits():
        with pytest.raises(ExecutionTimeout) as caught:
            sandbox.run("begun = True\nwhile True: pass", timeout=seconds)
        if sandbox.run("begun").text == "True":
            break
    assert caught.value.restarted is False
    assert caught.value.execution is not None
    assert sandbox.run("kept").text == "5"


@pytest.mark.parametrize("timeout", [0, -1, "1", float("nan")])
def test_a_time_limit_that_can_not_be_is_refused(sandbox: Sandbox, timeout: Any) -> None:
    refused = pytest.raises(ConfigurationError, match="timeout is a number of seconds above 0")
    with refused:
        sandbox.run("1", timeout=timeout)
    with refused:
        asyncio.run(sandbox.arun("1", timeout=timeout))
    # At once, not when the first event is asked for.
    with refused:
        sandbox.stream("1", timeout=timeout)
    with refused:
        sandbox.astream("1", timeout=timeout)


def test_code_is_a_text(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigurationError, match="The code is a str, not bytes"):
        sandbox.run(b"1")  # type: ignore[arg-type]


async def test_a_cancelled_run_interrupts_the_kernel(sandbox: Sandbox, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    running = asyncio.create_task(
        sandbox.arun(f"kept = 6\nopen({str(begun)!r}, 'w').close()\nwhile True: pass", timeout=None)
    )
    await auntil(begun.exists)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await sandbox.arun("kept")).text == "6"


def test_calls_from_many_threads_come_one_after_the_other(sandbox: Sandbox) -> None:
    sandbox.run("inside, most = 0, 0")
    code = "inside += 1; most = max(most, inside); inside -= 1"
    threads = [threading.Thread(target=sandbox.run, args=(code,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sandbox.run("most").text == "1"


# Variables


@dataclass
class Point:
    x: int
    y: float


VALUES = [
    None,
    "ä\ud800",
    b"\x00\xff",
    2**100,
    [1, (2, {3}), {"a": [1.5]}],
    {1: "one", (2, 3): "two"},
]


@pytest.mark.parametrize(
    "value", VALUES, ids=[type(value).__name__ + str(i) for i, value in enumerate(VALUES)]
)
def test_a_value_travels_both_ways(sandbox: Sandbox, value: object) -> None:
    sandbox.set(value=value)
    assert sandbox.get("value") == value
    assert type(sandbox.get("value")) is type(value)


def test_large_values_travel_both_ways_and_are_not_kept(sandbox: Sandbox) -> None:
    numbers = np.arange(2_000_000)
    progress: list[tuple[int, int]] = []
    sandbox.set({"numbers": numbers}, on_progress=lambda *of: progress.append(of))
    assert progress[-1][0] == progress[-1][1] > numbers.nbytes
    found = sandbox.get("numbers")
    assert np.array_equal(found, numbers)
    # What was kept for the case that it does not arrive is given back.
    assert sandbox.run("__import__('_sandkernel')._answer").text is None


def test_what_the_code_makes_can_be_had(sandbox: Sandbox) -> None:
    sandbox.run(
        "import dataclasses, threading\n@dataclasses.dataclass\nclass P:\n    x: int\n"
        "found = [P(1), threading.Lock()]"
    )
    with pytest.raises(PayloadError, match=r"The variable 'found' can't be sent: it holds .* at found\[1\]"):
        sandbox.get("found")
    sandbox.run("found.pop()")
    assert sandbox.get("found")[0]["x"] == 1


def test_a_variable_that_is_not_there(sandbox: Sandbox) -> None:
    with pytest.raises(VariableNotFoundError, match="no variable 'nowhere'") as caught:
        sandbox.get("nowhere")
    assert isinstance(caught.value, LookupError)
    # Neither are the built-in ones.
    with pytest.raises(VariableNotFoundError):
        sandbox.get("len")


@pytest.mark.parametrize("name", ["", "a b", "1a", "x.y", "for", "x; y", 3])
def test_a_name_that_is_none(sandbox: Sandbox, name: Any) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        sandbox.set({name: 1})
    with pytest.raises(ConfigurationError, match="name"):
        sandbox.get(name)
    with pytest.raises(ConfigurationError, match="name"):
        sandbox.provide({name: print})


def test_a_value_that_can_not_be_sent(sandbox: Sandbox) -> None:
    with pytest.raises(PayloadError, match="'bad' of type lock"):
        sandbox.set(good=1, bad=threading.Lock())
    with pytest.raises(VariableNotFoundError):
        sandbox.get("good")


def test_no_value_is_unpickled(sandbox: Sandbox) -> None:
    forged = (
        "import _sandkernel, pickle\n"
        "class Evil:\n"
        "    def __reduce__(self): return (print, ('run',))\n"
        "honest = _sandkernel.encode_answer\n"
        "_sandkernel.encode_answer = lambda *_: ('pickle', [pickle.dumps(Evil())])\n"
        "evil = 1"
    )
    sandbox.run(forged)
    try:
        with pytest.raises(PayloadError, match="pickle"):
            sandbox.get("evil")
    finally:
        sandbox.run("_sandkernel.encode_answer = honest")


def test_limits_of_what_comes_from_the_kernel() -> None:
    with Sandbox(LocalSandbox, timeout=60, payload_limits={"payload_bytes": 1000}) as small:
        small.run("text = 'x' * 2000")
        with pytest.raises(PayloadError, match="payload_bytes"):
            small.get("text")


# Functions of this process


def test_functions_of_this_process(sandbox: Sandbox) -> None:
    def search(query: str, limit: int = 2) -> list[str]:
        """Search for a text."""
        return [query] * limit

    def fail() -> None:
        raise KeyError("missing")

    sandbox.provide({"fail": fail}, search=search, parse=json.loads)
    assert sandbox.run("search('a'), search('b', limit=1)").text == "(['a', 'a'], ['b'])"
    assert sandbox.run("parse('[7]')").text == "[7]"
    shown = sandbox.run("search.__doc__").text
    assert shown is not None
    assert "search(query" in shown
    assert "Search for a text." in shown
    assert sandbox.run("try:\n    fail()\nexcept KeyError as error: found = str(error)\nfound").text == repr(
        "'missing'"
    )
    refused = sandbox.run("search()").error
    assert refused is not None
    assert refused.name == "TypeError"
    assert "missing a required argument: 'query'" in refused.value


async def test_a_coroutine_function_is_awaited() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def slow(text: str) -> str:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return text

    with Sandbox.create("local", timeout=60) as sandbox:
        sandbox.provide(slow=slow)
        # By the loop that awaits the code, or by one of the sandbox's.
        assert (await sandbox.arun("slow('a')")).text == "'a'"
        assert (await asyncio.to_thread(sandbox.run, "slow('b')")).text == "'b'"
    assert loops[0] is asyncio.get_running_loop()
    assert loops[1] is not loops[0]


def test_nothing_but_functions_is_bound(sandbox: Sandbox) -> None:
    with sandbox.new_kernel() as kernel:
        before = set(kernel.run("sorted(globals())").results[0].text or "")
        kernel.provide(one=lambda: 1)
        assert kernel.run("one()").text == "1"
        assert kernel.run("'math' in globals() or 'itertools' in globals()").text == "False"
        assert before


def test_a_function_is_there_again_when_the_code_took_its_name(sandbox: Sandbox) -> None:
    sandbox.provide(one=lambda: 1)
    events = list(sandbox.stream("one = 2\none"))
    assert events[-1].text == "2"  # type: ignore[union-attr]
    # What the kernel tells the host of it is no event of the code's.
    assert not any("sandkernel" in str(getattr(event, "mime_types", "")) for event in events)
    assert sandbox.run("one()").text == "1"
    with pytest.raises(ConfigurationError, match="'one' is the name of a function"):
        sandbox.set(one=1)


def test_what_can_not_be_provided(sandbox: Sandbox) -> None:
    class Undescribed:
        __signature__ = "no signature"

        def __call__(self) -> None: ...

    for functions, reason in (
        ({"number": 3}, "'number' can't be called: it is int"),
        ({"merged": Undescribed()}, "signature of the function 'merged' can't be described"),
        ({"final_answer": print}, "final_answer"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            sandbox.provide(functions)  # type: ignore[arg-type]
        assert sandbox.run(f"{next(iter(functions))!r} in globals()").text == "False"


def test_a_function_that_uses_its_own_sandbox_is_told(sandbox: Sandbox) -> None:
    sandbox.provide(inner=lambda: sandbox.run("1").text)
    error = sandbox.run("inner()", timeout=None).error
    assert error is not None
    assert (error.name, "a sandbox of its own" in error.value) == ("ConfigurationError", True)
    with sandbox.new_kernel() as other:
        sandbox.provide(inner=lambda: other.run("6").text)
        assert sandbox.run("inner()").text == "'6'"


def test_a_function_may_be_called_from_threads_at_once(sandbox: Sandbox) -> None:
    meeting = threading.Barrier(3)
    sandbox.provide(meet=lambda: meeting.wait(60) >= 0)
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(3) as pool:\n"
        "    met = list(pool.map(lambda _: meet(), range(3)))\n"
        "met"
    )
    assert sandbox.run(code).text == "[True, True, True]"


# Kernels


def test_a_restart_gives_a_new_state_with_what_was_given(sandbox: Sandbox) -> None:
    sandbox.set(given=1)
    sandbox.provide(two=lambda: 2)
    sandbox.run("lost = 3")
    sandbox.restart()
    assert sandbox.run("given, two(), 'lost' in globals()").text == "(1, 2, False)"


async def test_a_restart_ends_what_runs(sandbox: Sandbox, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = f"open({str(begun)!r}, 'w').close()\nwhile True: pass"
    running = asyncio.create_task(sandbox.arun(code, timeout=None))
    await auntil(begun.exists)
    await sandbox.arestart()
    with pytest.raises(KernelDied):
        await running
    assert (await sandbox.arun("1")).text == "1"


def test_an_interrupt_is_an_error_of_the_code(sandbox: Sandbox, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def interrupt() -> None:
        until(begun.exists)
        sandbox.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    error = sandbox.run(f"open({str(begun)!r}, 'w').close()\nwhile True: pass").error
    thread.join()
    assert error is not None
    assert error.name == "KeyboardInterrupt"


def test_a_kernel_that_died_is_followed_by_another_one(sandbox: Sandbox) -> None:
    sandbox.set(given=4)
    with pytest.raises(KernelDied):
        sandbox.run("import os; os._exit(1)")
    assert sandbox.run("given").text == "4"


def test_further_kernels_share_the_files_alone(sandbox: Sandbox) -> None:
    sandbox.run("mine = 1")
    sandbox.set(inherited=2)
    sandbox.files.write("shared.txt", "text")
    with sandbox.new_kernel() as kernel:
        assert kernel.run(
            "open('shared.txt').read(), 'mine' in globals(), 'inherited' in globals()"
        ).text == ("('text', False, False)")
    with pytest.raises(ClosedError):
        kernel.run("1")
    with sandbox.new_kernel(inherit=True) as kernel:
        assert kernel.run("inherited").text == "2"


def test_many_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.set(base=10)
    met = [
        f"open({str(tmp_path / mine)!r}, 'w').close()\n{wait_for_file(tmp_path / other)}base"
        for mine, other in (("a", "b"), ("b", "a"))
    ]
    outcomes = sandbox.run_many([*met, "1 / 0", "import os; os._exit(1)"], max_kernels=4)
    assert [outcome.result().text for outcome in outcomes[:2]] == ["10", "10"]
    # An error of the code is data here too.
    assert outcomes[2].output is not None
    assert outcomes[2].output.error is not None
    assert isinstance(outcomes[3].error, KernelDied)
    with pytest.raises(KernelDied):
        outcomes[3].result()
    with pytest.raises(ConfigurationError, match="max_kernels"):
        sandbox.run_many(["1"], max_kernels=0)


# The life of a sandbox


def test_after_the_end_every_call_is_refused() -> None:
    closed: list[str] = []
    sandbox = Sandbox.create("local")
    provider = sandbox.provider
    assert isinstance(provider, LocalSandbox)
    kernel = sandbox.new_kernel()
    sandbox.add_close_callback(lambda: closed.append("closed"))
    sandbox.close()
    sandbox.close()
    assert closed == ["closed"]
    assert (sandbox.closed, kernel.closed, provider._process.terminated) == (True, True, True)
    assert not sandbox.is_alive()
    for call in (
        lambda: sandbox.run("1"),
        lambda: list(sandbox.stream("1")),
        lambda: sandbox.set(a=1),
        lambda: sandbox.get("a"),
        lambda: sandbox.provide(one=lambda: 1),
        lambda: sandbox.files.read("a"),
        lambda: sandbox.install(["numpy"]),
        lambda: sandbox.port_url(80),
        sandbox.new_kernel,
        sandbox.interrupt,
        sandbox.restart,
        lambda: sandbox.run_many(["1"]),
        lambda: kernel.run("1"),
    ):
        with pytest.raises(ClosedError, match="This Sandbox is closed: create a new one"):
            call()


def test_a_sandbox_that_ended_is_followed_by_another_one() -> None:
    with Sandbox.create("local", timeout=60, auto_reboot=True, session_options=UNHURRIED) as sandbox:
        assert sandbox.auto_reboot
        sandbox.set(given=1)
        sandbox.provide(two=lambda: 2)
        former = sandbox.provider
        assert isinstance(former, LocalSandbox)
        os.kill(former.process_id, signal.SIGKILL)
        with pytest.raises(SandboxGone):
            sandbox.run("while True: pass")
        # Also what is done beside the code finds it.
        sandbox.interrupt()
        assert sandbox.provider is not former
        assert sandbox.run("given, two()").text == "(1, 2)"


async def test_a_cancelled_creation_leaves_nothing() -> None:
    stages: list[str] = []
    creating = asyncio.create_task(
        Sandbox.acreate("local", on_stage=lambda name, _: stages.append(name))  # begun, not done
    )
    await auntil(lambda: stages)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating


def test_a_forked_child_leaves_its_parents_alone(sandbox: Sandbox) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            sandbox.close()
            sandbox.run("1")
        except BaseException as error:  # noqa: BLE001 the child must not go on with the tests
            said = type(error).__name__
        os.write(writing, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"ForkError"
    os.close(reading)
    os.close(writing)
    assert sandbox.run("1").text == "1"


# Where it comes from


@pytest.mark.parametrize(
    ("arguments", "options", "reason"),
    [
        (("modul",), {}, "no backend 'modul'.*did you mean 'modal'"),
        ((3,), {}, "no backend 3"),
        ((), {}, "takes a backend, 'local' or 'modal', or the url"),
        (("local",), {"url": "http://127.0.0.1:1"}, "a backend or a url, not both"),
        (("local",), {"gpu": "T4"}, "has no option 'gpu'"),
        (("local",), {"pyton": "x"}, "no option 'pyton'.*did you mean 'python'"),
        (("modal",), {"token": "x"}, "has no option 'token'"),
        ((), {"url": "http://127.0.0.1:1", "gpu": "T4"}, r"create\(url=...\) has no option 'gpu'"),
        (("local",), {"packages": "numpy"}, "packages is a sequence of texts"),
        (("local",), {"packages": ["--index-url=x"]}, "--index-url=x"),
        (("local",), {"timeout": 0}, "timeout is a number of seconds above 0"),
        (("local",), {"environment": {"A=": "1"}}, "environment"),
        (("local",), {"session_options": {"colour": 1}}, "session_options has 'colour'"),
        (("local",), {"payload_limits": {"nothing": 1}}, "nothing"),
    ],
)
async def test_what_can_not_work_is_refused_before_anything_is_begun(
    arguments: tuple[Any, ...], options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Sandbox.create(*arguments, **options)
    with pytest.raises(ConfigurationError, match=reason):
        await Sandbox.acreate(*arguments, **options)


def test_packages_that_can_not_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("UV_NO_INDEX", "PIP_NO_INDEX"):
        monkeypatch.setenv(variable, "1")
    with pytest.raises(PackageInstallError, match="no-such-package-of-ours"):
        Sandbox.create("local", packages=["no-such-package-of-ours"])
    with Sandbox.create("local", timeout=60) as sandbox:
        with pytest.raises(PackageInstallError, match="no-such-package-of-ours"):
            sandbox.install(["no-such-package-of-ours"])
        assert sandbox.run("1").text == "1"


def test_on_a_gateway_that_runs() -> None:
    with running_gateway() as gateway:
        options: dict[str, Any] = {"token": gateway.token, "environment": {"GIVEN": "here"}, "timeout": 60}
        with Sandbox.create(url=gateway.url, **options) as sandbox:
            assert gateway.token not in repr(sandbox)
            assert sandbox.run("import os; os.environ['GIVEN']").text == "'here'"
            sandbox.set(given=[1])
            sandbox.provide(double=lambda number: 2 * number)
            sandbox.run("found = [double(given[0])]")
            assert sandbox.get("found") == [2]
            # More than such a gateway lets through at once: it is asked for in pieces.
            sandbox.run("large = 'x' * 20_000_000")
            assert len(sandbox.get("large")) == 20_000_000
            with pytest.raises(UnsupportedError, match="port 8000"):
                sandbox.port_url(8000)
            with sandbox.new_kernel(inherit=True) as kernel:
                assert kernel.run("os = __import__('os'); os.environ['GIVEN'], given").text == "('here', [1])"


def test_on_modal(cloud: LocalModal) -> None:  # noqa: F811 the fixture
    create_kwargs = {"encrypted_ports": [7860]}
    with Sandbox.create("modal", timeout=60, lifetime=600, create_kwargs=create_kwargs) as sandbox:
        assert len(cloud.running_sandboxes()) == 1
        assert sandbox.expires_at is not None
        sandbox.set(given=1)
        assert sandbox.run("given").text == "1"
        assert sandbox.port_url(7860).startswith("https://")
        with pytest.raises(ConfigurationError, match="no tunnel to port 7861, only to 7860"):
            sandbox.port_url(7861)
    assert len(cloud.running_sandboxes()) == 0


@pytest.mark.parametrize("port", [0, 65536, "80", True])
def test_a_port_is_a_number(sandbox: Sandbox, port: Any) -> None:
    with pytest.raises(ConfigurationError, match="A port is a number from 1 to 65535"):
        sandbox.port_url(port)


# What stands on it


def test_an_executor_of_a_sandbox() -> None:
    with Sandbox.create("local", timeout=60) as sandbox:
        sandbox.run("kept = 1")
        sandbox.provide(two=lambda: 2)
        with pytest.raises(ConfigurationError, match="never unpickled"):
            KernelExecutor(sandbox, allow_pickle=True)
        with pytest.raises(ConfigurationError, match="environment is no setting"):
            KernelExecutor(sandbox, environment={"A": "1"})
        executor = KernelExecutor(sandbox, timeout=60)
        executor.send_variables({"sent": 3})
        assert executor("kept, two(), sent").output == "(1, 2, 3)"
        # The functions stay beside the tools of a run.
        executor.send_tools({"final_answer": FinalAnswerTool()})
        result = executor("final_answer(two())")
        assert (result.output, result.is_final_answer) == (2, True)
        assert sandbox.get("sent") == 3
        executor.cleanup()
        assert sandbox.closed


def test_a_pool_of_sandboxes() -> None:
    with SandboxPool(1, lambda: Sandbox.create("local", timeout=60)) as pool:
        with pool.acquire(60) as sandbox:
            assert sandbox.run("1").text == "1"
        assert sandbox.closed
        with pool.acquire(60) as other:
            assert other.provider is not sandbox.provider
