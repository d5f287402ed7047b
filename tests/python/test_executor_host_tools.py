"""Tools that stay on the host, called from the kernel."""

from __future__ import annotations

import contextlib
import contextvars
import datetime as dt
import decimal
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from smolagents import FinalAnswerTool, Tool, tool
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.utils import AgentExecutionError

from sandkernel import LocalExecutor, attendants
from sandkernel.exceptions import ConfigurationError, ExecutionTimeout
from sandkernel.integrations.smolagents.placement import Placement
from sandkernel.sandbox.reservations import Reservations
from waiting import until, wait_for_file, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

tenant = contextvars.ContextVar("tenant", default="nobody")


class HostTool(Tool):
    """Calls a function, which no source code tells."""

    name = "call"
    description = "Calls a function of the host."
    inputs = {"value": {"type": "any", "description": "Its argument", "nullable": True}}  # noqa: RUF012
    output_type = "any"

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, value: Any = None) -> Any:
        return self.function(value)


class Lines(AgentLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(LogLevel.INFO)
        self.lines: list[str] = []

    def log(self, *args: Any, **_: Any) -> None:
        self.lines.extend(map(str, args))


@pytest.fixture
def call(executor: LocalExecutor) -> Callable[[Callable[[Any], Any]], None]:
    """Have `call` in the kernel call a function."""

    def give(function: Callable[[Any], Any]) -> None:
        executor.send_tools({"call": HostTool(function)})

    return give


@tool
def double(number: int) -> int:
    """Double a number.

    Args:
        number: The number.
    """
    return number * 2


# Values


def test_a_tool_with_an_open_connection(executor: LocalExecutor) -> None:
    class Query(Tool):
        name = "query"
        description = "Asks the database."
        inputs = {"sql": {"type": "string", "description": "What to ask"}}  # noqa: RUF012
        output_type = "any"

        def __init__(self, connection: sqlite3.Connection) -> None:
            super().__init__()
            self.connection = connection

        def forward(self, sql: str) -> list[Any]:
            return self.connection.execute(sql).fetchall()

    with contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        connection.execute("create table cities (name text, people integer)")
        connection.execute("insert into cities values ('Oslo', 700000)")
        executor.send_tools({"query": Query(connection)})
        assert executor("query('select * from cities')").output == "[('Oslo', 700000)]"
        assert executor("query(sql='select 1')").output == "[(1,)]"
        assert executor("query({'sql': 'select 2'})").output == "[(2,)]"
        assert executor("query.description, query.name").output == "('Asks the database.', 'query')"


def test_values_of_all_kinds_travel_both_ways(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None]
) -> None:
    seen: list[Any] = []

    def echo(value: Any) -> Any:
        seen.append(value)
        return value

    call(echo)
    code = """
import datetime, decimal, pathlib, numpy as np
from PIL import Image
values = {
    "nested": [1, {"a": (None, True, 2.5)}, {3, 4}], 5: "keys", ("x", 1): b"\\x00bytes",
    "when": datetime.datetime(2026, 1, 2, 3, 4), "price": decimal.Decimal("1.50"),
    "path": pathlib.PurePosixPath("a/b"), "complex": 1 + 2j, "text": "é☃\\U0001f40d", "__type__": "dict",
    "array": np.arange(6.0).reshape(2, 3), "large": np.arange(100_000),
    "image": Image.new("RGB", (4, 3), "red"),
}
back = call(values)
other = ("array", "large", "image", "path")
assert all(back[key] == value for key, value in values.items() if key not in other), back
assert np.array_equal(back["array"], values["array"]) and np.array_equal(back["large"], values["large"])
assert back["image"].tobytes() == values["image"].tobytes()
back["large"].dtype.str
"""
    assert executor(code).output == "'<i8'"
    (value,) = seen
    assert value["nested"] == [1, {"a": (None, True, 2.5)}, {3, 4}]
    assert (value["when"], value["price"]) == (dt.datetime(2026, 1, 2, 3, 4), decimal.Decimal("1.50"))  # noqa: DTZ001
    assert isinstance(value["image"], Image.Image)
    assert np.array_equal(value["large"], np.arange(100_000))


