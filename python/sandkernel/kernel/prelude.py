"""Runs inside the kernel, as the module `_sandkernel`.

The executor sends this file as text before anything else, so it knows nothing of sandkernel, needs the
standard library alone, and runs on Python 3.8. Where there is IPython, or ipykernel, it does more. Of the
user's namespace it binds the tools and the variables that the executor sends, and the modules that smolagents
imports there; nothing else.
"""

import asyncio
import base64
import concurrent.futures
import contextlib
import contextvars
import importlib
import importlib.util
import inspect
import json
import linecache
import os
import shutil
import subprocess
import sys
import threading
import types
import uuid

import _sandkernel_background
import _sandkernel_event_loop
import _sandkernel_exits
import _sandkernel_shell
from _sandkernel_calls import HostTool, interruptible
from _sandkernel_decoder import Decoder
from _sandkernel_encoder import FORM, Encoder, UnsendableError
from _sandkernel_shell import kernel as _kernel
from _sandkernel_shell import publish as _publish
from _sandkernel_shell import shell as _shell
from _sandkernel_shell import user_namespace as _user_namespace

ANSWER_MIME = "application/vnd.sandkernel.answer+json"
TOOLS_MIME = "application/vnd.sandkernel.tools+json"
BASE_MODULES = (
    "collections",
    "datetime",
    "itertools",
    "math",
    "queue",
    "random",
    "re",
    "stat",
    "statistics",
    "time",
    "unicodedata",
)

# Set by the executor: whether a value that has no safe form may travel as a pickle.
allow_pickle = False

# By what they are made of. Kept where another executor sends this module to the same kernel.
_tools = getattr(sys.modules.get("_sandkernel"), "_tools", {})
_answer = None
# By name, what the agent's code is to find in its namespace.
_bound = {}


def _send_any_text(session):
    """Let text with a lone surrogate through: jupyter_client can't encode it, and loses its whole message."""
    pack = session.pack
    # Not twice, and not for a packer of the user's own that is none for JSON.
    if getattr(pack, "takes_any_text", False) or pack({}) != b"{}":
        return

    def pack_any_text(message):
        try:
            return pack(message)
        except UnicodeEncodeError:
            from jupyter_client.jsonutil import json_clean, json_default

            return json.dumps(json_clean(message), default=json_default).encode()

    pack_any_text.takes_any_text = True
    session.pack = pack_any_text


if _kernel is not None:
    # One for all: the streams, the displays, the results and the replies of a kernel share it.
    _send_any_text(_kernel.session)
    _sandkernel_background.install(_kernel)
    # Kernels of gateways of ours have these from their start on.
    _sandkernel_event_loop.install(_kernel)
    _sandkernel_exits.install(_kernel)


class FinalAnswerException(BaseException):
    """Ends the agent's code once its answer is on the way; `except Exception` does not catch it."""

    def _render_traceback_(self):
        # IPython shows this in place of a traceback, which nobody would read and which costs time.
        return [str(self)]


class Reply(BaseException):
    """Carries a text to the host: a reply passes also where a gateway limits output."""

    def _render_traceback_(self):
        return ["Reply"]


class AnswerError(TypeError):
    """A final answer that can't be sent."""


class VariableError(TypeError):
    """A variable that can't be sent."""


class VariableNotFoundError(LookupError):
    """A variable that is not there."""


class ToolError(Exception):
    """A tool that can't be used in this kernel."""


class InstallError(Exception):
    """A package that can't be installed in this kernel."""


class Tool:
    """What a tool's class derives from here: smolagents' `Tool` without its checks."""

    def __init__(self, *args, **kwargs):
        self.is_initialized = False

    def __call__(self, *args, **kwargs):
        if not getattr(self, "is_initialized", False):
            self.setup()
        if len(args) == 1 and not kwargs and isinstance(args[0], dict) and args[0]:
            inputs = getattr(self, "inputs", {})
            if all(name in inputs for name in args[0]):
                args, kwargs = (), args[0]
        result = self.forward(*args, **kwargs)
        return _finish(result) if inspect.iscoroutine(result) else result

    def setup(self):
        self.is_initialized = True

    def forward(self, *args, **kwargs):
        raise NotImplementedError("This tool has no `forward` method")


def _finish(coroutine):
    """Return what comes of a coroutine: code calls a tool as any function, in a loop that stands still."""
    outcome, running = concurrent.futures.Future(), []

    async def main():
        running.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await coroutine

    def run():
        try:
            outcome.set_result(asyncio.run(main()))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
    try:
        with interruptible():
            return outcome.result()
    except BaseException:
        for loop, task in running if not outcome.done() else ():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
        raise


