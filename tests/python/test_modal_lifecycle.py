"""Every way out of a sandbox on Modal, by what the stand-in has on record."""

from __future__ import annotations

import asyncio
import gc
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import modal
import pytest

from modal_support import program
from sandkernel.exceptions import (
    BootError,
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    SandboxExpired,
    SandboxGone,
)
from sandkernel.integrations.smolagents import ModalExecutor
from sandkernel.sandbox.setup import KernelSetup
from waiting import until, wait_for_file, write_line

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from sandkernel.testing import LocalModal


def reasons(cloud: LocalModal) -> list[str | None]:
    return [record.end_reason for record in cloud.sandboxes]


# In this process


def test_cleanup_delete_and_with(cloud: LocalModal) -> None:
    executor = ModalExecutor()
    executor.cleanup()
    assert reasons(cloud) == ["terminated"]
    executor.cleanup()
    with pytest.raises(ClosedError):
        executor("1")
    ModalExecutor().delete()
    with pytest.raises(KeyError), ModalExecutor():
        raise KeyError
    assert reasons(cloud) == ["terminated"] * 3


def test_garbage_collection(cloud: LocalModal) -> None:
    executor = ModalExecutor()
    del executor
    gc.collect()
    until(lambda: reasons(cloud) == ["terminated"])


