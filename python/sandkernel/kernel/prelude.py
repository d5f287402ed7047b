"""Runs inside the kernel, as the module `_sandkernel`.

The executor sends this file as text before anything else, so it knows nothing of sandkernel, needs the
standard library and IPython alone, and runs on Python 3.8. Of the user's namespace it binds the tools and the
variables that the executor sends, and the modules that smolagents imports there; nothing else.
"""

import base64
import importlib
import importlib.util
import json
import linecache
import shutil
import subprocess
import sys
import types
import uuid
import zlib

ANSWER_MIME = "application/vnd.sandkernel.answer+json"
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

# The real one: `%%capture` puts another in its place for a while.
_publisher = get_ipython().display_pub  # noqa: F821 IPython puts it into builtins

_pieces = {}
_tools = {}
_answer = None


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


# One for all: the streams, the displays, the results and the replies of a kernel share it.
_send_any_text(_publisher.session)


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


class ToolError(Exception):
    """A tool whose code can't be run in this kernel."""


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
        return self.forward(*args, **kwargs)

    def setup(self):
        self.is_initialized = True

    def forward(self, *args, **kwargs):
        raise NotImplementedError("This tool has no `forward` method")


class FinalAnswer:
    """Stands for the agent's final answer tool: what that tool returns is sent, and the code ends."""

    def __init__(self, tool):
        self._tool = tool

    def __getattr__(self, name):
        return getattr(self._tool, name)

    def __call__(self, *args, **kwargs):
        _send_answer(self._tool(*args, **kwargs))

    forward = __call__


def _user_namespace():
    return get_ipython().user_ns  # noqa: F821 IPython puts it into builtins


def _send_answer(value):
    global _answer
    parent = _publisher.parent_header
    execution = parent.get("header", parent).get("msg_id")
    if _answer is not None and _answer["execution"] == execution:
        # The first answer stands; whoever caught its exception is stopped once more.
        raise FinalAnswerException(_answer["ticket"])
    form, payload = encode_answer(value)
    name = uuid.uuid4().hex
    ticket = "sandkernel:%s:%d" % (name, len(payload))
    # Kept until the next answer: a gateway with output limits drops what is large, and the host asks again.
    _answer = {"execution": execution, "name": name, "ticket": ticket, "form": form, "payload": payload}
    sys.stdout.flush()
    sys.stderr.flush()
    content = {
        "data": {ANSWER_MIME: {"id": name, "form": form, "size": len(payload)}},
        "metadata": {},
        "transient": {},
    }
    _publisher.session.send(
        _publisher.pub_socket,
        "display_data",
        content,
        parent=parent,
        ident=_publisher.topic,
        buffers=[payload],
    )
    raise FinalAnswerException(ticket)


def answer_piece(name, start, size):
    """Reply with a piece of the last answer: its form, a colon, base64."""
    if _answer is None or _answer["name"] != name:
        raise LookupError("This answer is not here any more")
    piece = base64.b64encode(_answer["payload"][start : start + size]).decode()
    raise Reply("%s:%s" % (_answer["form"], piece))


def encode_answer(value):
    """Return the form ("safe" or "pickle") and the bytes of a value."""
    try:
        return "safe", json.dumps(to_safe(value)).encode()
    except (AnswerError, RecursionError, ValueError) as error:
        if not allow_pickle:
            if isinstance(error, AnswerError):
                raise
            raise AnswerError("The final answer can't be sent: it is nested too deeply") from None
    import pickle

    try:
        return "pickle", pickle.dumps(value)
    except Exception:
        return "safe", json.dumps(str(value)).encode()


