"""A kernel's text on the host: nothing of it controls a terminal, or is in the name of a file here."""

from __future__ import annotations

import os
import pickle
import pty
import re
import select
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from sandkernel import LocalExecutor
from sandkernel._sandkernel import printable, printable_name
from sandkernel.exceptions import ExecutionTimeout, KernelDied, SandboxFileError, SandboxFileNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

# Code that binds `hostile`: escape sequences that set the clipboard, the title and colours, and all controls.
HOSTILE = (
    r"hostile = '\x1b]52;c;cm0gLXJm\x07 \x1b]0;title\x1b\\ \x1b[2J\x1b[31mred \x9b31m \x90q\x9c'"
    r" + ''.join(map(chr, [*range(9), *range(11, 32), *range(127, 160), 0x61c, 0x200e, 0x200f,"
    r" *range(0x2028, 0x202f), *range(0x2066, 0x206a)])) + 'end'"
)
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

# Each is a step of an agent's, or what a user does with the executor.
STEPS = {
    "output": "print(hostile)",
    "standard error": "import sys; print(hostile, file=sys.stderr, flush=True)",
    "a line in pieces": "for part in hostile: print(part, end='', flush=True)",
    "an error": "raise ValueError(hostile)",
    "a class's name": "raise type(hostile.replace(chr(0), ''), (Exception,), {})(hostile)",
    "an error's cause": "try: raise KeyError(hostile)\nexcept KeyError as e: raise OSError(hostile) from e",
    "a file's name in a traceback": "exec(compile('1/0', hostile.replace(chr(0), ''), 'exec'))",
    "a group": "raise BaseException(hostile)",
    "a representation": "type('Odd', (), {'__repr__': lambda self: hostile})()",
    "a bundle": "display({'text/markdown': hostile, 'text/plain': '<x>'}, raw=True)",
    "a name of a bundle": "display({hostile: hostile, 'text/plain': hostile}, raw=True)",
    "the last of a bundle": "type('M', (), {'_repr_html_': lambda self: hostile})()",
    "another thread's output": (
        "import threading; t = threading.Thread(target=print, args=(hostile,)); t.start(); t.join()"
    ),
    "a descriptor": "import os; os.write(1, hostile.encode()); os.write(2, hostile.encode())",
    "a warning": "import warnings; warnings.warn(hostile)",
    "an unknown name": "globals()[hostile]",
    "a tool's error on the host": "broken(hostile)",
    "a tool's argument of the wrong kind": "broken(**{hostile: 1})",
    "a final answer that is refused": "final_answer(type(hostile, (), {})())",
    "a forged answer": (
        "get_ipython().display_pub.publish({'application/vnd.sandkernel.answer+json': {'form': hostile}})"
    ),
    "a step that takes too long": "print(hostile); import time; time.sleep(60)",
}

ON_A_TERMINAL = f"""
import sys, traceback
from smolagents import CodeAgent, Tool, tool
from smolagents.monitoring import AgentLogger, LogLevel
from sandkernel import LocalExecutor
from sandkernel.pytest_plugin.model import ScriptedModel
{HOSTILE}

class Broken(Tool):
    name, description = "broken", "Fails."
    inputs, output_type = {{"text": {{"type": "string", "description": "A text."}}}}, "string"
    def forward(self, text):
        raise RuntimeError(text)

def told(text):
    raise RuntimeError(text)

logger = AgentLogger(level=LogLevel.DEBUG)
steps = {STEPS!r}
options = dict(logger=logger, timeout=3, tools="host")
with LocalExecutor(**options) as executor:
    executor.stream_logs = True
    executor.send_tools({{"broken": Broken()}})
    for name, code in steps.items():
        print("=====", name)
        executor.on_stdout, executor.on_stderr = told, told
        try:
            output = executor({HOSTILE!r} + "\\n" + code)
            print(output.output, output.logs)
        except Exception:
            traceback.print_exc()
        executed = executor.last_execution
        print(repr(executed), repr(executed.error), executed.results)
        print(executed._repr_mimebundle_()["text/plain"])
    print("===== files")
    executor({HOSTILE!r} + r'''
import os
os.makedirs("directory")
name = hostile.replace(chr(0), "").replace("/", "")[:60]
open(os.path.join("directory", name), "w").close()
''')
    for path in (hostile.replace(chr(0), ""), "directory/" + hostile.replace(chr(0), "") + "/x"):
        for function in (executor.files.read, executor.files.stat, executor.files.remove):
            try:
                function(path)
            except Exception:
                traceback.print_exc()
    target = sys.argv[1]
    executor.files.download("directory", target)
    import os
    print("===== downloaded", *os.listdir(target))
    print(executor.files.list("directory"))
with LocalExecutor(timeout=3) as executor:
    # What smolagents shows of a run: final answers are the user's values.
    scripted = [{HOSTILE!r} + "\\n" + code for code in steps.values()][:12]
    agent = CodeAgent([], ScriptedModel(*scripted, "final_answer(1)"), executor=executor, verbosity_level=2)
    agent.logger.log_markdown = agent.logger.log_code = lambda *_, **__: None
    agent.run("Do it.", max_steps=20)
print("===== end")
"""

