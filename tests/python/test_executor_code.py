"""What comes back of code that an executor runs."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import PIL.Image
import pytest
from smolagents.utils import AgentError, AgentExecutionError

from sandkernel import LocalExecutor
from sandkernel.exceptions import ClosedError, ConfigurationError, ExecutionTimeout
from sandkernel.providers.local import LocalSandbox
from sandkernel.sandbox.observation import shorten
from waiting import time_limits, write_line

if TYPE_CHECKING:
    from collections.abc import Callable


def test_state_persists_between_calls(executor: LocalExecutor) -> None:
    executor("import numpy as np; a = 2")
    assert "1.41421" in executor("print(np.sqrt(a))").logs


def test_output_is_the_text_of_the_last_expression(executor: LocalExecutor) -> None:
    result = executor("print('printed'); {'answer': 6 * 7}")
    assert result.output == "{'answer': 42}"
    assert result.logs == "printed\n"
    assert result.is_final_answer is False


def test_no_expression_has_no_output(executor: LocalExecutor) -> None:
    assert executor("nothing_to_show = 1").output is None


def test_stderr_and_stdout_are_shown_in_order(executor: LocalExecutor) -> None:
    code = (
        "import sys\nprint('a', flush=True)\nprint('b', file=sys.stderr, flush=True)\nprint('c', flush=True)"
    )
    assert executor(code).logs == "a\nb\nc\n"


def test_displayed_text_is_shown(executor: LocalExecutor) -> None:
    assert executor("print('first')\ndisplay({'shown': 1})").logs == "first\n{'shown': 1}\n"


@pytest.mark.parametrize("show", ["image", "display(image)"])
def test_an_image_is_an_image(executor: LocalExecutor, show: str) -> None:
    result = executor(f"from PIL import Image\nimage = Image.new('RGB', (7, 5), (255, 0, 0))\n{show}")
    assert isinstance(result.output, PIL.Image.Image)
    assert result.output.size == (7, 5)
    assert result.output.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_an_expression_after_a_displayed_image_is_the_output(executor: LocalExecutor) -> None:
    assert executor("from PIL import Image\ndisplay(Image.new('RGB', (1, 1)))\n42").output == "42"


def test_a_broken_image_leaves_the_text(executor: LocalExecutor) -> None:
    code = """
class Broken:
    def __repr__(self): return "broken"
    def _repr_png_(self): return b"no png"
