"""Code that exits ends itself; the kernel and its state stay, in kernels of ours and of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from smolagents.utils import AgentExecutionError

from executor_support import running_gateway
from sandkernel import GatewayExecutor, LocalExecutor, Session
from sandkernel.exceptions import KernelDied
from sandkernel.providers.local import LocalSandbox
from waiting import wait_for_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The last of what the model is shown.
EXIT = "SystemExit"
WITH_3 = "SystemExit: 3"

ENDS = {
    "exit()": EXIT,
    "quit()": EXIT,
    "exit(3)": WITH_3,
    "quit('enough')": "SystemExit: enough",
    "exit(keep_kernel=False)": EXIT,
    "get_ipython().ask_exit()": EXIT,
    "import sys; sys.exit()": EXIT,
    "import sys; sys.exit(3)": WITH_3,
    "raise SystemExit": EXIT,
    "def inner():\n    quit()\n(lambda: inner())()": EXIT,
    "class Leaver:\n    def __del__(self): pass\n    def __repr__(self): exit(3)\nstr(Leaver())": WITH_3,
    "try:\n    exit(3)\nexcept Exception:\n    kept = 0": WITH_3,
    "%%capture\nexit()": EXIT,
    "import asyncio\nawait asyncio.sleep(0)\nexit(3)": WITH_3,
    "import asyncio\nasync def inner():\n    exit(3)\nawait asyncio.gather(inner())": WITH_3,
    "import asyncio\nasync def inner():\n    raise SystemExit(3)\nawait asyncio.create_task(inner())": WITH_3,
    "import asyncio\nasync def inner():\n    exit(3)\nasyncio.run(inner())": WITH_3,
    "import asyncio\nasyncio.get_event_loop().stop()\nkept = 0": EXIT,
    "import asyncio\nawait asyncio.sleep(0)\nasyncio.get_running_loop().stop()\nkept = 0": EXIT,
    "get_ipython().kernel.io_loop.stop()\nkept = 0": EXIT,
    "import asyncio\nasyncio.get_event_loop().close()": "Cannot close a running event loop",
    "get_ipython().kernel.io_loop.close()": "Cannot close a running event loop",
    "get_ipython().kernel.io_loop.close(all_fds=True)": "Cannot close a running event loop",
}
# Alone: with a line after them, the first two are expressions, and the last says that its code has ended.
ALONE = ["exit", "quit", "get_ipython().run_cell('exit()')", "get_ipython().run_line_magic('time', 'exit()')"]
GOES_ON = [
    "get_ipython().exit_now = True",
    "import threading\nthread = threading.Thread(target=exit)\nthread.start()\nthread.join()",
    "import threading\nask = get_ipython().ask_exit\nthreading.Thread(target=ask).start()",
    "import threading\nstop = get_ipython().kernel.io_loop.stop\nthreading.Thread(target=stop).start()",
    "import asyncio\nloop = asyncio.get_event_loop()\nloop.call_soon_threadsafe(loop.stop)",
    "import asyncio\nloop = asyncio.get_event_loop()\nloop.call_soon(loop.stop)\nawait asyncio.sleep(0.1)",
    "import asyncio\nasyncio.get_event_loop().call_soon(exit)",
    "import asyncio\nasync def inner():\n    exit()\ntask = asyncio.ensure_future(inner())",
    "import asyncio\nasync def inner():\n    raise KeyboardInterrupt\ntask = asyncio.ensure_future(inner())",
    "import asyncio\nfor task in asyncio.all_tasks():\n    task.cancel()",
]
# Processes that are to end: the status, as `os.wait` has it, is printed.
CHILDREN = {
    "if os.fork() == 0: exit(3)": 3,
    "if os.fork() == 0: quit()": 0,
    "if os.fork() == 0: sys.exit('enough')": 1,
    "if os.fork() == 0: raise SystemExit(3)": 3,
    "if os.fork() == 0: os._exit(3)": 3,
    "if os.fork() == 0: 1 / 0": 1,
    "child = os.fork()\nif child: pass\nelse:\n    1\n    print(end='')\n    raise SystemExit": 0,
    "import threading\nif os.fork() == 0:\n    threading.Thread(target=exit).start()\n    exit(3)": 3,
    "subprocess.Popen([sys.executable, '-c', 'exit(3)'])": 3,
}


@pytest.fixture(scope="module", params=["ours", "stock"])
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "ours":
        with LocalExecutor(timeout=60) as executor:
            yield executor
    else:
        with (
            running_gateway() as gateway,
            GatewayExecutor(url=gateway.url, token=gateway.token, timeout=60) as executor,
        ):
            yield executor


@pytest.mark.parametrize(("code", "shown"), ENDS.items())
def test_code_that_exits_ends_itself(executor: Any, code: str, shown: str) -> None:
    executor("kept = 41")
    with pytest.raises(AgentExecutionError) as caught:
        executor(code + "\nkept = 0")
    assert str(caught.value).rstrip(":").endswith(shown)
    assert_it_stays(executor)


@pytest.mark.parametrize("code", ALONE)
def test_a_line_that_exits_ends_itself(executor: Any, code: str) -> None:
    executor("kept = 41")
    with pytest.raises(AgentExecutionError, match=EXIT):
        executor(code)
    assert_it_stays(executor)


@pytest.mark.parametrize("code", GOES_ON)
def test_code_of_which_something_else_exits_goes_on(executor: Any, code: str) -> None:
    executor("kept = 0")
    executor(code + "\nkept = 41")
    assert_it_stays(executor)


def assert_it_stays(executor: Any) -> None:
    # Longer than a kernel takes to end after it was asked to.
    assert executor("import time, asyncio; time.sleep(0.15); kept").output == "41"
    assert executor("await asyncio.sleep(0.01); kept + 1").output == "42"


@pytest.mark.parametrize(("code", "status"), CHILDREN.items())
def test_a_child_still_exits(executor: Any, code: str, status: int) -> None:
    code = f"import os, subprocess, sys\n{code}\nos.waitstatus_to_exitcode(os.wait()[1])"
    assert executor(code).output == str(status)
    assert executor("1 + 1").output == "2"


def test_children_of_multiprocessing_exit(executor: Any) -> None:
    code = """
