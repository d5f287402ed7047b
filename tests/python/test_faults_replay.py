"""A connection that is cut at any byte, on gateways without a journal: executors go on as without it."""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from smolagents import FinalAnswerTool, Tool

from executor_support import running_gateway, running_server
from fault_proxy import FaultProxy
from sandkernel import GatewayExecutor
from sandkernel.exceptions import ConnectionLost, KernelDied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fault_proxy import Cut, Toward
    from sandkernel import InputRequest

# Output on both streams, something displayed and updated, a call of the host's, a large message, an answer.
EVERYTHING = """
import sys
from IPython.display import display
runs = globals().get('runs', 0) + 1
print('out', flush=True)
print('err', file=sys.stderr, flush=True)
handle = display('first', display_id='shown')
handle.update('second')
print(twice('a' * 500)[-3:], flush=True)
display({'text/plain': 'x' * 1500}, raw=True)
try:
    final_answer([runs > 0, b'b' * 1000])
finally:
    print('é' * 500)
"""


class Twice(Tool):
    name = "twice"
    description = "Doubles a text."
    inputs = {"text": {"type": "string", "description": "A text"}}  # noqa: RUF012
    output_type = "string"

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, text: str) -> str:
        self.calls += 1
        return text * 2


@dataclass
class Place:
    """An executor whose connection goes through a proxy that cuts it."""

    executor: GatewayExecutor
    proxy: FaultProxy
    tool: Twice

    def run_everything(self) -> tuple[Any, ...]:
        done = self.executor(EVERYTHING)
        execution = self.executor.last_execution
        assert execution is not None
        shown = [result.data.get("text/plain") for result in execution.results]
        return done.output, done.logs, done.is_final_answer, execution.stdout, execution.stderr, shown


@contextmanager
def place(server: str, **options: Any) -> Iterator[Place]:
    run = running_gateway if server == "kernel gateway" else running_server
    with run() as gateway, FaultProxy(int(gateway.url.rpartition(":")[2])) as proxy:
        options = {"reconnect_timeout": 20.0, **options}
        with GatewayExecutor(
            url=proxy.url, token=gateway.token, timeout=60, tools=["twice"], session_options=options
        ) as executor:
            tool = Twice()
            executor.send_tools({"final_answer": FinalAnswerTool(), "twice": tool})
            yield Place(executor, proxy, tool)


@pytest.fixture(scope="module", params=["kernel gateway", "jupyter server"])
def cut(request: pytest.FixtureRequest) -> Iterator[Place]:
    with place(request.param) as cut:
        yield cut


# On the other, they would say nothing else.
on_a_kernel_gateway = pytest.mark.parametrize("cut", ["kernel gateway"], indirect=True)


def sweep(cut: Place, toward: Toward, count: int) -> None:
    """Cut at so many places of an execution, and compare."""
    undisturbed = cut.run_everything()
    assert undisturbed[0] == [True, b"b" * 1000]
    assert undisturbed[2:5] == (True, "out\naaa\n" + "é" * 500 + "\n", "err\n")
    assert undisturbed[5][0] == "'second'"
    before = cut.proxy.passed[toward]
    assert cut.run_everything() == undisturbed
    passed = cut.proxy.passed[toward] - before
    calls, runs = cut.tool.calls, number(cut, "runs")
    happened = 0
    for index in range(count):
        how: Cut = "fin" if index % 2 else "reset"
        at = index * passed // count + 1
        cut.proxy.cut_after(at, toward, how)
        try:
            seen = cut.run_everything()
        except ConnectionLost as error:
            raise AssertionError(f"{how} toward the {toward} at {at} of {passed}") from error
        assert seen == undisturbed, f"{how} toward the {toward} at {at} of {passed}"
        happened += cut.proxy.disarm()
    # A header is shorter or longer by a digit from run to run: the last places may lie past the end.
    assert happened + 5 >= count
    assert number(cut, "runs") == runs + count
    assert cut.tool.calls == calls + count
    assert cut.executor._session.generation == 0