def test_what_is_larger_than_a_gateways_message_arrives_whole(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None]
) -> None:
    seen: list[Any] = []

    def reverse(value: Any) -> Any:
        seen.append(value)
        return value[::-1]

    call(reverse)
    code = "import os\nsent = os.urandom(25 << 20)\nback = call(sent)\nback == sent[::-1], len(back)"
    assert executor(code).output == f"(True, {25 << 20})"
    assert len(seen[0]) == 25 << 20


def test_what_can_not_be_sent_is_named(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None]
) -> None:
    call(lambda _: {"client": [threading.Lock()]})
    said = (
        r"TypeError: The tool 'call' returned a value of type dict.*result\['client'\]\[0\] is an object of"
    )
    with pytest.raises(AgentExecutionError, match=said):
        executor("call(1)")
    said = r"Argument 1 of the tool 'call'.*\['a'\] is an object of type object"
    with pytest.raises(AgentExecutionError, match=said):
        executor("call({'a': object()})")
    with pytest.raises(AgentExecutionError, match=r"The argument 'value' of the tool 'call'.*too deeply"):
        executor("x = []; x.append(x); call(value=x)")


def test_pickles_travel_only_where_they_are_allowed() -> None:
    class Point:
        def __init__(self) -> None:
            self.x = 1

    with LocalExecutor(timeout=60, allow_pickle=True) as executor:
        executor.send_tools({"call": HostTool(lambda value: {value.numerator: range(3), "c": complex})})
        code = "import fractions\ncall(fractions.Fraction(3, 4))"
        assert executor(code).output == "{3: range(0, 3), 'c': complex}"


# Errors


def test_an_error_arrives_with_its_class_message_and_place(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None]
) -> None:
    class QuotaError(Exception):
        pass

    def fail(value: Any) -> Any:
        secret = "sk-12345"  # noqa: F841 what is shown holds no values of variables
        if value == "own":
            raise QuotaError("none left")
        raise FileNotFoundError(2, "No such file", value)

    call(fail)
    with pytest.raises(AgentExecutionError) as raised:
        executor("call('own')")
    message = str(raised.value)
    assert message.endswith("QuotaError: none left")
    assert "test_executor_host_tools.py, line" in message
    assert "in fail" in message
    assert "----> 1 call('own')" in message
    for hidden in ("sk-12345", __file__, "hosting.py", "_sandkernel", "smolagents"):
        assert hidden not in message
    code = "try:\n    call('gone')\nexcept FileNotFoundError as error:\n    caught = error\n"
    assert executor(f"{code}type(caught).__name__ + str(caught)").output == repr(
        "FileNotFoundError[Errno 2] No such file: 'gone'"
    )


