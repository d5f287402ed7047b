"""Final answers, wherever and however the code gives them."""

from __future__ import annotations

import datetime as dt
import decimal
import inspect
import pathlib
from textwrap import dedent
from typing import Any

import numpy as np
import PIL.Image
import pytest
from smolagents import FinalAnswerTool
from smolagents.utils import AgentExecutionError

from sandkernel import LocalExecutor
from sandkernel.exceptions import PayloadError
from sandkernel.sandbox import final_answer


@pytest.fixture(autouse=True)
def tools(executor: LocalExecutor) -> None:
    executor.send_tools({"final_answer": FinalAnswerTool()})


GATHER = """
import asyncio
async def give(number):
    await asyncio.sleep(0)
    final_answer(number)
await asyncio.gather(give(1), give(2))
"""


def answer(executor: LocalExecutor, code: str) -> Any:
    result = executor(dedent(code))
    assert result.is_final_answer is True
    return result.output


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('final_answer("This is the final answer")', "This is the final answer"),
        ('result = "through a variable"\nfinal_answer(result)', "through a variable"),
        ("final_answer(answer='by keyword')", "by keyword"),
        ('final_answer("""several\nlines""")', "several\nlines"),
        ("text = '''holds\nfinal_answer(5)\n'''\nfinal_answer(text)", "holds\nfinal_answer(5)\n"),
        (
            "n = 2\nif n == 1:\n    final_answer('One')\nelif n == 2:\n    final_answer('Two')",
            "Two",
        ),
        ("def finish():\n    final_answer('function')\nfinish()", "function"),
        ("for number in range(10):\n    if number == 3:\n        final_answer(number)", 3),
        ("try:\n    final_answer('try')\nexcept Exception:\n    final_answer('caught')", "try"),
        ("try:\n    final_answer('first')\nexcept:\n    final_answer('second')", "first"),
        ("try:\n    final_answer('swallowed')\nexcept BaseException:\n    pass", "swallowed"),
        ("try:\n    final_answer('before')\nfinally:\n    1 / 0", "before"),
        ("import asyncio\nawait asyncio.sleep(0)\nfinal_answer('await')", "await"),
        (GATHER, 1),
        ("%%capture\nfinal_answer('captured')", "captured"),
        ("from IPython.utils.io import capture_output\nwith capture_output(): final_answer('held')", "held"),
        ("[final_answer(x) for x in 'abc']", "a"),
    ],
)
def test_answer_ends_the_code_wherever_it_is_given(executor: LocalExecutor, code: str, expected: Any) -> None:
    assert answer(executor, code) == expected