def test_an_exception_after_create(cloud: LocalModal, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("after create")

    monkeypatch.setattr(KernelSetup, "prepare", fail)
    with pytest.raises(RuntimeError, match="after create"):
        ModalExecutor()
    assert reasons(cloud) == ["terminated"]


def test_a_logger_that_raises(cloud: LocalModal) -> None:
    class Logger:
        def log(self, text: str, **_: object) -> None:
            if "sandbox sb-" in text or "gateway" in text:
                raise RuntimeError("the logger's own")

    with pytest.raises(RuntimeError, match="the logger's own"):
        ModalExecutor([], Logger())
    gc.collect()
    until(lambda: reasons(cloud) == ["terminated"])


def test_a_create_whose_answer_is_lost_is_found_again(cloud: LocalModal) -> None:
    cloud.faults.create_answer_lost()
    with ModalExecutor() as executor:
        assert executor("6 * 7").output == "42"
    assert reasons(cloud) == ["terminated"]


def test_a_create_that_takes_too_long_is_undone(cloud: LocalModal) -> None:
    cloud.faults.create_takes(1000, after_work=True)
    # The time is that for the creation, and then that for the gateway: on a loaded machine, it is soon over.
    for seconds in (2, 8, 32):
        with suppress(BootError), ModalExecutor(boot_timeout=seconds) as executor:
            assert executor("1").output == "1"
            break
    else:
        raise AssertionError("the sandbox that was created was not found")
    assert set(reasons(cloud)) == {"terminated"}


@pytest.mark.parametrize("after_work", [False, True])
async def test_cancelled_while_create_is_in_flight(cloud: LocalModal, *, after_work: bool) -> None:
    cloud.faults.create_takes(1, after_work=after_work)
    boot = asyncio.create_task(ModalExecutor.acreate())
    await asyncio.to_thread(until, lambda: [call for call in cloud.calls if call.method == "SandboxCreateV2"])
    boot.cancel()
    with pytest.raises(asyncio.CancelledError):
        await boot
    assert reasons(cloud) == ["terminated"]


async def test_cancelled_while_the_gateway_boots(cloud: LocalModal) -> None:
    cloud.faults.refuse_connections()
    boot = asyncio.create_task(ModalExecutor.acreate())
    await asyncio.to_thread(until, lambda: cloud.sandboxes)
    await asyncio.sleep(0.1)
    boot.cancel()
    with pytest.raises(asyncio.CancelledError):
        await boot
    assert reasons(cloud) == ["terminated"]


def test_terminate_that_fails_is_logged_and_the_idle_timeout_reclaims(
    cloud: LocalModal, caplog: pytest.LogCaptureFixture
) -> None:
    # Those who boot it are connected now and then only: it is not to be idle for so long before that.
    with ModalExecutor(idle_timeout=3) as executor:
        executor("1")
        cloud.faults.call_fails("SandboxTerminateV2", "PERMISSION_DENIED", times=None)
    assert "could not be terminated" in caplog.text
    assert "3 s idle" in caplog.text
    until(lambda: reasons(cloud) == ["idle_timeout"])
    cloud.faults.clear()
    caplog.clear()
    executor.cleanup()
    assert caplog.text == ""


# Out of this process

RUN = """
    import os, signal, sys, threading, time
    from sandkernel import ModalExecutor
    executor = ModalExecutor({arguments})
    print(executor("6 * 7").output, flush=True)
    {rest}
"""


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_the_exit_of_the_interpreter(cloud: LocalModal) -> None:
    assert finish(program(cloud, RUN.format(arguments="", rest=""))) == (0, "42\n", "")
    assert reasons(cloud) == ["terminated"]


def test_the_exit_while_modal_is_asked_for_the_end(cloud: LocalModal) -> None:
    """Nothing is under way in the SDK when it closes its connections: it would print that as an error."""
    for method in ("SandboxWait", "SandboxWaitV2"):
        cloud.faults.call_takes(method, 600)
    assert finish(program(cloud, RUN.format(arguments="", rest=""))) == (0, "42\n", "")
    assert reasons(cloud) == ["terminated"]


def test_an_exception_that_ends_the_program(cloud: LocalModal) -> None:
    code, out, err = finish(program(cloud, RUN.format(arguments="", rest="1 / 0")))
    assert (code, out) == (1, "42\n")
    assert "ZeroDivisionError" in err
    assert reasons(cloud) == ["terminated"]


def test_sigterm(cloud: LocalModal) -> None:
    process = program(cloud, RUN.format(arguments="", rest="executor('import time; time.sleep(600)')"))
    assert process.stdout is not None
    assert process.stdout.readline() == "42\n"
    process.send_signal(signal.SIGTERM)
    # Who waits sees that the signal ended it.
    assert finish(process)[0] == -signal.SIGTERM
    assert reasons(cloud) == ["terminated"]


def test_sigterm_in_a_program_on_asyncio(cloud: LocalModal) -> None:
    text = """
        import asyncio
        from sandkernel import ModalExecutor

        async def main():
            executor = await ModalExecutor.acreate()
            print((await executor.arun("6 * 7")).output, flush=True)
            await asyncio.sleep(600)

        asyncio.run(main())
    """
    process = program(cloud, text)
    assert process.stdout is not None
    assert process.stdout.readline() == "42\n"
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == -signal.SIGTERM
    assert reasons(cloud) == ["terminated"]


def test_a_programs_own_sigterm_handler_stays(cloud: LocalModal) -> None:
    rest = """
    assert signal.getsignal(signal.SIGTERM) is handler
    signal.raise_signal(signal.SIGTERM)
    """
    text = RUN.format(arguments="", rest=rest).replace(
        "    executor = ",
        "    handler = lambda *_: sys.exit(5)\n    signal.signal(signal.SIGTERM, handler)\n    executor = ",
    )
    assert finish(program(cloud, text)) == (5, "42\n", "")
    assert reasons(cloud) == ["terminated"]


def test_a_killed_host_is_reclaimed_by_the_idle_timeout(cloud: LocalModal) -> None:
    rest = "os.kill(os.getpid(), signal.SIGKILL)"
    assert finish(program(cloud, RUN.format(arguments="idle_timeout=3", rest=rest)))[0] == -signal.SIGKILL
    until(lambda: reasons(cloud) == ["idle_timeout"])


def test_a_forked_child_neither_uses_nor_ends_it(cloud: LocalModal) -> None:
    rest = """
    child = os.fork()
    if not child:
        from sandkernel import ForkError
        try:
            executor("1")
        except ForkError:
            print("ForkError", flush=True)
        executor.cleanup()
        # With exit handlers.
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(executor("1 + 1").output, flush=True)
    """
    code, out, err = finish(program(cloud, RUN.format(arguments="", rest=rest)))
    assert (code, out) == (0, "42\nForkError\n2\n"), err
    assert reasons(cloud) == ["terminated"]


@pytest.mark.parametrize("when", ["create", "gateway"])
def test_ctrl_c_while_it_boots(cloud: LocalModal, when: str) -> None:
    if when == "create":
        cloud.faults.create_takes(1, after_work=True)
    else:
        cloud.faults.refuse_connections()
    text = """
        from sandkernel import ModalExecutor
        try:
            ModalExecutor()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    process = program(cloud, text)
    until(lambda: cloud.sandboxes)
    process.send_signal(signal.SIGINT)
    assert finish(process) == (0, "interrupted\n", "")
    assert reasons(cloud) == ["terminated"]


# Its life


def test_reattached_by_id_with_all_state(cloud: LocalModal) -> None:
    first = ModalExecutor(idle_timeout=60)
    first("x = 41")
    token = first._modal.endpoint.token
    sandbox_id = first.detach()
    with pytest.raises(ClosedError):
        first("x")
    first.cleanup()
    assert reasons(cloud) == [None]
    second = ModalExecutor.from_id(sandbox_id)
    assert second("x + 1").output == "42"
    assert second.sandbox_id == sandbox_id
    assert second.port == 8888
    assert second.expires_at == first.expires_at.replace(microsecond=0)
    second.detach()
    # Without a command in the sandbox, where the token is known.
    calls = len(cloud.calls)
    with ModalExecutor.from_id(sandbox_id, token=token) as third:
        assert third("x").output == "41"
        assert not [call for call in cloud.calls[calls:] if "Exec" in call.method]
    assert reasons(cloud) == ["terminated"]
    with pytest.raises(SandboxGone, match="has ended"):
        ModalExecutor.from_id(sandbox_id)


@pytest.mark.parametrize("options", [{}, {"gpu": "T4"}], ids=["V2", "V1"])
async def test_reattached_by_name(cloud: LocalModal, options: dict[str, str]) -> None:
    first = await ModalExecutor.acreate(name="mine", **options)
    await first.arun("x = 41")
    await asyncio.to_thread(first.detach)
    async with await ModalExecutor.afrom_name("mine") as second:
        assert (await second.arun("x + 1")).output == "42"
    assert reasons(cloud) == ["terminated"]


def test_reattached_from_another_process(cloud: LocalModal) -> None:
    rest = "print(executor.detach(), flush=True)"
    code, out, _ = finish(program(cloud, RUN.format(arguments="", rest="executor('x = 1'); " + rest)))
    assert code == 0
    with ModalExecutor.from_id(out.split()[-1]) as executor:
        assert executor("x").output == "1"


@pytest.mark.parametrize("sandbox_id", ["sb-nonesuch", "nonsense"])
def test_reattaching_to_nothing(cloud: LocalModal, sandbox_id: str) -> None:
    with pytest.raises(ConfigurationError):
        ModalExecutor.from_id(sandbox_id)
    with pytest.raises(ConfigurationError):
        ModalExecutor.from_name("nonesuch")
    assert cloud.sandboxes == []


def test_reattaching_to_a_sandbox_of_others(cloud: LocalModal) -> None:
    app = modal.App.lookup("others", create_if_missing=True)
    sandbox = modal.Sandbox.create("sleep", "60", app=app)
    with pytest.raises(ConfigurationError, match="not made by sandkernel"):
        ModalExecutor.from_id(sandbox.object_id)
    # It is not ours to end either.
    assert reasons(cloud) == [None]
    sandbox.terminate()


def test_the_end_of_its_lifetime_is_reported_as_that(cloud: LocalModal) -> None:
    with ModalExecutor(lifetime=100) as executor:
        executor.on_stdout = lambda _: cloud.sandboxes[0].expire()
        with pytest.raises(SandboxExpired, match="reached its lifetime of 100 s") as raised:
            executor(f"{write_line('begun')}; import time; time.sleep(600)")
        assert isinstance(raised.value.__cause__, ConnectionLost)
        assert raised.value.execution is not None
        assert raised.value.execution.stdout == "begun\n"
    assert reasons(cloud) == ["timeout"]


async def test_a_sandbox_that_someone_else_ends(cloud: LocalModal) -> None:
    async with await ModalExecutor.acreate() as executor:
        await asyncio.to_thread(executor.sandbox.terminate)
        with pytest.raises(SandboxGone, match="all state is gone"):
            await executor.arun("1")
    assert reasons(cloud) == ["terminated"]


def test_a_connection_that_breaks_is_no_end_of_the_sandbox(cloud: LocalModal, tmp_path: Path) -> None:
    with ModalExecutor() as executor:
        cuts: list[int] = []

        def cut(_: str) -> None:
            if not cuts:
                cuts.append(cloud.sandboxes[0].cut())
                (tmp_path / "cut").touch()

        executor.on_stdout = cut
        # It is taken up where it was: see journal.py.
        code = f"{write_line('before')}\n{wait_for_file(tmp_path / 'cut')}print('after')\n'done'"
        output = executor(code)
        assert (output.logs, output.output) == ("before\nafter\n", "'done'")
        assert cuts[0] > 0
        sandbox_id = executor.detach()
    with ModalExecutor.from_id(sandbox_id):
        assert reasons(cloud) == [None]


def test_a_connection_that_does_not_come_back_is_no_end_of_the_sandbox(
    cloud: LocalModal, tmp_path: Path
) -> None:
    with ModalExecutor(session_options={"reconnect_timeout": 0.2}) as executor:
        # Also those that are opened later.
        executor.on_stdout = lambda _: cloud.faults.cut_after(1)
        there = f"os.path.exists({str(tmp_path / 'lost')!r})"
        with pytest.raises(ConnectionLost):
            executor(f"import os, time\nwhile not {there}: print('.', flush=True); time.sleep(0.1)")
        # Whoever takes its kernel over waits for what runs there.
        (tmp_path / "lost").touch()
        cloud.faults.clear()
        # Its kernel may be taken over again.
        sandbox_id = executor.detach()
    with ModalExecutor.from_id(sandbox_id):
        assert reasons(cloud) == [None]