@pytest.mark.parametrize(
    "error",
    [
        KeyError("key"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration("no more"),
        SystemExit("leave"),
        KeyboardInterrupt("stop"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_error_of_a_tool_is_one_of_the_code(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None], error: BaseException
) -> None:
    def fail(_: Any) -> Any:
        raise error

    call(fail)
    code = (
        "try:\n    call()\nexcept Exception as error:\n    caught = type(error).__name__ + str(error)\ncaught"
    )
    assert executor(code).output == repr(type(error).__name__ + str(error))


def test_a_tool_that_hangs_is_bounded_by_the_timeout(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None]
) -> None:
    release = threading.Event()

    def hang(_: Any) -> str:
        release.wait(60)
        return "late"

    executor("kept = 7")
    for code in ("call()", "import asyncio\nawait asyncio.sleep(0)\ncall()"):
        call(hang)
        with pytest.raises(ExecutionTimeout) as caught:
            executor.run_code_raise_errors(code, timeout=0.5)
        assert not caught.value.restarted
        call(lambda _: "in time")
        release.set()
        # What the one before answers late is for nobody.
        assert executor("[kept, call(), call()]").output == "[7, 'in time', 'in time']"
        release.clear()


# Many at once


@pytest.mark.parametrize(
    "code",
    [
        "from concurrent.futures import ThreadPoolExecutor\nlist(ThreadPoolExecutor(4).map(call, range(4)))",
        "import asyncio\nawait asyncio.gather(*(asyncio.to_thread(call, i) for i in range(4)))",
    ],
    ids=["threads", "gather"],
)
def test_calls_from_threads_are_made_at_once(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None], code: str
) -> None:
    together = threading.Barrier(4)

    def meet(value: int) -> int:
        # It returns only where all four are there.
        together.wait(60)
        return value * 10

    call(meet)
    assert executor(code).output == str([value * 10 for value in range(4)])


def test_hundreds_of_calls_from_many_threads_get_their_own_answers(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None]
) -> None:
    call(lambda value: [value[0], len(value[1])])
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(40) as pool:\n"
        "    got = list(pool.map(call, [[i, b'x' * (i * 500)] for i in range(300)]))\n"
        "got == [[i, i * 500] for i in range(300)]"
    )
    assert executor(code).output == "True"


MANY_WAIT = """
import threading
from _sandkernel_calls import Call

woken, answers, wake = [], [], Call.wake
Call.wake = lambda waiting: (woken.append(waiting), wake(waiting))
threads = [
    threading.Thread(target=lambda number=number: answers.append(call(number))) for number in range(800)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
Call.wake = wake
[sorted(answers) == list(range(800)), len(woken) <= 1600]
"""


def test_who_waits_for_a_call_is_not_woken_for_others(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None]
) -> None:
    call(lambda value: value)
    # Each is woken by its end, and at most once more, to read for the others.
    assert executor(MANY_WAIT).output == "[True, True]"


def test_a_thread_that_outlives_its_code(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None], tmp_path: Path
) -> None:
    release = threading.Event()

    def wait(_: Any) -> str:
        (tmp_path / "asked").touch()
        release.wait(60)
        return "answer"

    call(wait)
    executor(
        "import threading\ncaught = []\ngo = threading.Event()\n"
        "def attempt():\n"
        "    try:\n        caught.append(call())\n"
        "    except Exception as error:\n        caught.append(str(error))\n"
    )
    # The code ends while its thread waits for the tool: the thread is told so.
    executor(
        "thread = threading.Thread(target=attempt); thread.start()\n" + wait_for_file(tmp_path / "asked")
    )
    release.set()
    assert "has ended" in str(executor("thread.join(); caught[-1]").output)
    # Where no code runs, nobody is asked.
    (tmp_path / "asked").unlink()
    executor(
        f"def alone():\n    {wait_for_file(tmp_path / 'go').replace(chr(10), chr(10) + '    ')}\n"
        f"    attempt()\n    open({str(tmp_path / 'done')!r}, 'w').close()\n"
        "thread = threading.Thread(target=alone); thread.start()"
    )
    (tmp_path / "go").touch()
    until((tmp_path / "done").exists)
    assert "only while" in str(executor("caught[-1]").output)
    assert not (tmp_path / "asked").exists()
    # Where other code runs by then, it is served.
    executor(
        "def later():\n    go.wait()\n    attempt()\nthread = threading.Thread(target=later); thread.start()"
    )
    assert executor("go.set(); thread.join(); caught[-1]").output == "'answer'"


# What may be called


def test_only_what_was_given_can_be_called(executor: LocalExecutor) -> None:
    executor.send_tools({"call": HostTool(str), "double": double})
    forge = "__import__('_sandkernel_calls').calls.call({!r}, {!r}, {})"
    empty = [b'{"value": [[], {}], "sizes": []}']
    for name in ("double", "os.system", "call.function", "__class__", "x" * 500):
        with pytest.raises(AgentExecutionError, match=r"LookupError: There is no tool '"):
            executor(forge.format(name, "buffers-1", empty))