def number(cut: Place, expression: str) -> int:
    return int(cut.executor(expression).output)


def test_a_cut_of_what_the_kernel_sends(cut: Place) -> None:
    sweep(cut, "client", 60)


def test_a_cut_of_what_the_kernel_is_sent(cut: Place) -> None:
    sweep(cut, "gateway", 25)


@on_a_kernel_gateway
def test_variables_and_files_arrive_whole_across_cuts(cut: Place, tmp_path: Path) -> None:
    noise = random.Random(0).randbytes(9_000_000)
    path = str(tmp_path / "noise")
    ways: list[tuple[Toward, Callable[[], object]]] = [
        ("gateway", lambda: cut.executor.send_variables({"noise": noise})),
        ("gateway", lambda: cut.executor.files.write(path, noise)),
        ("client", lambda: cut.executor.files.read(path)),
    ]
    for toward, move in ways:
        for at in (1_000, 2_000_000, 5_000_000):
            cut.proxy.cut_after(at, toward)
            moved = move()
            assert not isinstance(moved, bytes) or moved == noise
            assert cut.proxy.disarm()
    assert cut.executor(f"noise == open({path!r}, 'rb').read()").output == "True"


@on_a_kernel_gateway
@pytest.mark.parametrize("toward", ["client", "gateway"])
def test_what_the_executor_needs_in_a_kernel_arrives_across_cuts(cut: Place, toward: Toward) -> None:
    for at in (1, 400, 20_000):
        with cut.executor.new_kernel() as kernel:
            cut.proxy.cut_after(at, toward)
            assert kernel("40 + 2").output == "42"
            cut.proxy.disarm()
            assert kernel._session.resumable
            cut.proxy.cut_after(500)
            assert kernel("print('é' * 500)\n6 * 7").logs == "é" * 500 + "\n"
            assert cut.proxy.disarm()


@on_a_kernel_gateway
async def test_many_cuts_in_a_row_and_a_stream_goes_on(cut: Place) -> None:
    code = "import time\nfor i in range(40):\n    print(i, flush=True)\n    time.sleep(0.02)\nb = twice('b')"
    text, cuts = "", 0
    async for event in cut.executor.astream(code):
        text += getattr(event, "text", "")
        if text.count("\n") > 10 * cuts:
            cuts += 1
            cut.proxy.cut("fin" if cuts % 2 else "reset")
    assert text.split() == [str(index) for index in range(40)]
    assert cut.executor("b").output == "'bb'"
    assert cuts > 2


@on_a_kernel_gateway
def test_a_result_of_the_host_in_pieces_arrives_across_cuts(cut: Place) -> None:
    runs = "pieces = globals().get('pieces', 0) + 1\n"
    calls = cut.tool.calls
    for at in (100_000, 5_000_000, 9_000_000):
        cut.proxy.cut_after(at, "gateway")
        assert (
            cut.executor(f"{runs}text = twice('ab' * 2_500_000)\ntext == 'ab' * 5_000_000").output == "True"
        )
        assert cut.proxy.disarm()
    assert (number(cut, "pieces"), cut.tool.calls - calls) == (3, 3)


# Asks the host, answers its question on what came only when told to, and takes the replies as they come.
TAKES_REPLIES = """
import os, time
kernel = get_ipython().kernel
answer = kernel.control_handlers["sandkernel_replay_request"]
def answer_late(stream, identity, message):
    open({asked!r}, "w").close()
    while not os.path.exists({told!r}):
        time.sleep(0.01)
    answer(stream, identity, message)
kernel.control_handlers["sandkernel_replay_request"] = answer_late
kernel.session.send(
    kernel.stdin_socket, "input_request", {{"prompt": "", "password": False}}, kernel.get_parent("shell"),
    ident=kernel._get_shell_context_var(kernel._shell_parent_ident),
)
taken = []
while len(taken) < {count}:
    kernel.stdin_socket.poll()
    try:
        reply = kernel.session.recv(kernel.stdin_socket)[1]
    except ValueError:
        continue  # it came before
    if reply is not None:
        taken.append(int(reply["content"]["value"]))
taken
"""