def to_safe(value):
    """Turn a value into what smolagents' "safe" format has for it."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: to_safe(item) for key, item in value.items()}
        pairs = [[to_safe(key), to_safe(item)] for key, item in value.items()]
        return {"__type__": "dict_with_complex_keys", "data": pairs}
    if isinstance(value, list):
        return [to_safe(item) for item in value]
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {"__type__": kind.__name__, "data": [to_safe(item) for item in value]}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"__type__": "bytes", "data": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, complex):
        return {"__type__": "complex", "real": value.real, "imag": value.imag}
    return _library_to_safe(value)


def _library_to_safe(value):  # noqa: C901 one branch for each type
    import dataclasses
    import datetime
    import decimal
    import pathlib

    # A library that was never imported can't have made this value: look it up, don't load it.
    image = sys.modules.get("PIL.Image")
    if image is not None and isinstance(value, image.Image):
        import io

        buffer = io.BytesIO()
        value.save(buffer, format="PNG")
        return {"__type__": "PIL.Image", "data": base64.b64encode(buffer.getvalue()).decode()}
    # A datetime is a date as well: it comes first.
    for kind in (datetime.datetime, datetime.date, datetime.time):
        if isinstance(value, kind):
            return {"__type__": kind.__name__, "data": value.isoformat()}
    if isinstance(value, datetime.timedelta):
        return {"__type__": "timedelta", "total_seconds": value.total_seconds()}
    if isinstance(value, decimal.Decimal):
        return {"__type__": "Decimal", "data": str(value)}
    if isinstance(value, pathlib.PurePath):
        return {"__type__": "Path", "data": str(value)}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray) and value.dtype.kind in "biufcSU":
            items = value.tolist()
            if value.dtype.kind in "cS":
                items = to_safe(items)
            return {"__type__": "ndarray", "data": items, "dtype": str(value.dtype)}
        if isinstance(value, (numpy.integer, numpy.floating, numpy.bool_, numpy.str_)):
            return value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            "__type__": "dataclass",
            "class_name": type(value).__name__,
            "module": type(value).__module__,
            "data": {field.name: to_safe(getattr(value, field.name)) for field in dataclasses.fields(value)},
        }
    raise AnswerError(
        "The final answer can't be sent: it holds an object of type %s. Give text, numbers, lists, dicts, "
        "dates, numpy arrays, PIL images or dataclasses instead." % type(value).__name__
    )


def from_safe(value):
    """Turn smolagents' "safe" format back into a value."""
    if isinstance(value, list):
        return [from_safe(item) for item in value]
    if not isinstance(value, dict):
        return value
    decode = _DECODERS.get(value.get("__type__"))
    if decode is not None:
        return decode(value)
    return {key: from_safe(item) for key, item in value.items()}


def _image(value):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(value["data"])))


def _array(value):
    import numpy

    return numpy.array(from_safe(value["data"]), dtype=value["dtype"])


def _from_iso(kind):
    def decode(value):
        import datetime

        return getattr(datetime, kind).fromisoformat(value["data"])

    return decode


def _timedelta(value):
    import datetime

    return datetime.timedelta(seconds=value["total_seconds"])


def _decimal(value):
    import decimal

    return decimal.Decimal(value["data"])


def _path(value):
    import pathlib

    return pathlib.Path(value["data"])


def _dataclass(value):
    fields = {key: from_safe(item) for key, item in value["data"].items()}
    fields["__dataclass__"] = value["class_name"]
    fields["__module__"] = value["module"]
    return fields


_DECODERS = {
    "bytes": lambda value: base64.b64decode(value["data"]),
    "complex": lambda value: complex(value["real"], value["imag"]),
    "tuple": lambda value: tuple(from_safe(value["data"])),
    "set": lambda value: set(from_safe(value["data"])),
    "frozenset": lambda value: frozenset(from_safe(value["data"])),
    "dict_with_complex_keys": lambda value: {from_safe(key): from_safe(item) for key, item in value["data"]},
    "PIL.Image": _image,
    "ndarray": _array,
    "datetime": _from_iso("datetime"),
    "date": _from_iso("date"),
    "time": _from_iso("time"),
    "timedelta": _timedelta,
    "Decimal": _decimal,
    "Path": _path,
    "dataclass": _dataclass,
}


def receive(name, piece, last):
    """Take a piece of a document (zlib, base64); return the whole as bytes once the last is there."""
    # IPython keeps the source of each cell for tracebacks: not that of a large document.
    linecache.cache.pop(sys._getframe(2).f_code.co_filename, None)
    pieces = _pieces.setdefault(name, [])
    pieces.append(base64.b64decode(piece))
    if not last:
        return None
    del _pieces[name]
    return zlib.decompress(b"".join(pieces))


def receive_variables(name, piece, last):
    """Take a piece of the variables, and bind them once all are there."""
    document = receive(name, piece, last)
    if document is None:
        return
    for variable, (form, payload) in json.loads(document.decode()).items():
        try:
            _user_namespace()[variable] = _decode_variable(form, payload)
        except ImportError as error:
            message = "the variable %r needs a package that is not installed in the kernel: %s"
            raise ImportError(message % (variable, error)) from None


def _decode_variable(form, payload):
    if form == "safe":
        return from_safe(payload)
    import pickle

    return pickle.loads(base64.b64decode(payload))  # noqa: S301 comes from the host, which trusts the kernel less


def receive_tools(name, piece, last):
    """Take a piece of the tools' definitions, and define them once all are there."""
    document = receive(name, piece, last)
    if document is None:
        return
    for module in BASE_MODULES:
        _user_namespace().setdefault(module, importlib.import_module(module))
    for tool in json.loads(document.decode()):
        if "code" in tool:
            try:
                _tools[tool["name"]] = _define(**tool)
            except Exception as error:
                message = "%s: %s: %s" % (tool["name"], type(error).__name__, error)
                raise ToolError(message) from None
        # Bound anew each time: the agent's code may have used the name for something else.
        _user_namespace()[tool["name"]] = _tools[tool["name"]]


def _define(name, code, class_name, arguments, is_final_answer):
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
    tool = module.__dict__[class_name](**from_safe(arguments))
    return FinalAnswer(tool) if is_final_answer else tool


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