import multiprocessing
context = multiprocessing.get_context("fork")
processes = [context.Process(target=target, args=(3,)) for target in (exit, quit)]
for process in processes:
    process.start()
    process.join()
[process.exitcode for process in processes]
"""
    assert executor(code).output == "[3, 3]"


def test_a_forked_child_that_runs_on_does_not_become_a_second_kernel(executor: Any, tmp_path: Path) -> None:
    # What a child writes comes when it comes: the code ends once it was heard.
    executor.on_stdout = lambda _: (tmp_path / "heard").touch()
    waits = wait_for_file(tmp_path / "heard").replace("\n", "\n    ")
    code = f"import os\nif os.fork() == 0: print('child')\nelse:\n    os.wait()\n    {waits}\n'the value'"
    output = executor(code)
    executor.on_stdout = None
    assert (output.output, output.logs.count("child")) == ("'the value'", 1)


@pytest.mark.parametrize("code", ["import os; os._exit(3)", "import os; os.kill(os.getpid(), 15)"])
def test_a_death_stays_a_death(executor: Any, code: str) -> None:
    with pytest.raises(KernelDied):
        executor(code)
    # And the kernel that comes after it has it, too.
    executor("kept = 41")
    with pytest.raises(AgentExecutionError, match=EXIT):
        executor("exit()")
    assert_it_stays(executor)


CLOSING = [
    "get_ipython().kernel.iopub_thread.socket.close()",
    "get_ipython().kernel.iopub_thread.close()",
    "get_ipython().kernel.shell_stream.close()",
    "import asyncio\nget_ipython().kernel.iopub_thread.socket.close()\nawait asyncio.sleep(60)",
]


@pytest.mark.parametrize("code", CLOSING)
def test_a_kernel_whose_socket_is_closed_ends(executor: Any, code: str) -> None:
    with pytest.raises(KernelDied):
        executor(code)
    assert executor("1 + 1").output == "2"


def test_a_session_on_a_kernel_of_ours_needs_no_executor_for_it() -> None:
    with LocalSandbox() as sandbox:
        endpoint = sandbox.endpoint
        with Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id) as session:
            session.run("kept = 41")
            for code in ("exit()", "import asyncio; asyncio.get_event_loop().stop()"):
                error = session.run(code, timeout=60).error
                assert error is not None
                assert error.name == EXIT
            assert session.run("import time; time.sleep(0.2); kept", timeout=60).text == "41"


def test_a_kernel_ends_when_it_is_asked_to() -> None:
    with LocalSandbox() as sandbox:
        endpoint = sandbox.endpoint
        with Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id) as session:
            process = session.run("import os; os.getpid()", timeout=60).text
            session.run("import atexit; atexit.register(lambda: open('ended', 'w').write('by itself'))")
            # It ends by itself, not by a signal.
            session.restart()
            assert session.run("import os; os.getpid()", timeout=60).text != process
            assert session.run("open('ended').read()", timeout=60).text == "'by itself'"
