"""What is different in a kernel of ours: it waits for nothing, and loses nothing for that."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kernel_client import KernelClient
from sandkernel import Session
from sandkernel.exceptions import ExecutionTimeout
from sandkernel.providers.local import LocalSandbox
from waiting import time_limits, wait_for_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


def test_what_is_large_is_not_overtaken(session: Session) -> None:
    code = """
import sys, threading
stream, done = sys.stdout, threading.Event()
def flush():
    # As where the thread that sends flushes much by itself, and then the rest for whoever asks it to.
    for text in {texts!r}:
        stream.write(text)
        stream._flush()
    done.set()
stream.pub_thread.schedule(flush)
done.wait(30)
"""
    # ZeroMQ shares what is large, from 64 KiB on, and copies what is not.
    texts = ["a" * 200_000, "b", "c" * 100_000, "d", "e" * 65_536, "f"]
    for _ in range(3):
        assert session.run(code.format(texts=texts)).stdout == "".join(texts)


def test_a_timer_of_the_thread_that_sends_overtakes_nobody(session: Session) -> None:
    code = """
import sys, threading
kernel, stream = get_ipython().kernel, sys.stdout
loop, held, begun, done = stream.pub_thread.io_loop, threading.Event(), threading.Event(), threading.Event()
def hold():
    begun.set()
    held.wait(30)
def flush():
    # As by the timer of a line that another thread printed before.
    stream.write("then")
    stream._flush()
    done.set()
loop.add_callback(hold)
begun.wait(30)
loop.add_callback(flush)
content = {"name": "stdout", "text": "x" * 200_000}
kernel.session.send(kernel.iopub_socket, "stream", content, parent=kernel.get_parent())
held.set()
done.wait(30)
"""
    for _ in range(5):
        assert session.run(code).stdout == "x" * 200_000 + "then"


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
    for limit in time_limits():
        with pytest.raises(ExecutionTimeout):
            session.run("kept = 1\nawait asyncio.sleep(3600)", timeout=limit)
        if session.run("globals().get('kept')", timeout=60).text == "1":
            break


def test_output_of_a_forked_child_arrives(session: Session, tmp_path: Path) -> None:
    heard: list[str] = []

    def hear(text: str) -> None:
        heard.append(text)
        if "".join(heard) == "from the child\n":
            (tmp_path / "heard").touch()

    # Of two processes that write, each in pieces of any size, no order is promised: the code goes on, and
    # ends, once all of the child's was heard.
    code = f"""
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=print, args=("from the child",))
process.start()
process.join()
{wait_for_file(tmp_path / "heard")}
process.exitcode
"""
    execution = session.run(code, timeout=60, on_stdout=hear)
    assert (execution.stdout, execution.text) == ("from the child\n", "0")


def test_no_alarm_tears_a_message_apart(session: Session) -> None:
    code = """
import itertools, json, signal
from IPython.display import publish_display_data
class Alarm(Exception):
    pass
def ring(*_):
    rang.append(True)
    raise Alarm
def show_until_it_rings(turn):
    # It rings while something is shown: what was shown as a whole is to arrive.
    signal.setitimer(signal.ITIMER_REAL, 0.0002 + turn * 0.000001)
    # Where nobody can raise, as in a finalizer, it only rings.
    while len(rang) == turn:
        number = next(numbers)
        publish_display_data({"text/plain": f"shown {number}"})
        shown.append(number)
before, numbers, shown, rang = signal.signal(signal.SIGALRM, ring), itertools.count(), [], []
for turn in range(400):
    try:
        show_until_it_rings(turn)
    except Alarm:
        pass
signal.signal(signal.SIGALRM, before)
print(json.dumps([len(rang), shown]))
"""
    execution = session.run(code, timeout=60)
    assert execution.error is None
    rang, shown = json.loads(execution.stdout)
    arrived = {int(item.text.split()[1]) for item in execution.results if item.text}
    assert rang == 400
    assert set(shown) <= arrived
    assert session.run("get_ipython().kernel.iopub_thread.thread.is_alive()").text == "True"
    assert session.run("1 + 1").text == "2"


STORM = """
import signal, zmq
from sandkernel.gateway.kernel_tuning import sending
class Alarm(Exception):
    pass
def ring(*_):
    rang.append(True)
    raise Alarm
def send_until_it_rings():
    turns = len(rang)
    signal.setitimer(signal.ITIMER_REAL, 0.0001)
    while len(rang) == turns:
        message = [b"%d" % counts[0]] * 7
        counts[0] += 1
        assert send(socket, message, 0)
        whole.append(message)
signal.signal(signal.SIGALRM, ring)
send, counts, whole, rang = sending.prepare(), [0], [], []
context = zmq.Context()
socket, other = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
for each in (socket, other):
    each.setsockopt(zmq.SNDHWM, 0)
    each.setsockopt(zmq.RCVHWM, 0)
other.bind("inproc://other")
socket.connect("inproc://other")
# On a busy machine it may ring before anything is sent.
while len(rang) < 2000 or len(whole) < 2000:
    try:
        send_until_it_rings()
    except Alarm:
        pass
arrived = []
while other.poll(0):
    arrived.append(other.recv_multipart())
assert all(len(message) == 7 and len(set(message)) == 1 for message in arrived)
numbers = {message[0] for message in arrived}
assert len(numbers) == len(arrived) and all(message[0] in numbers for message in whole)
print(len(arrived) >= 2000)
context.destroy(0)
"""


def test_a_message_is_sent_whole_or_not_at_all() -> None:
    program = [sys.executable, "-c", STORM]
    assert subprocess.run(program, check=True, stdout=subprocess.PIPE, timeout=60).stdout == b"True\n"


# A user that may start no thread any more, and is not the one whom no limit holds.
NO_THREADS = """
import os, resource, threading
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
if os.getuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    threading.Thread(target=print).start()
except RuntimeError:
    pass