def test_code_after_the_answer_does_not_run(executor: LocalExecutor) -> None:
    executor("reached = False")
    assert answer(executor, "print('logged')\nfinal_answer(1)\nreached = True") == 1
    assert executor.last_execution.stdout == "logged\n"
    assert executor("reached").output == "False"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        2.5,
        "text \u00e9\u4e2d\U0001f600 \x00",
        [1, [2, {"a": None}]],
        {"nested": {"list": [1, 2]}},
        {1: "one", (2, 3): "pair"},
        (1, "two", (3,)),
        {1, 2, 3},
        frozenset({"a"}),
        b"\x00\xffbytes",
        1 + 2j,
        dt.datetime(2024, 2, 29, 12, 30, 1, 5),  # noqa: DTZ001
        dt.date(2024, 2, 29),
        dt.time(1, 2, 3),
        dt.timedelta(days=1, microseconds=3),
        decimal.Decimal("1.10"),
        pathlib.PurePosixPath("/tmp/x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_arrive_as_they_were(executor: LocalExecutor, value: Any) -> None:
    imports = (
        "import datetime, decimal, pathlib\nfrom decimal import Decimal\nfrom pathlib import PurePosixPath\n"
    )
    received = answer(executor, f"{imports}final_answer({value!r})")
    assert received == value
    assert isinstance(value, pathlib.PurePath) or type(received) is type(value)


def test_an_array_arrives(executor: LocalExecutor) -> None:
    received = answer(executor, "import numpy\nfinal_answer(numpy.arange(6, dtype='int16').reshape(2, 3))")
    np.testing.assert_array_equal(received, np.arange(6).reshape(2, 3))
    assert received.dtype == np.int16
    assert answer(executor, "final_answer([numpy.float64(0.5), numpy.bool_(True)])") == [0.5, True]


def test_an_image_arrives(executor: LocalExecutor) -> None:
    received = answer(
        executor, "from PIL import Image\nfinal_answer(Image.new('RGB', (10, 10), (255, 0, 0)))"
    )
    assert isinstance(received, PIL.Image.Image)
    assert received.convert("RGB").getpixel((9, 9)) == (255, 0, 0)


def test_a_dataclass_arrives_as_its_fields(executor: LocalExecutor) -> None:
    code = "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\nfinal_answer(Point(3))"
    received = answer(executor, code)
    assert received["x"] == 3
    assert received["__dataclass__"] == "Point"


def test_a_large_answer_travels_once(executor: LocalExecutor) -> None:
    assert answer(executor, "final_answer('x' * 5_000_000)") == "x" * 5_000_000
    execution = executor.last_execution
    assert len(execution.error.value) < 100
    assert len("".join(execution.error.traceback)) < 100
    assert sum(len(buffer) for result in execution.results for buffer in result.buffers) < 5_000_200


def test_a_value_that_cannot_be_sent_is_the_agents_error(executor: LocalExecutor) -> None:
    with pytest.raises(AgentExecutionError) as raised:
        executor("final_answer({'items': [object()]})")
    message = str(raised.value)
    assert "final answer can't be sent" in message
    assert "type object" in message
    assert "_sandkernel" not in message
    assert "<sandkernel>" not in message
    assert answer(executor, "final_answer('mended')") == "mended"


def test_a_deep_answer_is_the_agents_error(executor: LocalExecutor) -> None:
    with pytest.raises(AgentExecutionError, match="nested too deeply"):
        executor("deep = []\nfor _ in range(5000): deep = [deep]\nfinal_answer(deep)")


def test_a_custom_tool_is_evaluated(executor: LocalExecutor) -> None:
    class CustomFinalAnswerTool(FinalAnswerTool):
        def forward(self, answer: str) -> str:
            return "CUSTOM" + answer

    executor.send_tools({"final_answer": CustomFinalAnswerTool()})
    assert answer(executor, "final_answer(answer='_answer')") == "CUSTOM_answer"


def test_a_custom_tool_with_inputs_of_its_own(executor: LocalExecutor) -> None:
    class TwoPartFinalAnswerTool(FinalAnswerTool):
        inputs = {  # noqa: RUF012
            "answer1": {"type": "string", "description": "First part of the answer."},
            "answer2": {"type": "string", "description": "Second part of the answer."},
        }

        def forward(self, answer1: str, answer2: str) -> str:
            return answer1 + "CUSTOM" + answer2

    executor.send_tools({"final_answer": TwoPartFinalAnswerTool()})
    assert (
        answer(executor, "final_answer(answer1='answer1_', answer2='_answer2')") == "answer1_CUSTOM_answer2"
    )


def test_a_subclass_inherits_what_it_does_not_define(executor: LocalExecutor) -> None:
    class DescribedFinalAnswerTool(FinalAnswerTool):
        description = "Ends it."

    class PoliteFinalAnswerTool(DescribedFinalAnswerTool):
        def forward(self, answer: Any) -> Any:
            return ["please", super().forward(answer)]

    executor.send_tools({"final_answer": DescribedFinalAnswerTool()})
    assert answer(executor, "final_answer(1)") == 1
    executor.send_tools({"final_answer": PoliteFinalAnswerTool()})
    assert answer(executor, "final_answer(1)") == ["please", 1]


def test_what_smolagents_own_executors_leave_behind_does_no_harm(
    executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What `RemotePythonExecutor._patch_final_answer_with_exception` does to the class, for good.
    source = inspect.getsource(FinalAnswerTool.forward).replace("def forward(", "def _forward(")
    monkeypatch.setattr(FinalAnswerTool.forward, "__source__", source, raising=False)

    class PlainFinalAnswerTool(FinalAnswerTool):
        description = "Ends it, after all."

    executor.send_tools({"final_answer": PlainFinalAnswerTool()})
    assert answer(executor, "final_answer(1)") == 1


def test_an_error_of_the_tool_is_the_agents_error(executor: LocalExecutor) -> None:
    class StrictFinalAnswerTool(FinalAnswerTool):
        def forward(self, answer: Any) -> Any:
            if answer < 0:
                raise ValueError("positive, please")
            return answer

    executor.send_tools({"final_answer": StrictFinalAnswerTool()})
    with pytest.raises(AgentExecutionError, match="ValueError: positive, please"):
        executor("final_answer(-1)")
    assert answer(executor, "final_answer(1)") == 1


def test_the_users_tool_is_not_changed(executor: LocalExecutor) -> None:
    tool = FinalAnswerTool()
    for _ in range(3):
        executor.send_tools({"final_answer": tool})
        assert answer(executor, "final_answer('again')") == "again"
    assert type(tool) is FinalAnswerTool
    assert vars(tool) == vars(FinalAnswerTool())


def test_smolagents_own_patched_tool_is_understood(executor: LocalExecutor) -> None:
    code = """
        class FinalAnswerException(BaseException): pass
        raise FinalAnswerException('safe:{"__type__": "tuple", "data": [1, 2]}')
    """
    assert answer(executor, code) == (1, 2)


@pytest.mark.parametrize("value", ["legacy", "pickle:gASVAAAA", "safe:{broken", "safe:" + "[" * 100_000])
def test_a_forged_answer_is_refused(executor: LocalExecutor, value: str) -> None:
    code = f"class FinalAnswerException(BaseException): pass\nraise FinalAnswerException({value!r})"
    with pytest.raises(PayloadError):
        executor(code)


@pytest.mark.parametrize("described", ["{}", "'text'", "{'form': 'safe'}", "{'form': 7}"])
def test_a_malformed_message_is_refused(executor: LocalExecutor, described: str) -> None:
    with pytest.raises(PayloadError, match="malformed"):
        executor(f"display({{{final_answer.MIME!r}: {described}}}, raw=True)")


def test_a_pickle_is_loaded_only_where_allowed(executor: LocalExecutor) -> None:
    with pytest.raises(AgentExecutionError, match="can't be sent"):
        executor("final_answer(ValueError('boom'))")
    with pytest.raises(PayloadError, match="allow_pickle"):
        executor("import _sandkernel\n_sandkernel.allow_pickle = True\nfinal_answer(ValueError('boom'))")
    executor("_sandkernel.allow_pickle = False")
    with LocalExecutor(allow_pickle=True) as trusting:
        trusting.send_tools({"final_answer": FinalAnswerTool()})
        with pytest.warns(FutureWarning, match="Loading a pickle"):
            received = trusting("final_answer(ValueError('boom'))").output
        assert isinstance(received, ValueError)
        assert received.args == ("boom",)
        assert trusting("final_answer((n for n in 'ab'))").output.startswith("<generator object")


def test_an_answer_given_before_a_timeout_stands(executor: LocalExecutor) -> None:
    code = "try:\n    final_answer('in time')\nfinally:\n    while True: pass"
    result = executor.run_code_raise_errors(code, timeout=0.5)
    assert result.is_final_answer
    assert result.output == "in time"


def test_an_answer_beyond_the_bound_is_said() -> None:
    with LocalExecutor(session_options={"max_result_bytes": 100_000}) as small:
        small.send_tools({"final_answer": FinalAnswerTool()})
        with pytest.raises(PayloadError, match=r"takes 2000\d\d bytes, and max_result_bytes allows 100000"):
            small("final_answer('x' * 200_000)")
        assert answer(small, "final_answer('x' * 20_000)") == "x" * 20_000


@pytest.mark.parametrize("sizes", ["10:10", f"{10**14}:3", "5:9", "5"])
def test_a_forged_ticket_is_refused(executor: LocalExecutor, sizes: str) -> None:
    ticket = f"sandkernel:{'0' * 32}:{sizes}"
    with pytest.raises(PayloadError):
        executor(f"class FinalAnswerException(BaseException): pass\nraise FinalAnswerException({ticket!r})")
    assert answer(executor, "final_answer(1)") == 1