# It goes to the log of the gateway, and nowhere.
SILENT = {"a forged answer"}
# A thread of ipykernel's reads it at any time: with this step, or with a later one.
AT_ANY_TIME = {"a descriptor"}


def on_a_terminal(program: str, *arguments: str) -> str:
    """Run a program on a terminal of its own, and return what that was sent."""
    ours, its = pty.openpty()
    environment = dict(os.environ, TERM="dumb", PYTHONIOENCODING="utf-8:backslashreplace", COLUMNS="200")
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=its, stdout=its, stderr=its, env=environment
    )
    os.close(its)
    sent = b""
    with process:
        # A terminal says by an error that nobody has it open any more.
        with suppress(OSError):
            while select.select([ours], [], [], 100)[0] and (piece := os.read(ours, 1 << 16)):
                sent += piece
        os.close(ours)
        process.kill()
    return sent.decode(errors="replace")


def test_nothing_of_a_kernels_controls_the_terminal(tmp_path: Path) -> None:
    sent = on_a_terminal(ON_A_TERMINAL, str(tmp_path / "target")).replace("\r\n", "\n")
    assert sent.endswith("===== end\n"), sent[-5000:]
    found = CONTROLS.search(sent)
    assert found is None, sent[max(0, found.start() - 300) : found.end() + 100]
    # The text itself arrived.
    for name in STEPS.keys() - AT_ANY_TIME:
        part = sent.split(f"===== {name}\n")[1].split("=====")[0]
        assert ("red" in part and "\\x07" in part) != (name in SILENT), (name, part)
    listed = sent.split("===== downloaded ")[1].split("\n")[0]
    assert "\\x1b]52;c;" in listed


def test_no_name_of_a_file_here_controls_a_terminal(tmp_path: Path) -> None:
    names = [
        "plain.txt",
        "grün.txt",
        "two\nlines",
        "a\x1b[31mb",
        "right\u202eleft",
        "bell\x07",
        b"latin\xe9\x9b",
    ]
    target = tmp_path / "target"
    with LocalExecutor() as executor:
        executor(
            f"import os\nos.makedirs('d/e\\x1b[0m')\nfor name in {names!r}:\n"
            "    open(os.path.join(b'd/e\\x1b[0m', os.fsencode(name)), 'wb').write(os.fsencode(name))"
        )
        executor.files.download("d", target)
        assert {path.name for path in target.iterdir()} == {"e\\x1b[0m"}
        found = {path.name: path.read_bytes() for path in (target / "e\\x1b[0m").iterdir()}
        assert found == {
            "plain.txt": b"plain.txt",
            "grün.txt": "grün.txt".encode(),
            "two\nlines": b"two\nlines",
            "a\\x1b[31mb": b"a\x1b[31mb",
            "right\\u202eleft": "right\u202eleft".encode(),
            "bell\\x07": b"bell\x07",
            "latin\udce9\udc9b": b"latin\xe9\x9b",
        }
        # In the sandbox they are what they were.
        assert len(executor.files.list("d/e\x1b[0m")) == len(names)


def test_two_files_that_would_have_one_name_are_told(tmp_path: Path) -> None:
    with LocalExecutor() as executor:
        executor(
            "import os\nos.makedirs('d')\nfor name in ('a\\x07', 'a\\\\x07'): open('d/' + name, 'w').close()"
        )
        with pytest.raises(SandboxFileError, match=r"would both be 'a\\\\x07' here"):
            executor.files.download("d", tmp_path / "target")
        assert not (tmp_path / "target").exists()
        executor.files.download("d/a\x07", tmp_path / "one")


def test_what_is_printable_stays_the_same_object() -> None:
    for text in ("", "grün\n\tτ 👩\u200d🔬", "\N{SOFT HYPHEN}\N{NO-BREAK SPACE}"):
        assert printable(text) is text
    assert printable("\x1b[31mred\x1b[0m\r\n") == "red\n"
    # The three bytes of a lone surrogate.
    assert printable("lone \ud800\x07") == "lone \ufffd\ufffd\ufffd\\x07"
    assert printable_name("ü\x1b[0m".encode() + b"\xff") == "ü\\x1b[0m".encode() + b"\xff"


def test_errors_are_printable_and_keep_what_they_carry() -> None:
    error = SandboxFileNotFoundError("no \x1b[31mfile\u202e", path="\x1b")
    assert (str(error), error.args, error.path) == ("no file\\u202e", ("no file\\u202e",), "\x1b")
    assert (error.errno, isinstance(error, FileNotFoundError)) == (2, True)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.errno, copy.path) == (str(error), 2, "\x1b")
    timeout = ExecutionTimeout("late\x07", restarted=True)
    assert (str(timeout), timeout.restarted, timeout.execution) == ("late\\x07", True, None)
    assert KernelDied(None).args == (None,)


def test_what_is_kept_of_an_execution_is_what_the_kernel_sent(executor: LocalExecutor) -> None:
    executor(f"{HOSTILE}\nprint(hostile, end='')")
    execution = executor.last_execution
    assert execution is not None
    assert execution.stdout.endswith("\u2068\u2069end")
    assert "\x1b]52;c;" in execution.stdout