else:
    raise AssertionError("a thread was started")
"""
LARGE = (
    """
import array, sys, zmq
from sandkernel.gateway.kernel_tuning import sending
sending.send_whole()
context = zmq.Context()
socket, other = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
other.bind("inproc://other")
socket.connect("inproc://other")
"""
    + NO_THREADS
    + """
large = b"x" * 1_000_000
others = [memoryview(large), bytearray(large), array.array("b", large), zmq.Frame(large, copy=True)]
kinds = [large, b"small", *others]
for kind in kinds:
    for track in (False, True):
        if track and isinstance(kind, zmq.Frame):
            kind = zmq.Frame(large, track=True, copy=True)
        sent = socket.send_multipart([b"first", kind, b"last"], copy=False, track=track)
        assert not track or sent.done or sent.wait(5) is None
        first, middle, last = other.recv_multipart()
        assert (first, last) == (b"first", b"last") and middle in (large, b"small")
        assert not other.poll(0)
for wrong in ([b"first", 5], [b"first", large, None]):
    try:
        socket.send_multipart(wrong, copy=False)
    except TypeError:
        assert not other.poll(0)
    else:
        raise AssertionError("it was sent")
socket.send(b"next")
assert other.recv_multipart() == [b"next"]
context.destroy(0)
print("whole")
"""
)


def test_what_is_large_is_sent_whole_where_no_thread_can_be_started() -> None:
    program = [sys.executable, "-c", LARGE]
    assert subprocess.run(program, check=True, stdout=subprocess.PIPE, timeout=60).stdout == b"whole\n"


def test_a_kernel_that_can_start_no_thread_sends_what_is_large() -> None:
    with LocalSandbox() as sandbox:
        endpoint = sandbox.endpoint
        with Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id) as session:
            assert session.run(NO_THREADS, timeout=60).error is None
            code = """
from IPython.display import publish_display_data
print("x" * 1_000_000)
kernel = get_ipython().kernel
content = {"data": {"text/plain": "large"}, "metadata": {}, "transient": {}}
for buffer in (b"y" * 1_000_000, memoryview(b"y" * 1_000_000), bytearray(b"y" * 1_000_000)):
    for track in (False, True):
        kernel.session.send(
            kernel.iopub_socket, "display_data", content, kernel.get_parent(), buffers=[buffer], track=track
        )
"z" * 1_000_000
"""
            execution = session.run(code, timeout=60)
            assert execution.error is None
            assert execution.stdout == "x" * 1_000_000 + "\n"
            shown = [item for item in execution.results if item.kind == "display_data"]
            assert [[len(buffer) for buffer in item.buffers] for item in shown] == [[1_000_000]] * 6
            assert execution.text == repr("z" * 1_000_000)
            assert session.run("1 + 1", timeout=60).text == "2"


def test_who_subscribes_is_heard_of_while_messages_are_sent(session: Session) -> None:
    code = """
import zmq
socket = get_ipython().kernel.iopub_thread.socket
missed = 0
for number in range(200):
    with socket.context.socket(zmq.SUB) as subscriber:
        subscriber.connect(socket.getsockopt(zmq.LAST_ENDPOINT).decode())
        # Only the first of a topic's is told of.
        subscriber.subscribe(b"stream" + b"." * (number + 2))
        # It comes while the socket is written to, or before or after.
        for message in range(number % 20):
            print(message, flush=True)
        while True:
            if not subscriber.poll(30_000):
                missed += 1
                break
            if any(b"iopub_welcome" in part for part in subscriber.recv_multipart()):
                break
    if missed:
        break
missed
"""
    assert session.run(code, timeout=60).text == "0"


def test_threads_publish_beside_each_other(session: Session) -> None:
    code = """
import threading
from IPython.display import publish_display_data
def show(name):
    for number in range(500):
        publish_display_data({"text/plain": f"{name} {number}"})
threads = [threading.Thread(target=show, args=(name,)) for name in "abcd"]
for thread in threads:
    thread.start()
show("main")
for thread in threads:
    thread.join()
"""
    execution = session.run(code, timeout=60)
    shown = [str(item.text).split() for item in execution.results]
    for name in ("a", "b", "c", "d", "main"):
        assert [int(number) for shower, number in shown if shower == name] == list(range(500))


def test_what_waits_behind_an_error_is_aborted() -> None:
    with LocalSandbox() as sandbox, KernelClient(sandbox.endpoint) as client:
        client.run("kept = 0")
        waits = wait_for_file(sandbox.directory / "go")
        asked = [client.send(code) for code in (f"{waits}1 / 0", "kept = 1", "kept = 2")]
        # What is asked of the control channel afterwards is answered only once those are with the kernel.
        asked_last = client.send_message("control", "kernel_info_request", {})
        while client.receive()["parent_header"].get("msg_id") != asked_last:
            pass
        (sandbox.directory / "go").touch()
        statuses: dict[str, str] = {}
        while len(statuses) < len(asked):
            message = client.receive()
            if message["msg_type"] == "execute_reply":
                statuses[message["parent_header"]["msg_id"]] = message["content"]["status"]
        assert [statuses[each] for each in asked] == ["error", "aborted", "aborted"]
        assert client.run("kept").result == "0"