class BrokenTool:
    """Stands for a tool that could not be made."""

    def __init__(self, name, reason):
        self._message = "The tool %r can't be used in this sandbox: %s" % (name, reason)

    def __call__(self, *args, **kwargs):
        raise ToolError(self._message)


class FinalAnswer:
    """Stands for the agent's final answer tool: what that tool returns is sent, and the code ends."""

    def __init__(self, tool):
        self._tool = tool

    def __getattr__(self, name):
        return getattr(self._tool, name)

    def __call__(self, *args, **kwargs):
        _send_answer(self._tool(*args, **kwargs))

    forward = __call__


def _bind_again(_=None):
    """Bind the tools whose names the code has used for something else, and tell the host which."""
    namespace = _user_namespace()
    lost = [name for name, tool in _bound.items() if namespace.get(name) is not tool]
    if lost:
        namespace.update((name, _bound[name]) for name in lost)
        if "_oh" not in namespace:
            # All is gone, also what IPython shows a value with, and what makes a class.
            namespace.setdefault("__name__", "__main__")
            _shell.init_user_ns()
        _publish(TOOLS_MIME, lost, _sandkernel_shell.parent())


def _bind_around_cells():
    """Have it done behind each cell of the agent's: what is silent has none of these events.

    And before each, too: a thread may have done it, or an interrupt have broken it off.
    """
    events = _shell.events
    former = getattr(sys.modules.get("_sandkernel"), "_bind_again", None)
    for event in ("pre_run_cell", "post_run_cell"):
        with contextlib.suppress(ValueError):
            events.unregister(event, former)
        events.register(event, _bind_again)


if _shell is not None:
    _bind_around_cells()


def _send_answer(value):
    _send(value, "The final answer", "answer", AnswerError, allow_pickle)


def send_variable(name):
    """Send a variable to the host, as a final answer is sent, but never as a pickle."""
    namespace = _user_namespace()
    if name not in namespace:
        raise VariableNotFoundError(name)
    _send(namespace[name], "The variable %r" % name, name, VariableError, False)


def forget_answer():
    """Give back the memory of what was sent last."""
    global _answer
    _answer = None


def _send(value, subject, root, error_class, with_pickle):
    global _answer
    parent = _sandkernel_shell.parent()
    execution = parent.get("header", parent).get("msg_id")
    # A kernel may not tell its code which execution this is.
    if _answer is not None and execution is not None and _answer["execution"] == execution:
        # The first answer stands; whoever caught its exception is stopped once more.
        raise FinalAnswerException(_answer["ticket"])
    form, buffers = encode_answer(value, subject, root, error_class, with_pickle)
    name = uuid.uuid4().hex
    size = sum(map(len, buffers))
    ticket = "sandkernel:%s:%d:%d" % (name, size, len(buffers[0]))
    # Kept until the next answer: a gateway with output limits drops what is large, and a kernel that is no
    # ipykernel sends nothing of the kind. Then the host asks.
    _answer = {"execution": execution, "name": name, "ticket": ticket, "form": form, "buffers": buffers}
    sys.stdout.flush()
    sys.stderr.flush()
    _publish(ANSWER_MIME, {"id": name, "form": form, "size": size}, parent, buffers)
    raise FinalAnswerException(ticket)


def answer_piece(name, start, size):
    """Reply with a piece of the last answer, all its buffers in a row: its form, a colon, base64."""
    if _answer is None or _answer["name"] != name:
        raise LookupError("This answer is not here any more")
    piece = b""
    for buffer in _answer["buffers"]:
        if start < len(buffer) and len(piece) < size:
            piece += buffer[start : start + size - len(piece)]
        start = max(start - len(buffer), 0)
    raise Reply("%s:%s" % (_answer["form"], base64.b64encode(piece).decode()))


def encode_answer(value, subject, root, error_class, with_pickle):
    """Return the form of a value ("safe", "buffers-1" or "pickle") and its buffers."""
    try:
        encoder = Encoder(with_buffers=True, snapshot=True)
        encoded = encoder.encode(value)
        if not encoder.buffers:
            return "safe", [json.dumps(encoded).encode()]
        sizes = [len(buffer) for buffer in encoder.buffers]
        return FORM, [json.dumps({"value": encoded, "sizes": sizes}).encode()] + encoder.buffers
    except (UnsendableError, RecursionError, ValueError) as error:
        if not with_pickle:
            raise error_class(_refusal(error, subject, root)) from None
    import pickle

    try:
        return "pickle", [pickle.dumps(value)]
    except Exception:
        return "safe", [json.dumps(str(value)).encode()]


