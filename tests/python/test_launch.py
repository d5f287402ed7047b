"""What is different in a kernel of ours: it waits for nothing, and loses nothing for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandkernel import Session
from sandkernel.exceptions import ExecutionTimeout
from sandkernel.sandboxes.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with LocalSandbox() as sandbox:
        endpoint = sandbox.endpoint
        with Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id) as connected:
            yield connected


def test_all_of_it_fits_the_kernel(session: Session) -> None:
    names = session.run("import threading; [thread.name for thread in threading.enumerate()]").text
    assert "MainThread" in names
    assert "Shell channel" not in names
    session.run("from ipykernel.iostream import OutStream; from ipykernel.kernelbase import Kernel")
    assert (
        session.run("OutStream.flush.__module__, Kernel._execute_sleep").text
        == "('sandkernel.gateway.kernel_tuning.publishing', 0)"
    )


def test_whoever_flushes_waits_until_it_is_on_its_way(session: Session) -> None:
    code = """
import sys, time
stream, sent = sys.stdout, []
thread, send = stream.pub_thread, stream.pub_thread.send_multipart
def send_and_note(message, *arguments, **options):
    send(message, *arguments, **options)
    sent.append(b"".join(message))
thread.send_multipart = send_and_note
rotate = stream._rotate_buffers
def rotate_slowly():
    buffers = rotate()
    if buffers:
        time.sleep(0.001)
    return buffers
stream._rotate_buffers = rotate_slowly
# Beside whoever flushes, the thread that sends does so by itself, at any time.
def flush_again():
    stream._flush()
    if not over:
        thread.io_loop.add_callback(flush_again)
over = []
thread.io_loop.add_callback(flush_again)
late = 0
for number in range(500):
    stream.write(f"line {number}.\\n")
    time.sleep(0.0005)
    stream.flush()
    late += not any(b"line %d." % number in message for message in sent[-9:])
over.append(True)
thread.send_multipart, stream._rotate_buffers = send, rotate
late
"""
    execution = session.run(code, timeout=60)
    assert execution.text == "0"
    assert execution.stdout == "".join(f"line {number}.\n" for number in range(500))


def test_magics_and_transformers_of_the_user_work(session: Session) -> None:
    session.run("get_ipython().input_transformers_cleanup.append(lambda lines: ['added = 1\\n', *lines])")
    assert session.run("added").text == "1"
    session.run("get_ipython().input_transformers_cleanup.clear()")
    code = """
shell = get_ipython()
shell.run_cell("before = 1")
shell.input_transformers_cleanup.append(lambda lines: [line.replace("before", "after") for line in lines])
shell.run_cell("before = 1")
shell.input_transformers_cleanup.clear()
"""
    assert session.run(code).error is None
    assert session.run("after").text == "1"
    for _ in range(2):
        assert session.run("%%capture kept\nprint('captured')").stdout == ""
        assert session.run("kept.stdout").text == "'captured\\n'"
        assert session.run("lines = !echo shell\nlines[0]").text == "'shell'"
    assert "1 loop each" in session.run("%timeit -n 1 -r 1 pass").stdout


def test_what_is_logged_is_as_it_was(session: Session) -> None:
    code = "import logging\nlogging.getLogger('mine').setLevel(10)\nlogging.getLogger('mine').debug('a word')"
    session.run("import logging, sys\nlogging.basicConfig(stream=sys.stdout, level=10)")
    assert "a word" in session.run(code).stdout


def test_a_cell_that_awaits_runs_and_ends_on_time(session: Session) -> None:
    code = "import asyncio\nfor number in range(3):\n    await asyncio.sleep(0.01)\n    print(number)\nnumber"
    execution = session.run(code, timeout=60)
    assert (execution.stdout, execution.text) == ("0\n1\n2\n", "2")
    with pytest.raises(ExecutionTimeout):
        session.run("kept = 1\nawait asyncio.sleep(3600)", timeout=0.5)
    assert session.run("kept", timeout=60).text == "1"


def test_output_of_a_forked_child_arrives(session: Session) -> None:
    code = """
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=print, args=("from the child",))
process.start()
process.join()
print(process.exitcode)
"""
    execution = session.run(code, timeout=60)
    assert sorted(execution.stdout.split("\n")) == ["", "0", "from the child"]