def test_malformed_and_hostile_calls_are_refused(executor: LocalExecutor) -> None:
    called: list[Any] = []
    executor.send_tools({"call": HostTool(called.append)})
    bomb = b'{"value": [[{"__type__": "ndarray", "data": ["x"], "dtype": "U90000000"}], {}], "sizes": []}'
    for form, buffers in (
        ("buffers-1", [bomb]),
        ("buffers-1", [b"[" * 100_000]),
        ("buffers-1", [b'{"value": 5, "sizes": []}']),
        ("buffers-1", [b'{"value": [{}, []], "sizes": []}']),
        ("buffers-1", []),
        ("pickle", [b"cos\nsystem\n(S'true'\ntR."]),
        ("unknown", [b"{}"]),
    ):
        code = f"__import__('_sandkernel_calls').calls.call('call', {form!r}, {buffers!r})"
        with pytest.raises(AgentExecutionError, match="PayloadError: The call of the tool 'call' "):
            executor(code)
    assert called == []
    # What is no call at all is answered by nobody: the code waits in vain, and the host goes on.
    for prompt in ("", "[]", "{}", "null", "[" * 900, '{"call": 1, "tool": [], "form": {}}', "x" * 2000):
        send = (
            "k = get_ipython().kernel\n"
            f"k.session.send(k.stdin_socket, 'input_request', {{'prompt': {prompt!r}, 'password': False}}, "
            "k.get_parent('shell'), ident=k._sandkernel_calls._cell[0])\ncall('still there')"
        )
        executor(send)
    assert called == ["still there"] * 7


def test_input_fails_as_clearly_as_without_host_tools(executor: LocalExecutor) -> None:
    executor.send_tools({"call": HostTool(str)})
    with pytest.raises(AgentExecutionError, match="StdinNotImplementedError"):
        executor("input('name? ')")


def test_secrets_stay_on_the_host() -> None:
    class Search(Tool):
        name = "search"
        description = "Searches."
        inputs = {"query": {"type": "string", "description": "For what"}}  # noqa: RUF012
        output_type = "string"

        def __init__(self, key: str = "") -> None:
            super().__init__()
            self.key = key

        def forward(self, query: str) -> str:
            return f"{len(self.key)} {query}"

    secret = "sk-verysecret"
    with LocalExecutor(timeout=60) as executor:
        executor.send_tools({"search": Search(key=secret)})
        assert executor("search('x')").output == "'13 x'"
        # The kernel looks for it in all of its own memory, with its two halves apart.
        code = """
found = 0
with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
    for line in maps:
        place, rights = line.split()[:2]
        start, end = (int(part, 16) for part in place.split('-'))
        if rights.startswith('rw') and '[v' not in line:
            memory.seek(start)
            try:
                data = memory.read(end - start)
            except OSError:
                continue
            index = data.find(b'sk-very')
            while index >= 0:
                found += data[index + 7:index + 13] == bytes([115, 101, 99, 114, 101, 116])
                index = data.find(b'sk-very', index + 1)
found"""
        assert executor(code).output == "0"
        executor.send_variables({"given": secret})
        assert int(executor(code).output) > 0


# Where a tool runs


def test_what_can_not_be_sent_stays_with_a_line_on_the_logger() -> None:
    class Complex(Tool):
        name = "complex_tool"
        description = "Can't be written down."
        inputs = {}  # noqa: RUF012
        output_type = "string"

        def forward(self) -> str:
            return "served"

        def to_dict(self) -> dict[str, Any]:
            raise RecursionError("can't parse\nthe requirements")

    logger = Lines()
    with LocalExecutor([], logger, timeout=60) as executor:
        for _ in range(2):
            executor.send_tools({"complex_tool": Complex(), "double": double})
        assert executor("complex_tool(), double(2)").output == "('served', 4)"
    (line,) = (line for line in logger.lines if "tool" in line)
    assert line.startswith("The tool 'complex_tool' stays on this machine, and is called from the kernel: ")
    assert line.endswith("can't parse the requirements")