def _refusal(error, subject, root):
    if not isinstance(error, UnsendableError):
        return "%s can't be sent: it is nested too deeply, or holds itself" % subject
    what = "it" if error.reason.startswith("it ") else "it holds"
    reason = error.reason[3:] if what == "it" else error.reason
    where = " at %s%s" % (root, error.path) if error.path else ""
    return (
        "%s can't be sent: %s %s%s. Give text, numbers, lists, dicts, dates, numpy arrays, "
        "frames, images or dataclasses instead." % (subject, what, reason, where)
    )


def receive_environment(document, _):
    """Set environment variables, and remove those that are to have no value."""
    for variable, value in document.items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value


def receive_variables(document, buffers):
    """Bind variables: all of them, or none."""
    decoder = Decoder(buffers)
    variables = {}
    for variable, (form, payload) in document.items():
        try:
            value = decoder.decode(payload)
            if form == "pickle":
                import pickle

                value = pickle.loads(value)  # noqa: S301 comes from the host, which trusts the kernel less
        except ImportError as error:
            message = "the variable %r needs a package that is not installed in the kernel: %s"
            raise ImportError(message % (variable, error)) from None
        variables[variable] = value
    _user_namespace().update(variables)


def receive_tools(document, _):
    """Define tools, and bind them."""
    for module in BASE_MODULES if document["with_modules"] else ():
        _user_namespace().setdefault(module, importlib.import_module(module))
    namespace, failed = _user_namespace(), {}
    for name in document["former"]:
        if name in _bound and namespace.get(name) is _bound.pop(name):
            del namespace[name]
    for tool in document["tools"]:
        if "definition" in tool:
            try:
                _tools[tool["key"]] = _make(tool["is_final_answer"], tool["name"], tool["definition"])
            except (Exception, SystemExit) as error:
                failed[tool["name"]] = "%s: %s" % (type(error).__name__, error)
                _tools[tool["key"]] = BrokenTool(tool["name"], failed[tool["name"]])
        _bound[tool["name"]] = _tools[tool["key"]]
    # Bound anew each time: the agent's code may have used a name for something else.
    namespace.update(_bound)
    if failed:
        raise Reply(json.dumps(failed))


def _make(is_final_answer, name, definition):
    if "code" in definition:
        tool = _define(name, **definition)
    else:
        tool = HostTool(name, allow_pickle=allow_pickle, **definition)
    return FinalAnswer(tool) if is_final_answer else tool


def _define(name, code, class_name, arguments):
    import typing

    # A namespace for each tool: nothing that the agent's code binds can break it.
    module = types.ModuleType("_sandkernel_tool_" + name)
    module.__dict__.update({base: importlib.import_module(base) for base in BASE_MODULES})
    module.__dict__.update({"Any": typing.Any, "Optional": typing.Optional, "Tool": Tool})
    sys.modules[module.__name__] = module
    # Not in angle brackets: IPython shows the lines of a file whose name looks like one.
    path = "tool %s" % name
    linecache.cache[path] = (len(code), None, code.splitlines(True), path)
    exec(compile(code, path, "exec"), module.__dict__)  # noqa: S102 this is what the kernel is for
    return module.__dict__[class_name](**Decoder().decode(arguments))


def reply(text):
    """Reply with a text."""
    raise Reply(text)


def missing(names):
    """Reply with the names, as JSON, of the modules that can't be imported."""
    importlib.invalidate_caches()
    absent = []
    for name in names:
        try:
            found = importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            found = False
        if not found:
            absent.append(name)
    raise Reply(json.dumps(absent))


def install(requirements):
    """Install requirements into the kernel's own environment; `InstallError` has the installer's words."""
    if importlib.util.find_spec("uv") is not None:
        command = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]
    elif shutil.which("uv"):
        command = [shutil.which("uv"), "pip", "install", "--python", sys.executable]
    elif importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    else:
        raise InstallError("neither uv nor pip is there")
    done = subprocess.run(
        command + ["--"] + requirements,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        raise InstallError(done.stdout.decode(errors="replace")[-20000:])
    importlib.invalidate_caches()