Broken()"""
    assert executor(code).output == "broken"


def test_prints_before_an_error_are_kept_for_the_model(executor: LocalExecutor) -> None:
    with pytest.raises(AgentExecutionError):
        executor("print('before the error')\n1 / 0")
    assert executor.state["_print_outputs"] == "before the error\n"
    assert executor.last_execution.stdout == "before the error\n"
    executor("pass")
    assert executor.state["_print_outputs"] == ""


def test_traceback_is_what_the_agent_can_mend(executor: LocalExecutor) -> None:
    code = "import json\ndef parse(text):\n    return json.loads(text)\nparse('{')"
    with pytest.raises(AgentError) as raised:
        executor(code)
    message = str(raised.value)
    assert re.search(r"-+> 4 parse\('\{'\)", message)
    assert re.search(r"-+> 3     return json\.loads\(text\)", message)
    assert message.endswith(
        "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    )
    assert "\x1b" not in message
    assert "ipykernel" not in message
    assert "IPython" not in message
    assert "library frames left out: 1" in message
    # The lines around those of a library are of no use to the agent.
    assert "_default_decoder = JSONDecoder" not in message
    assert "isinstance(s, str)" not in message


def test_syntax_error_is_readable(executor: LocalExecutor) -> None:
    with pytest.raises(AgentError) as raised:
        executor("x = 1\nprint('missing")
    message = str(raised.value)
    assert "SyntaxError: unterminated string literal" in message
    assert "line 2" in message
    assert "print('missing" in message


def test_error_messages_are_bounded(executor: LocalExecutor) -> None:
    with pytest.raises(AgentError) as raised:
        executor("raise ValueError('a' * 1_000_000 + 'the end')")
    message = str(raised.value)
    assert len(message) < 12_000
    assert message.endswith("the end")
    assert "ValueError: aaa" in message
    assert "characters" in message


def test_deep_recursion_is_bounded(executor: LocalExecutor) -> None:
    with pytest.raises(AgentError) as raised:
        executor("def down(n): return down(n + 1)\ndown(0)")
    assert len(str(raised.value)) < 12_000
    assert "RecursionError" in str(raised.value)


def test_chained_errors_keep_their_cause(executor: LocalExecutor) -> None:
    with pytest.raises(AgentError) as raised:
        executor("try:\n    {}['key']\nexcept KeyError as error:\n    raise ValueError('no key') from error")
    message = str(raised.value)
    assert "KeyError: 'key'" in message
    assert "direct cause" in message
    assert message.endswith("ValueError: no key")


def test_an_error_without_a_message(executor: LocalExecutor) -> None:
    with pytest.raises(AgentError, match="KeyboardInterrupt"):
        executor("raise KeyboardInterrupt")


def test_an_agents_ansi_codes_do_not_reach_the_model_as_error(executor: LocalExecutor) -> None:
    with pytest.raises(AgentError) as raised:
        executor(r"raise ValueError('\x1b[31mred\x1b[0m')")
    assert "\x1b" not in str(raised.value)


def test_long_logs_keep_head_and_tail(executor: LocalExecutor) -> None:
    result = executor("for i in range(100_000): print(f'line {i}')")
    assert len(result.logs) < 20_200
    assert result.logs.startswith("line 0\nline 1\n")
    assert result.logs.endswith("line 99999\n")
    assert "left out" in result.logs
    assert executor.last_execution.stdout.count("\n") == 100_000


def test_ten_megabytes_of_lines_arrive_whole(executor: LocalExecutor) -> None:
    executor("for i in range(100_000): print('x' * 99)")
    assert len(executor.last_execution.stdout) == 10_000_000
    assert executor.last_execution.omitted_output_bytes == 0


def test_output_beyond_its_bound_is_counted_and_said() -> None:
    with LocalExecutor(session_options={"max_output_bytes": 100_000}) as small:
        result = small("for i in range(20): print('y' * 100_000, flush=True)")
        execution = small.last_execution
        assert len(execution.stdout) <= 200_100
        assert execution.omitted_output_bytes >= 1_700_000
        assert "bytes of output were not kept" in result.logs


@pytest.mark.parametrize(("length", "limit"), [(10, 10), (11, 10), (1000, 7), (5, 0), (0, 0)])
def test_shorten_counts_what_it_leaves_out(length: int, limit: int) -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(length))
    short = shorten(text, limit)
    if length <= limit:
        assert short == text
        return
    head, note, tail = short.split("\n")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) + len(tail) == limit
    assert f"{length - limit:,} characters" in note


def test_timeout_interrupts_and_keeps_the_state(executor: LocalExecutor) -> None:
    executor("kept = 'still here'")
    for limit in time_limits():
        with pytest.raises(ExecutionTimeout) as raised:
            executor.run_code_raise_errors(f"{write_line('tick')}\nwhile True: pass", timeout=limit)
        if executor.last_execution.stdout:
            break
    assert isinstance(raised.value, TimeoutError)
    assert raised.value.restarted is False
    assert f"{limit:g} s" in str(raised.value)
    assert "are kept" in str(raised.value)
    assert executor.state["_print_outputs"] == "tick\n"
    assert executor.last_execution.stdout == "tick\n"
    assert executor("kept").output == "'still here'"


def test_default_timeout_is_the_constructors() -> None:
    with LocalExecutor(timeout=5) as impatient:
        with pytest.raises(ExecutionTimeout):
            impatient("import time; time.sleep(30)")
        assert impatient.run_code_raise_errors("import time; time.sleep(5.2); 1", timeout=None).output == "1"


@pytest.mark.parametrize("code", [None, b"1", 1, ["1"]])
def test_code_that_is_no_text_is_refused(executor: LocalExecutor, code: object) -> None:
    with pytest.raises(ConfigurationError, match=f"not {type(code).__name__}"):
        executor(code)  # type: ignore[arg-type]


def test_an_executor_is_always_true(executor: LocalExecutor) -> None:
    assert bool(executor) is True


@pytest.mark.parametrize(
    "use",
    [
        lambda closed: closed("1"),
        lambda closed: closed.send_tools({}),
        lambda closed: closed.send_variables({"a": 1}),
        lambda closed: closed.install_packages(["numpy"]),
    ],
)
def test_a_closed_executor_says_so(closed: LocalExecutor, use: Callable[[LocalExecutor], object]) -> None:
    with pytest.raises(ClosedError, match="LocalExecutor is closed"):
        use(closed)


@pytest.fixture(scope="module")
def closed() -> LocalExecutor:
    executor = LocalExecutor()
    executor.cleanup()
    executor.delete()
    executor.cleanup()
    return executor


def test_calls_of_many_threads_are_all_served(executor: LocalExecutor) -> None:
    outputs: dict[int, str] = {}
    executor("count = 0")

    def call(number: int) -> None:
        outputs[number] = executor(f"count += 1\nprint({number})\n{number} * 2").output

    threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {number: str(number * 2) for number in range(16)}
    assert executor("count").output == "16"


def test_nothing_of_ours_is_in_the_users_namespace() -> None:
    with LocalExecutor() as fresh:
        plain = "sorted(name for name in dir() if not name.startswith('_'))"
        assert fresh(plain).output == "['In', 'Out', 'exit', 'get_ipython', 'open', 'quit']"
        assert fresh("'_sandkernel' in dir(), len(In)").output == "(False, 3)"


def test_a_constructor_that_fails_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[LocalSandbox] = []

    class Remembered(LocalSandbox):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr("sandkernel.integrations.smolagents.local.LocalSandbox", Remembered)
    with pytest.raises(TypeError, match="no_such_option"):
        LocalExecutor(session_options={"no_such_option": 1})
    assert [sandbox._process.terminated for sandbox in made] == [True]