@pytest.mark.parametrize(
    ("given", "name", "kind"),
    [
        ("auto", "double", "SimpleTool"),
        ("host", "double", "HostTool"),
        (["double"], "double", "HostTool"),
        ({"double": "host"}, "double", "HostTool"),
        ({"other": "host"}, "double", "SimpleTool"),
        ("host", "final_answer._tool", "FinalAnswerTool"),
        ({"final_answer": "host"}, "final_answer._tool", "HostTool"),
    ],
)
def test_where_a_tool_runs_can_be_said(executor: LocalExecutor, given: Any, name: str, kind: str) -> None:
    before, executor._provision.placement = executor._provision.placement, Placement(given, print)
    try:
        executor.send_tools({"double": double, "final_answer": FinalAnswerTool()})
        assert executor("double(4)").output == "8"
        assert executor("final_answer(5)").output == 5
        assert executor(f"type({name}).__name__").output == repr(kind)
    finally:
        executor._provision.placement = before


def test_what_must_be_sent_and_can_not_be_is_an_error() -> None:
    with LocalExecutor(timeout=60, tools="ship") as executor:
        with pytest.raises(ConfigurationError, match=r"'call' \(HostTool\) can't be sent"):
            executor.send_tools({"call": HostTool(str)})
        assert executor._settings["tools"] == "ship"
        executor.send_tools({"double": double})
        assert executor("type(double).__name__").output == "'SimpleTool'"


@pytest.mark.parametrize("given", ["everywhere", {"a": "there"}, {1: "host"}, [1], 5, None])
def test_a_place_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="tools "):
        Placement(given, print)


def test_a_name_that_no_tool_has_is_told() -> None:
    lines: list[str] = []
    Placement(["dubble"], lines.append).define({"double": double})
    assert lines == ["tools names 'dubble', and the agent has no such tool"]


# The executor around it


def test_after_a_restart_the_tools_are_there_again(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None]
) -> None:
    call(lambda value: value + 1)
    with contextlib.suppress(Exception):
        executor("import os; os._exit(1)")
    assert executor("call(1)").output == "2"


def test_a_tool_sees_the_context_of_the_run(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None]
) -> None:
    call(lambda _: tenant.get())
    token = tenant.set("acme")
    try:
        assert executor("call()").output == "'acme'"
    finally:
        tenant.reset(token)


def test_a_tool_that_runs_code_on_the_executor_it_is_called_from_is_told(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None]
) -> None:
    call(executor)
    with pytest.raises(AgentExecutionError, match=r"ConfigurationError: .*waits for this tool"):
        executor("call('1 + 1')")


async def test_awaited_and_streamed_code_calls_tools_too(
    executor: LocalExecutor, call: Callable[[Callable[[Any], Any]], None]
) -> None:
    call(lambda value: value * 2)
    assert (await executor.arun("call(21)")).output == "42"
    events = [event async for event in executor.astream("print(call('ab'))\ncall(2)")]
    assert "".join(event.text for event in events[:-1]) == "abab\n4"
    assert events[-1].output == "4"


def test_two_executors_on_one_kernel_have_their_own_tools(executor: LocalExecutor) -> None:
    from sandkernel import GatewayExecutor  # noqa: PLC0415

    endpoint = executor._sandbox.endpoint
    executor.send_tools({"first": HostTool(lambda _: "first")})
    with GatewayExecutor(
        url=endpoint.url, token=endpoint.token, kernel_id=endpoint.kernel_id, timeout=60
    ) as guest:
        guest.send_tools({"second": HostTool(lambda _: "second")})
        assert guest("second()").output == "'second'"
        assert executor("first()").output == "'first'"
        with pytest.raises(AgentExecutionError, match="no tool 'second'"):
            executor("second()")