# Small ones, and more than is kept of what the kernel has received.
@on_a_kernel_gateway
@pytest.mark.parametrize("size", [1, 4 << 20])
def test_replies_made_while_the_kernel_is_asked_what_came_keep_their_order(
    cut: Place, tmp_path: Path, size: int
) -> None:
    asked, told = tmp_path / "asked", tmp_path / "told"
    count, attached = 12, b"b" * size

    def reply(request: InputRequest) -> None:
        cut.proxy.cut_after(1, "gateway")
        request.reply("0")
        wait_for(asked)
        for number_of in range(1, count):
            request.reply(str(number_of), [attached])
        told.touch()

    with cut.executor.new_kernel() as kernel:
        assert kernel("40 + 2").output == "42"
        code = TAKES_REPLIES.format(asked=str(asked), told=str(told), count=count)
        assert kernel._session.run(code, timeout=60, on_request=reply).text == str(list(range(count)))


def while_it_is_away(cut: Place, code: str, tmp_path: Path) -> Callable[[], object]:
    """Run code of which the second half runs while there is no connection."""
    began, away, done = (str(tmp_path / name) for name in ("began", "away", "done"))
    code = (
        f"import os, time\nopen({began!r}, 'w').close()\nwhile not os.path.exists({away!r}):\n"
        f"    time.sleep(0.01)\n{code}\nopen({done!r}, 'w').close()"
    )

    def disturb() -> None:
        wait_for(tmp_path / "began")
        cut.proxy.refusing = True
        cut.proxy.cut()
        (tmp_path / "away").touch()
        wait_for(tmp_path / "done")
        cut.proxy.refusing = False

    def run() -> object:
        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            return cut.executor(code)
        finally:
            thread.join()

    return run


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.01)


@on_a_kernel_gateway
def test_more_than_the_kernel_keeps_is_said_and_the_state_stays(cut: Place, tmp_path: Path) -> None:
    cut.executor("kept = 7")
    code = "for _ in range(40):\n    print('x' * (1 << 20), flush=True)"
    with pytest.raises(ConnectionLost, match="than the kernel keeps"):
        while_it_is_away(cut, code, tmp_path)()
    assert number(cut, "kept") == 7


@on_a_kernel_gateway
def test_code_that_forges_the_record_ends_with_an_error(cut: Place, tmp_path: Path) -> None:
    forgeries = {
        "no record": "handlers.pop('sandkernel_replay_request')",
        "malformed": "handlers['sandkernel_replay_request'] = lambda stream, identity, message: "
        "kernel.session.send(stream, 'sandkernel_replay_reply', {'last': 1}, parent=message, ident=identity)",
    }
    for number_of, (said, forgery) in enumerate(forgeries.items()):
        path = tmp_path / str(number_of)
        path.mkdir()
        with cut.executor.new_kernel() as kernel:
            kernel("kernel = get_ipython().kernel\nhandlers = kernel.control_handlers\nkept = 7")
            forged = Place(kernel, cut.proxy, cut.tool)
            with pytest.raises(ConnectionLost, match=said):
                while_it_is_away(forged, forgery, path)()
            assert number(forged, "kept") == 7


@on_a_kernel_gateway
def test_a_kernel_that_dies_while_the_connection_is_away(cut: Place, tmp_path: Path) -> None:
    with cut.executor.new_kernel() as kernel:
        place = Place(kernel, cut.proxy, cut.tool)
        code = f"open({str(tmp_path / 'done')!r}, 'w').close()\nos._exit(1)"
        with pytest.raises((KernelDied, ConnectionLost)):
            while_it_is_away(place, code, tmp_path)()
        assert number(place, "6 * 7") == 42
