"""What a session does to its process: signals, forks, and the way out. Each in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import sandkernel
from sandkernel import Session
from sandkernel.providers.local import LocalSandbox
from waiting import write_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandkernel.providers.endpoint import Endpoint

PROLOGUE = """
import json, os, sys
import sandkernel
from sandkernel import Session
import sandkernel
url, token, kernel_id = json.loads(sys.stdin.readline())
session = Session.connect(url, token, kernel_id=kernel_id, timeout=60)
"""
SLEEPS = f"import time\n{write_line('began')}\ntime.sleep(600)"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with LocalSandbox() as sandbox:
        yield sandbox.endpoint


class Program:
    """A program with a session, in a process of its own."""

    def __init__(self, endpoint: Endpoint, code: str, kernel_id: str | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-X", "faulthandler", "-c", PROLOGUE + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([endpoint.url, endpoint.token, kernel_id]) + "\n")
        self.process.stdin.flush()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors


def kernels(endpoint: Endpoint, kernel_id: str) -> bool:
    """Whether the gateway has that kernel."""
    try:
        Session.connect(endpoint.url, endpoint.token, kernel_id=kernel_id).close()
    except sandkernel.KernelNotFoundError:
        return False
    return True


def test_ctrl_c_raises_and_interrupts_the_kernel(endpoint: Endpoint) -> None:
    program = Program(
        endpoint,
        f"""
try:
    session.run({SLEEPS!r}, on_stdout=lambda text: print(text.strip(), flush=True))
except KeyboardInterrupt:
    print("raised", flush=True)
print(session.run("'alive'").text)
""",
    )
    assert program.line() == "began"
    program.process.send_signal(signal.SIGINT)
    assert program.end() == (0, "raised\n'alive'\n", "")


def test_a_signal_handler_may_use_the_session(endpoint: Endpoint) -> None:
    program = Program(
        endpoint,
        f"""
import signal
def leave(number, frame):
    session.close()
    print("closed", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, leave)
print(session.run("'ready'").text, flush=True)
session.run({SLEEPS!r})
""",
    )
    assert program.line() == "'ready'"
    program.process.send_signal(signal.SIGTERM)
    assert program.end() == (3, "closed\n", "")


@pytest.mark.parametrize("way", ["pass", "sys.exit(0)", "del session", "session.close()"])
def test_a_created_kernel_is_deleted_on_the_way_out(endpoint: Endpoint, way: str) -> None:
    program = Program(endpoint, f"print(session.kernel_id, flush=True)\n{way}\n")
    kernel_id = program.line()
    assert program.end() == (0, "", "")
    assert not kernels(endpoint, kernel_id)


def test_an_exception_deletes_the_kernel_too(endpoint: Endpoint) -> None:
    program = Program(endpoint, "print(session.kernel_id, flush=True)\nraise SystemError('on purpose')\n")
    kernel_id = program.line()
    status, _, errors = program.end()
    assert status == 1
    assert errors.strip().endswith("SystemError: on purpose")
    assert not kernels(endpoint, kernel_id)


@pytest.mark.parametrize("daemon", [True, False])
def test_the_interpreter_ends_while_code_runs_in_a_thread(endpoint: Endpoint, *, daemon: bool) -> None:
    program = Program(
        endpoint,
        f"""
import threading
began = threading.Event()
def run():
    try:
        session.run({SLEEPS!r}, on_stdout=lambda _: began.set())
    except sandkernel.ClosedError:
        pass
threading.Thread(target=run, daemon={daemon}).start()
began.wait()
if not {daemon}:
    session.close()
""",
    )
    assert program.end() == (0, "", "")


def test_the_interpreter_ends_while_a_loop_waits(endpoint: Endpoint) -> None:
    program = Program(
        endpoint,
        f"""
import asyncio
async def main():
    for _ in range(5):
        asyncio.ensure_future(session.arun({SLEEPS!r}))
    await asyncio.sleep(0.2)
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
for task in asyncio.all_tasks(loop):
    task.cancel()
loop.run_until_complete(asyncio.sleep(0))
loop.close()
""",
    )
    assert program.end() == (0, "", "")


def test_a_forked_child_gets_a_clear_error_and_harms_nobody(endpoint: Endpoint) -> None:
    program = Program(
        endpoint,
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on, about fork in a threaded process
session.run("kept = 1")
child = os.fork()
if child == 0:
    try:
        session.run("1")
    except sandkernel.ForkError as error:
        repr(session)
        own = Session.connect(url, token, kernel_id=session.kernel_id, timeout=60)
        print("child:", own.run("kept").text, flush=True)
        own.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent:", session.run("kept").text)
""",
    )
    assert program.end() == (0, "child: 1\nparent: 1\n", "")


def test_importing_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import sandkernel; new = set(sys.modules) - before; "
        "print(sorted(new - {'__future__'}))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "['sandkernel']\n"
