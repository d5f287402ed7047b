"""A forked child that ends what is its parent's: quietly, at once, and without any harm to the parent."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import asyncio, contextlib, os, signal, sys, threading, time, warnings
import sandkernel
from sandkernel import ForkError, GatewayExecutor, LocalExecutor, ModalExecutor, SandboxPool, Session
from sandkernel.providers.local import LocalSandbox
from sandkernel.testing import LocalModal

# The interpreter says so at the exit of a child, where somebody turns these on: it has its parent's objects.
warnings.simplefilter("ignore", ResourceWarning)
warnings.filterwarnings("ignore", "This process .* is multi-threaded")  # of Python 3.12 on

def leave(name, way):
    child = os.fork()
    if not child:
        # Whatever hangs ends the child with a signal.
        signal.alarm(30)
        way()
        sys.exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(name, status, flush=True)

def within(manager):
    with manager:
        sys.exit(0)

async def awithin(manager):
    async with manager:
        sys.exit(0)

def refuses(use):
    try:
        use()
    except ForkError:
        return
    raise AssertionError("no ForkError")

def leave_in_all_ways(each):
    leave("exit", lambda: None)
    leave("cleanup", each.cleanup)
    leave("cleanup twice", lambda: (each.cleanup(), each.cleanup()))
    leave("delete", each.delete)
    leave("with", lambda: within(each))
    leave("aclose", lambda: asyncio.run(each.aclose()))
    leave("async with", lambda: asyncio.run(awithin(each)))
    leave("is_alive", lambda: sys.exit(each.is_alive()))
    leave("use", lambda: refuses(lambda: each("1")))
    leave("arun", lambda: refuses(lambda: asyncio.run(each.arun("1"))))
    leave("new_kernel", lambda: refuses(each.new_kernel))
    leave("run_many", lambda: refuses(lambda: each.run_many(["1"])))
    leave("files", lambda: refuses(lambda: each.files.list()))

@contextlib.contextmanager
def busy(executor):
    # Its turn is taken while the child is forked.
    thread = threading.Thread(target=executor, args=("import time; began = 1; time.sleep(1.5)",))
    thread.start()
    time.sleep(0.1)
    yield
    thread.join()
"""

KINDS = {
    "local": """
        with LocalExecutor() as executor, executor.new_kernel() as kernel:
            executor("kept = 6"); kernel("kept = 7")
            with busy(executor):
                leave_in_all_ways(executor)
            leave_in_all_ways(kernel)
            print(executor("kept").output, kernel("kept").output)
    """,
    "gateway": """
        with LocalSandbox() as sandbox:
            with GatewayExecutor(url=sandbox.endpoint.url, token=sandbox.endpoint.token) as executor:
                executor("kept = 6")
                leave_in_all_ways(executor)
                print(executor("kept").output, 7)
    """,
    "modal": """
        with LocalModal() as cloud, cloud.activate():
            with ModalExecutor() as executor, executor.new_kernel() as kernel:
                executor("kept = 6"); kernel("kept = 7")
                leave_in_all_ways(executor)
                leave("kernel", kernel.cleanup)
                leave("detach", lambda: refuses(executor.detach))
                leave("sandbox", executor._sandbox.terminate)
                print(executor("kept").output, kernel("kept").output)
    """,
    "cloud": """
        with LocalModal() as cloud:
            active = cloud.activate()
            active.__enter__()
            with ModalExecutor() as executor:
                executor("kept = 6")
                leave("with", lambda: cloud.__exit__(None, None, None))
                leave("stop", cloud.stop)
                leave("deactivate", lambda: active.__exit__(None, None, None))
                leave("reset", lambda: refuses(cloud.reset))
                print(executor("kept").output, len(cloud.running_sandboxes()) + 6)
            active.__exit__(None, None, None)
    """,
    "pool": """
        with SandboxPool(1, LocalExecutor, maximum=2) as pool:
            executor = pool.acquire(60)
            executor("kept = 6")
            leave("close", pool.close)
            leave("with", lambda: within(pool))
            leave("aclose", lambda: asyncio.run(pool.aclose()))
            leave("async with", lambda: asyncio.run(awithin(pool)))
            leave("acquire", lambda: refuses(lambda: pool.acquire(5)))
            leave("lent", executor.cleanup)
            leave("lent, collected", lambda: globals().pop("executor") and None)
            another = pool.acquire(60)
            print(executor("kept").output, another("7").output)
    """,
    "session": """
        with LocalSandbox() as sandbox:
            with Session.connect(sandbox.endpoint.url, sandbox.endpoint.token) as session:
                session.run("kept = 6")
                leave("exit", lambda: None)
                leave("close", session.close)
                leave("with", lambda: within(session))
                leave("aclose", lambda: asyncio.run(session.aclose()))
                leave("async with", lambda: asyncio.run(awithin(session)))
                leave("use", lambda: refuses(lambda: session.run("1")))
                leave("sandbox", sandbox.terminate)
                leave("with sandbox", lambda: within(sandbox))
                print(session.run("kept").text, 7)
    """,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_forked_child_ends_nothing_of_its_parents_and_says_nothing(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM + textwrap.dedent(KINDS[kind])],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *children, last = done.stdout.splitlines()
    assert len(children) >= 4
    assert [line for line in children if not line.endswith(" 0")] == []
    assert last == "6 7"
