"""What a background thread prints between two steps is shown with the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from conftest import wait_until
from executor_support import running_gateway
from sandkernel import GatewayExecutor, LocalExecutor, Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREPARATION = """
import logging, os, sys, threading, time
def start(function, *arguments):
    global go, thread
    go = threading.Event()
    def run(go=go):
        go.wait()
        function(*arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
def lines(name, count):
    for number in range(count):
        print(name, number, flush=number % 7 == 0)
def later(seconds=0.3):
    threading.Timer(seconds, go.set).start()
"""


@pytest.fixture(scope="module", params=["ours", "stock"])
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "ours":
        with LocalExecutor(timeout=60) as executor:
            executor(PREPARATION)
            yield executor
    else:
        with (
            running_gateway() as gateway,
            GatewayExecutor(url=gateway.url, token=gateway.token, timeout=60) as executor,
        ):
            executor(PREPARATION)
            yield executor


def between(executor: Any, code: str) -> None:
    """Have a thread run code after its step, and wait for its end without a step."""
    executor(f"def work():\n    {code}\nstart(work)\nlater()")
    reply = "raise SystemExit if thread.is_alive() else LookupError"

    def has_ended() -> bool:
        error = executor._open().run(reply, silent=True, store_history=False).error
        return error is not None and error.name == "LookupError"

    assert wait_until(has_ended, 60)


def test_it_is_shown_once_in_order_before_what_the_step_prints(executor: Any) -> None:
    between(executor, "lines('kept', 100)")
    expected = "".join(f"kept {number}\n" for number in range(100))
    assert executor("print('of the step')").logs == expected + "of the step\n"
    assert executor("print('of the next')").logs == "of the next\n"


def test_standard_error_and_logging(executor: Any) -> None:
    between(executor, "print('told', file=sys.stderr); logging.getLogger('mine').warning('logged')")
    output = executor("print('of the step')")
    assert output.logs == "told\nlogged\nof the step\n"
    assert executor.last_execution.stderr == "told\nlogged\n"
    assert executor.last_execution.stdout == "of the step\n"


def test_a_step_that_prints_nothing_or_fails_shows_it_too(executor: Any) -> None:
    between(executor, "print('kept')")
    output = executor("6 * 7")
    assert (output.output, output.logs) == ("42", "kept\n")
    between(executor, "print('kept again')")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        executor("1 / 0")
    assert executor.state["_print_outputs"] == "kept again\n"
    between(executor, "print('once more')")
    assert executor("await __import__('asyncio').sleep(0)\nprint('awaited')").logs == "once more\nawaited\n"


def test_requests_of_ours_neither_show_nor_lose_it(executor: Any, tmp_path: Path) -> None:
    between(executor, "print('kept')")
    executor.send_variables({"sent": 1})
    assert executor.is_alive()
    executor.files.write(str(tmp_path / "note.txt"), b"a note")
    # Its own output is its own, also while a thread prints.
    assert executor("start(print, 'kept, too')").logs == "kept\n"
    said = executor._open().run("print('silent'); go.set(); thread.join()", timeout=60, silent=True)
    assert said.stdout == "silent\n"
    assert executor("print(sent)").logs == "kept, too\n1\n"


def test_not_a_line_is_lost_to_the_beginning_of_a_request_of_ours(executor: Any) -> None:
    """A thread gets its turn at any point of what a kernel does with a request."""
    executor("before = sys.getswitchinterval()\nsys.setswitchinterval(1e-5)\nstart(lines, 'kept', 20_000)")
    ask = "raise SystemExit if thread.is_alive() else LookupError"
    session = executor._open()
    session.run("later()", silent=True, store_history=False)
    assert wait_until(lambda: session.run(ask, silent=True, store_history=False).error.name == "LookupError")
    executor("sys.setswitchinterval(before)")
    assert executor.last_execution.stdout == "".join(f"kept {number}\n" for number in range(20_000))


def test_what_a_thread_prints_while_another_step_runs_is_of_that_step(executor: Any) -> None:
    executor("start(lines, 'thread', 50)")
    output = executor("go.set(); thread.join(); print('joined')")
    assert output.logs == "".join(f"thread {number}\n" for number in range(50)) + "joined\n"
    assert executor("1").logs == ""


def test_nothing_is_lost_or_doubled_across_many_steps(executor: Any) -> None:
    executor(
        "def count():\n    for number in range(600):\n        time.sleep(0.002)\n        print(number)\n"
        "start(count)"
    )
    shown = executor("go.set()").logs
    for _ in range(200):
        shown += executor("pass").logs
        if "599\n" in shown:
            break
    shown += executor("thread.join()").logs + executor("pass").logs
    assert shown == "".join(f"{number}\n" for number in range(600))


def test_it_is_bounded(executor: Any) -> None:
    between(executor, "[print('x' * 999) for _ in range(3000)]; print('the end')")
    executor("print('of the step')")
    shown = executor.last_execution.stdout
    assert 1_000_000 < len(shown) < 1_100_000
    assert shown.startswith("[... 1951")
    assert shown.splitlines()[0].endswith(" characters left out that were printed between two steps ...]")
    assert shown.endswith("x\nthe end\nof the step\n")


def test_it_is_kept_for_who_started_it() -> None:
    with running_gateway() as gateway, Session.connect(gateway.url, gateway.token) as other:
        options = {"url": gateway.url, "token": gateway.token, "kernel_id": other.kernel_id, "timeout": 60}
        with GatewayExecutor(**options) as first, GatewayExecutor(**options) as second:
            first(PREPARATION)
            between(first, "print('for the first')")
            assert second("print('second')").logs == "second\n"
            assert other.run("print('other')", timeout=60).stdout == "other\n"
            assert first("print('first')").logs == "for the first\nfirst\n"


def test_a_forked_child_keeps_nothing(executor: Any) -> None:
    executor("def child():\n    print('child', flush=True)\n    os._exit(0)")
    between(executor, "print('kept too')")
    output = executor("forked = os.fork() or child()\nos.wait()[0] == forked")
    assert (output.output, sorted(output.logs.split())) == ("True", ["child", "kept", "too"])
