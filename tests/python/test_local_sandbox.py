"""The local sandbox, on real gateways and kernels."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import stat
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import processes_with
from kernel_client import KernelClient, request, run
from sandkernel.exceptions import BootError, ClosedError, ConfigurationError
from sandkernel.providers.base import Provider
from sandkernel.providers.gateway import ExistingGateway
from sandkernel.providers.local import LocalSandbox
from sandkernel.providers.local.process import MARKER
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

GRANDCHILDREN = """
import subprocess, os
children = [subprocess.Popen(["sleep", "1000"]), subprocess.Popen(["sleep", "1000"], start_new_session=True)]
# An orphan with a session of its own and nothing in its environment.
middle = subprocess.run(
    ["sh", "-c", "setsid env -i sleep 1000 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True
)
print(os.getpid(), *[child.pid for child in children], middle.stdout.strip())
"""


def alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def all_gone(process_ids: list[int]) -> bool:
    return wait_until(lambda: not any(map(alive, process_ids)))


def kernel_processes(sandbox: LocalSandbox) -> list[int]:
    """The gateway, its kernel, and processes that the kernel started in every way to slip out."""
    ids = [int(word) for word in run(sandbox.endpoint, GRANDCHILDREN).stdout.split()]
    assert len(ids) == 4
    assert all(map(alive, ids))
    return [sandbox.process_id, *ids]


def test_runs_code_in_the_kernel_whose_id_is_known() -> None:
    stages: dict[str, float] = {}
    with LocalSandbox(on_stage=stages.__setitem__) as sandbox:
        assert isinstance(sandbox, Provider)
        assert list(stages) == ["environment", "gateway"]
        status, kernels = request(sandbox.endpoint, "GET", "/api/kernels")
        assert status == 200
        assert [kernel["id"] for kernel in kernels] == [sandbox.endpoint.kernel_id]
        with KernelClient(sandbox.endpoint) as client:
            assert client.run("x = 1 + 1").error is None
            assert client.run("x").result == "2"
            assert client.run("import os; os.getcwd()").result == repr(str(sandbox.directory))
            assert client.run("os.listdir()").result == "[]"
            client.run("open('made', 'w').close()")
        assert [path.name for path in sandbox.directory.iterdir()] == ["made"]
        assert stat.S_IMODE(sandbox.directory.parent.stat().st_mode) == 0o700
    assert not sandbox.directory.parent.exists()


def test_a_kernel_where_unix_sockets_do_not_reach_runs_too(
    nothing_left_behind: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = nothing_left_behind / ("d" * 80)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with LocalSandbox() as sandbox:
        assert run(sandbox.endpoint, "1 + 1").result == "2"
    assert list(deep.iterdir()) == []


SETTINGS = """
import ipykernel, json
(get_ipython().history_manager.hist_file, json.load(open(ipykernel.get_connection_file()))["transport"])
"""


def test_kernels_listen_in_the_sandboxs_directory_and_write_no_history() -> None:
    with LocalSandbox() as sandbox:
        endpoint = sandbox.endpoint
        _, other = request(endpoint, "POST", "/api/kernels")
        for kernel_id in (endpoint.kernel_id, other["id"]):
            with KernelClient(endpoint, kernel_id) as client:
                assert client.run(SETTINGS).result == "(':memory:', 'ipc')"


def test_the_gateway_knows_which_kernel_is_busy() -> None:
    with LocalSandbox() as sandbox, KernelClient(sandbox.endpoint) as client:
        path = f"/api/kernels/{sandbox.endpoint.kernel_id}"
        running = client.send("print('started', flush=True)\nwhile True: pass")
        while client.receive()["msg_type"] != "stream":
            pass
        assert wait_until(lambda: request(sandbox.endpoint, "GET", path)[1]["execution_state"] == "busy")
        request(sandbox.endpoint, "POST", f"{path}/interrupt")
        assert client.outcome(running).error is not None
        assert wait_until(lambda: request(sandbox.endpoint, "GET", path)[1]["execution_state"] == "idle")


def test_interrupt_restart_and_delete_work_on_the_early_kernel() -> None:
    with LocalSandbox() as sandbox:
        endpoint = sandbox.endpoint
        kernel = f"/api/kernels/{endpoint.kernel_id}"
        with KernelClient(endpoint) as client:
            pid = client.run("import os; os.getpid()").result
            running = client.send("import time\nprint('started', flush=True)\ntime.sleep(60)")
            while client.receive()["msg_type"] != "stream":
                pass
            assert request(endpoint, "POST", f"{kernel}/interrupt")[0] == 204
            assert client.outcome(running).error is not None
            assert client.run("os.getpid()").result == pid
        assert request(endpoint, "POST", f"{kernel}/restart")[0] == 200
        outcome = run(endpoint, "import os, sys; print('x' in dir(), sys.executable); os.getpid()")
        assert outcome.result != pid
        assert outcome.stdout == f"False {sandbox.directory.parent}/venv/bin/python\n"
        assert request(endpoint, "DELETE", kernel)[0] == 204
        assert request(endpoint, "GET", kernel)[0] == 404
        status, other = request(endpoint, "POST", "/api/kernels")
        assert status == 201
        with KernelClient(endpoint, other["id"]) as client:
            assert client.run("import sys; sys.prefix").result == repr(f"{sandbox.directory.parent}/venv")


def test_a_dead_kernel_is_replaced() -> None:
    """That its death is noticed at once: see `test_a_death_is_noticed_without_asking`."""
    with LocalSandbox() as sandbox, KernelClient(sandbox.endpoint) as client:
        client.run("x = 1")
        client.send("import os; os._exit(1)")
        while client.receive()["content"].get("execution_state") != "restarting":
            pass
        assert client.run("'x' in dir()").result == "False"


def test_no_output_is_dropped_and_large_messages_pass() -> None:
    with LocalSandbox() as sandbox, KernelClient(sandbox.endpoint) as client:
        outcome = client.run("for _ in range(100_000): print('-' * 99)")
        assert len(outcome.stdout) == 10_000_000
        # Not as code: IPython takes half a second for each megabyte of that.
        assert client.outcome(client.send("1 + 1", ballast="x" * (32 << 20))).result == "2"


@pytest.mark.parametrize("way", ["terminate", "collect", "exception"])
def test_nothing_survives_the_sandbox(way: str) -> None:
    sandbox = LocalSandbox()
    ids = kernel_processes(sandbox)
    root = sandbox.directory.parent
    if way == "terminate":
        sandbox.terminate()
        sandbox.terminate()
    elif way == "collect":
        gone = weakref.ref(sandbox)
        del sandbox
        gc.collect()
        assert gone() is None
    else:
        with pytest.raises(ZeroDivisionError), sandbox:
            raise ZeroDivisionError
    assert not any(map(alive, ids))
    assert not root.exists()


def test_terminate_from_many_threads_at_once() -> None:
    sandbox = LocalSandbox()
    threads = [threading.Thread(target=sandbox.terminate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not alive(sandbox.process_id)


def test_terminate_of_a_stopped_gateway_leaves_nothing() -> None:
    sandbox = LocalSandbox()
    ids = kernel_processes(sandbox)
    os.kill(sandbox.process_id, signal.SIGSTOP)
    sandbox.terminate()
    assert all_gone(ids)


def test_terminate_of_a_gateway_that_does_not_answer_is_bounded() -> None:
    sandbox = LocalSandbox()
    ids = kernel_processes(sandbox)
    # It is stopped again whenever somebody lets it go on.
    stopping = subprocess.Popen(["sh", "-c", f"while kill -STOP {sandbox.process_id}; do :; done"])
    try:
        sandbox.terminate()
        assert all_gone(ids)
    finally:
        stopping.kill()
        stopping.wait()


def test_a_gateway_killed_takes_everything_along() -> None:
    sandbox = LocalSandbox()
    gateway, kernel, *others = kernel_processes(sandbox)
    # ipykernel looks for its parent by itself, each second: not like this.
    os.kill(kernel, signal.SIGSTOP)
    os.kill(gateway, signal.SIGKILL)
    assert all_gone([gateway, kernel, *others])
    sandbox.terminate()
    assert processes_with(f"{MARKER}={sandbox.directory.parent}") == []
    assert not sandbox.directory.parent.exists()


def test_a_gateway_ended_by_a_signal_cleans_up_by_itself() -> None:
    sandbox = LocalSandbox()
    ids = kernel_processes(sandbox)
    os.kill(sandbox.process_id, signal.SIGTERM)
    assert all_gone(ids)
    assert wait_until(lambda: not sandbox.directory.parent.exists())
    sandbox.terminate()


HOST = """
import os, signal, sys, time
sys.path.insert(0, {tests!r})
from kernel_client import run
from sandkernel.providers.local import LocalSandbox
sandbox = LocalSandbox()
print(sandbox.process_id, run(sandbox.endpoint, {grandchildren!r}).stdout.strip(), flush=True)
"""


def host(rest: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A process of its own that has a sandbox, and the processes of that sandbox."""
    program = HOST.format(tests=str(Path(__file__).parent), grandchildren=GRANDCHILDREN) + rest
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, [int(word) for word in process.stdout.readline().split()]


@pytest.mark.parametrize(
    ("rest", "end"),
    [
        pytest.param("", None, id="normal exit"),
        pytest.param("import threading\ndel sandbox\ntime.sleep(0.2)", None, id="collected"),
        pytest.param("sys.exit(3)", None, id="sys.exit"),
        pytest.param("raise SystemError('on purpose')", None, id="exception"),
        pytest.param("os._exit(0)", None, id="os._exit"),
        pytest.param("sys.stdin.read()", signal.SIGTERM, id="SIGTERM"),
        pytest.param("sys.stdin.read()", signal.SIGINT, id="SIGINT"),
        pytest.param("sys.stdin.read()", signal.SIGKILL, id="SIGKILL"),
        # The child holds every pipe of its parent open.
        pytest.param(
            "if os.fork() == 0:\n    time.sleep(30)\n    os._exit(0)\nsys.stdin.read()",
            signal.SIGKILL,
            id="SIGKILL, with a forked child that lives on",
        ),
    ],
)
def test_nothing_survives_the_host(rest: str, end: signal.Signals | None, nothing_left_behind: Path) -> None:
    process, ids = host(rest)
    with process:
        assert len(ids) == 5
        if end is not None:
            process.send_signal(end)
        process.wait(60)
        assert all_gone(ids)
        assert wait_until(lambda: not list(nothing_left_behind.glob("sandkernel-*")))
        for left in processes_with(f"TMPDIR={nothing_left_behind}"):
            os.kill(int(left.partition(":")[0]), signal.SIGKILL)


@pytest.mark.parametrize(
    "leave", ["sys.exit(0)", "os._exit(0)", "sandbox.terminate(); del sandbox; sys.exit(0)"]
)
def test_a_forked_child_does_not_end_its_parents_sandbox(leave: str) -> None:
    rest = (
        f"child = os.fork()\nif child == 0:\n    {leave}\n"
        "os.waitpid(child, 0)\nprint(run(sandbox.endpoint, '6 * 7').result, flush=True)\n"
    )
    process, ids = host(rest)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "42\n"
        process.wait(60)
    assert all_gone(ids)


def test_the_token_is_nowhere_to_be_seen() -> None:
    with LocalSandbox() as sandbox:
        endpoint = sandbox.endpoint
        token = endpoint.token
        assert len(token) >= 32
        assert run(endpoint, "1").result == "1"
        assert request(endpoint, "GET", "/api/kernels", token="wrong")[0] in {401, 403}
        kernel = int(run(endpoint, "import os; os.getpid()").result or 0)
        for process_id in (sandbox.process_id, kernel):
            for name in ("cmdline", "environ"):
                assert token.encode() not in Path(f"/proc/{process_id}/{name}").read_bytes()
        assert token not in repr(endpoint) + repr(sandbox) + sandbox.output()
        looked_at = []
        for directory, _, names in os.walk(sandbox.directory.parent):
            for path in (Path(directory) / name for name in names):
                # What is there for a moment only may be gone.
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file() and not path.is_symlink():
                        assert token.encode() not in path.read_bytes(), path
                        looked_at.append(path)
        assert len(looked_at) > 3
    assert token not in sandbox.output()


def test_a_chatty_gateway_neither_blocks_nor_fills_the_disk() -> None:
    with LocalSandbox() as sandbox:
        # What is written to the usual one takes the way of a thread.
        code = "import os, sys\nfd = sys.stderr._original_stdstream_copy\n"
        assert (
            run(sandbox.endpoint, code + "for _ in range(64): os.write(fd, b'x' * 65535 + b'\\n')").error
            is None
        )
        log = sandbox.directory.parent / "gateway.log"
        assert wait_until(lambda: log.stat().st_size <= 1 << 20)
        run(sandbox.endpoint, code + "os.write(fd, b'the last words\\n')")
        assert "the last words" in sandbox.output()
        assert len(sandbox.output()) <= 64 << 10
    assert "the last words" in sandbox.output()


def bare_environment(directory: Path, sitecustomize: str = "") -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    packages = next(directory.glob("lib/python3*/site-packages"))
    (packages / "sitecustomize.py").write_text(sitecustomize)
    return directory / "bin" / "python"


def test_a_missing_gateway_says_what_to_install(nothing_left_behind: Path) -> None:
    python = bare_environment(nothing_left_behind / "bare")
    with pytest.raises(BootError, match=r"kernel_gateway.*pip install 'sandkernel\[local\]'") as caught:
        LocalSandbox(python=python)
    assert "No module named 'kernel_gateway'" in caught.value.output


def test_a_missing_kernel_says_what_to_install(nothing_left_behind: Path) -> None:
    import site  # noqa: PLC0415

    lines = "\n".join(f"site.addsitedir({path!r})" for path in site.getsitepackages())
    hidden = "sys.modules['ipykernel'] = sys.modules['ipykernel_launcher'] = None"
    python = bare_environment(nothing_left_behind / "bare", f"import site, sys\n{lines}\n{hidden}\n")
    with pytest.raises(BootError, match=r"ipykernel.*pip install 'sandkernel\[local\]'"):
        LocalSandbox(python=python)


def no_interpreter(directory: Path) -> Path:
    return directory / "no" / "python"


def no_python(_: Path) -> Path:
    return Path("/bin/true")


@pytest.mark.parametrize("make", [no_interpreter, no_python])
def test_an_interpreter_that_is_none_is_named(
    make: Callable[[Path], Path], nothing_left_behind: Path
) -> None:
    python = make(nothing_left_behind)
    with pytest.raises(BootError, match=str(python)):
        LocalSandbox(python=python)


def test_a_boot_that_takes_too_long_leaves_nothing() -> None:
    with pytest.raises(BootError, match="boot_timeout"):
        LocalSandbox(boot_timeout=0.05)


def test_a_boot_that_is_interrupted_leaves_nothing() -> None:
    def interrupt(_: str, __: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalSandbox(on_stage=interrupt)


def test_bad_arguments_are_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigurationError, match="--index-url"):
        LocalSandbox(["--index-url=https://example.org"])
    with pytest.raises(ConfigurationError, match="numpy"):
        LocalSandbox("numpy")


def test_use_after_terminate_is_an_error_of_its_own() -> None:
    sandbox = LocalSandbox()
    sandbox.terminate()
    with pytest.raises(ClosedError):
        sandbox.install(["anything"])
    assert "terminated" in repr(sandbox)


def test_an_existing_gateway_is_left_alone() -> None:
    with LocalSandbox() as sandbox:
        existing = ExistingGateway(sandbox.endpoint)
        assert isinstance(existing, Provider)
        existing.terminate()
        assert run(existing.endpoint, "1 + 1").result == "2"
        assert sandbox.endpoint.token not in repr(existing)