def test_more_at_once_than_the_host_takes_is_refused(
    executor: LocalExecutor,
    call: Callable[[Callable[[Any], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attendants, "MAX_THREADS", 1)
    monkeypatch.setattr(attendants, "MAX_WAITING_BYTES", 1 << 20)
    release = threading.Event()
    call(lambda value: release.wait(60) and len(value))
    # One is answered, one waits.
    code = (
        "import itertools\n"
        "from concurrent.futures import ThreadPoolExecutor, as_completed\n"
        "pool = ThreadPoolExecutor(5)\ncalls = [pool.submit(call, b'x' * 600_000) for _ in range(5)]\n"
        "{str(each.exception()) for each in itertools.islice(as_completed(calls), 3)}"
    )
    assert executor(code).output == repr(
        {"The tool 'call' did not answer: too much waits for the host already"}
    )
    release.set()
    # None of the refusals is taken for one of these.
    assert executor("{call(b'x' * 10) for _ in range(20)}").output == "{10}"


def test_calls_of_which_the_kernel_has_many_wait_there_for_their_turn(
    executor: LocalExecutor,
    call: Callable[[Callable[[Any], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attendants, "MAX_THREADS", 2)
    monkeypatch.setattr(attendants, "MAX_WAITING_BYTES", 1 << 20)
    call(len)
    code = (
        "from _sandkernel_calls import calls\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "before, calls.most_under_way = calls.most_under_way, 1 << 20\n"
        "with ThreadPoolExecutor(20) as pool:\n"
        "    lengths = set(pool.map(lambda _: call(b'x' * 600_000), range(40)))\n"
        "calls.most_under_way = before\n"
        "lengths"
    )
    assert executor(code).output == "{600000}"


HOLDS = {
    "bytes": "b'x' * 600_000",
    "JSON": "[[]] * 20_000",
    "an array": "numpy.zeros(75_000)",
    "an image": "PIL.Image.new('RGB', (400, 400))",
}


@pytest.mark.parametrize("value", HOLDS.values(), ids=HOLDS)
def test_calls_that_hold_much_are_answered_one_after_the_other(
    executor: LocalExecutor,
    call: Callable[[Callable[[Any], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
    value: str,
) -> None:
    monkeypatch.setattr(executor._provision.host_tools, "_reservations", Reservations(1 << 20))
    mutex, under_way, most = threading.Lock(), 0, 0
    small = threading.Event()

    def count(value: Any) -> bool:
        nonlocal under_way, most
        if isinstance(value, str):
            small.set()
            return True
        with mutex:
            under_way += 1
            most = max(most, under_way)
        # What holds little is answered while those that hold much wait.
        assert small.wait(60)
        with mutex:
            under_way -= 1
        return True

    call(count)
    code = (
        "import numpy, PIL.Image\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(7) as pool:\n"
        f"    value = {value}\n"
        "    answers = list(pool.map(call, [value] * 6 + ['small']))\n"
        "answers"
    )
    assert executor(code).output == str([True] * 7)
    assert most == 1


def test_a_call_that_waits_for_room_ends_with_the_code(
    executor: LocalExecutor,
    call: Callable[[Callable[[Any], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reservations = Reservations(1 << 20)
    monkeypatch.setattr(executor._provision.host_tools, "_reservations", reservations)
    hangs, release, begun = threading.Event(), threading.Event(), []

    def hang(value: bytes) -> None:
        begun.append(len(value))
        hangs.set()
        release.wait(100)

    call(hang)
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(2)\n"
        "first, second = (pool.submit(call, b'x' * 600_000) for _ in range(2))\nfirst.result()"
    )
    with pytest.raises(ExecutionTimeout):
        executor.run_code_raise_errors(code, timeout=3)
    # The one that hangs can't be ended; the one that waits for its memory is not begun any more.
    assert hangs.is_set()
    release.set()
    assert executor("6 * 7").output == "42"
    assert wait_until(lambda: reservations._held == 0)
    assert begun == [600_000]
