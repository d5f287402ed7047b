"""Tools on their way to the kernel: as source code, or as the description of one that stays on the host."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import re
import sys
import types
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from smolagents.tool_validation import validate_tool_attributes
from smolagents.tools import Tool
from smolagents.utils import get_source, instance_to_source

from sandkernel.exceptions import ConfigurationError
from sandkernel.integrations.smolagents import sources
from sandkernel.sandbox.tool_definitions import Definition, Stub
from sandkernel.sandbox.variables import encode_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "NO_ARGUMENTS",
    "call",
    "define",
    "is_agent",
    "stub",
]

# Of a tool that was made without any.
NO_ARGUMENTS = "{}"
# What a managed agent declares as its inputs.
_OF_AGENT = inspect.Signature(
    [
        inspect.Parameter("task", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        inspect.Parameter("additional_args", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None),
    ]
)


def stub(name: str, tool: Any) -> Stub:  # noqa: ANN401 whatever can be called
    """Return what the kernel is told of a tool that stays on the host.

    Raises:
        ConfigurationError: It can't be called.
    """
    if not callable(tool):
        raise ConfigurationError(f"The tool {name!r} ({type(tool).__name__}) can't be called")
    description, output_type = (str(getattr(tool, key, "")) for key in ("description", "output_type"))
    inputs = json.dumps(getattr(tool, "inputs", None) or {}, default=str)
    return Stub(name, description, inputs, output_type)


def is_agent(tool: object) -> bool:
    """Whether it is a managed agent."""
    return hasattr(tool, "managed_agents")


def call(name: str, tool: Callable[..., object], args: list[Any], kwargs: dict[str, Any]) -> object:
    """Call a tool, with what it declares: not with what is for whoever runs it.

    Raises:
        TypeError: The arguments are others.
    """
    if is_agent(tool):
        # `MultiStepAgent.run` takes `max_steps`, `images`, `reset` and more.
        try:
            given = _OF_AGENT.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"The agent {name!r} takes a task and additional_args: {error}") from None
        more = given.get("additional_args")
        if not isinstance(given["task"], str) or not isinstance(more, (dict, type(None))):
            raise TypeError(f"The agent {name!r} takes a task, a str, and additional_args, a dict")
        return tool(given["task"], additional_args=more) if more else tool(given["task"])
    if isinstance(tool, Tool) and "sanitize_inputs_outputs" in kwargs.keys() - tool.inputs.keys():
        raise TypeError(f"The tool {name!r} got an unexpected keyword argument 'sanitize_inputs_outputs'")
    return tool(*args, **kwargs)


def define(name: str, tool: Any) -> Definition:  # noqa: ANN401 whatever the user gave
    """Return the definition of a tool.

    Raises:
        ConfigurationError: It can't be had in a kernel; the message names it and says why.
    """
    if not isinstance(tool, Tool):
        kind = type(tool).__name__
        what = "managed agent" if is_agent(tool) else "tool"
        raise ConfigurationError(
            f"The {what} {name!r} ({kind}) can't be sent to the kernel: only a smolagents Tool can, since "
            "its source code is sent and runs there"
        )
    try:
        _require_class(tool)
        code, imports = _code(tool)
        arguments = json.dumps(_arguments(tool))
    except Exception as error:
        # A tool has methods of its own here, which may raise whatever they like.
        raise ConfigurationError(
            f"The tool {name!r} ({type(tool).__name__}) can't be sent to the kernel, where its source code "
            f"is to run: {error}"
        ) from error
    return Definition(name, code, type(tool).__name__, arguments, imports)


# Reading the source of a class takes smolagents 20 ms, and each run of an agent asks for all of its tools.
_codes: WeakKeyDictionary[type[Any], tuple[dict[str, str], str, tuple[str, ...]]] = WeakKeyDictionary()


def _code(tool: Tool) -> tuple[str, tuple[str, ...]]:
    """Return the source that makes a tool's class, and the modules that it imports."""
    # What smolagents writes down of a class: its attributes' texts, and its methods.
    attributes = {
        f"{ancestor.__qualname__}.{name}": repr(value) for ancestor, name, value in _members(type(tool))
    }
    known = _codes.get(type(tool))
    if known is None or known[0] != attributes:
        try:
            _check(tool.to_dict)
            code = _source(type(tool))
        except SyntaxError as error:
            raise ConfigurationError(f"a default or an attribute is no literal: {error.text}") from error
        imports = tuple(sorted(set(sources.imports(code)) - _PRESENT))
        known = _codes[type(tool)] = (attributes, code, imports)
    return known[1:]


_METHODS = (types.FunctionType, staticmethod, classmethod)
_UNDEFINED = re.compile(r"- (\w+: )?Name '\w+' is undefined\.")


def _check(validate: Callable[[], object]) -> None:
    """Have smolagents say whether it would send a tool.

    Which names are undefined, `sources.differences` finds out: smolagents does not know all that binds a
    name, and looks at annotations that nobody evaluates.
    """
    try:
        validate()
    except ValueError as error:
        first, *rest = str(error).split("\n")
        if not rest or not first.endswith(":") or any(not _UNDEFINED.fullmatch(line) for line in rest):
            raise


def _require_class(tool: Tool) -> None:
    """Refuse a tool that its class alone does not make.

    Raises:
        ConfigurationError: It is something else, too.
    """
    if type(type(tool)) is not type(Tool):
        raise ConfigurationError(f"its class has the metaclass {type(type(tool)).__name__}")
    own = vars(tool).keys() & {"forward", "setup", "__call__"}
    if own:
        raise ConfigurationError(f"its {min(own)} is not that of its class")


def _members(kind: type[Any]) -> Iterator[tuple[type[Any], str, object]]:
    for ancestor in kind.__mro__:
        if ancestor not in Tool.__mro__:
            for name, value in vars(ancestor).items():
                yield ancestor, name, value


# The kernel has its own `Tool`.
_PRESENT = {*sys.stdlib_module_names, "smolagents"}


def _source(kind: type[Any]) -> str:
    """Return the source of a tool's class after that of the classes that it inherits from."""
    ancestors = [base for base in kind.__mro__ if base not in Tool.__mro__]
    for first, second in zip(ancestors, [*ancestors[1:], Tool], strict=True):
        if first.__bases__ != (second,):
            names = ", ".join(base.__name__ for base in first.__bases__)
            raise ConfigurationError(
                f"{first.__name__} inherits from {names}: only a single line of Tools can be sent"
            )
    future = "from __future__ import annotations\n" if any(map(sources.is_future, ancestors)) else ""
    parts = [_part(ancestor, future) for ancestor in reversed(ancestors)]
    return future + "\n\n".join(parts) + "\n"


def _part(kind: type[Any], future: str) -> str:
    """Return the source of a class alone.

    Raises:
        ConfigurationError: It would be another class in the kernel.
    """
    # smolagents writes down the class that it makes of a function, and can't read that where the function
    # has further decorators.
    if kind.__name__ == "SimpleTool" and kind.__base__ is Tool:
        lost = [each for function in sources.functions(kind) for each in _decorators(function)]
    else:
        _check(lambda: validate_tool_attributes(kind, check_imports=False))
        (node,) = ast.parse(get_source(kind)).body
        lost = [ast.unparse(each) for each in [*node.decorator_list, *node.keywords]]
    if lost:
        raise ConfigurationError(f"{lost[0]!r} at its definition would be lost")
    # It looks at nothing but the class.
    part = _with_true_names(kind, instance_to_source(object.__new__(kind), base_cls=Tool))
    part = re.sub(r"^from smolagents\.tools import Tool$", "", part, flags=re.MULTILINE)
    base = kind.__bases__[0].__name__
    part = part.replace(f"class {kind.__name__}(Tool):", f"class {kind.__name__}({base}):", 1)
    part = sources.unannotated(part.strip())
    (written,) = (each for each in ast.parse(part).body if isinstance(each, ast.ClassDef))
    there = {each.name for each in written.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}
    for name in vars(kind).keys() - there:
        if isinstance(vars(kind)[name], _METHODS) and (name == "forward" or not hasattr(Tool, name)):
            raise ConfigurationError(f"its {name!r} is not that of its source")
    part += _mended(kind, written)
    others = sources.differences(future + part, kind)
    if others:
        raise ConfigurationError(
            f"its source names {', '.join(others)}: import or define it inside the method"
        )
    return part


def _decorators(function: Any) -> list[str]:  # noqa: ANN401 a function
    # A loaded tool's source can't be had from here: what smolagents saved of it has no decorators.
    with contextlib.suppress(OSError, SyntaxError):
        return sources.decorators(function)
    return []


def _mended(kind: type[Any], written: ast.ClassDef) -> str:
    """Return assignments for the attributes that smolagents wrote down wrongly: texts with backslashes."""
    values = {}
    for node in written.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with contextlib.suppress(ValueError):
                values[node.targets[0].id] = ast.literal_eval(node.value)
    return "".join(
        f"\n{kind.__name__}.{name} = {vars(kind)[name]!r}"
        for name, value in values.items()
        if name in vars(kind) and vars(kind)[name] != value
    )


def _with_true_names(kind: type[Any], source: str) -> str:
    """Give methods their names back.

    smolagents' own remote executors leave a mark on `FinalAnswerTool.forward` itself: from then on, its
    source in this process is that of a method `_forward`.
    """
    for name, method in vars(kind).items():
        stated = re.search(r"def (\w+)\(", getattr(method, "__source__", ""))
        if stated is not None and stated[1] != name and stated[1] not in vars(kind):
            source = source.replace(f"def {stated[1]}(", f"def {name}(", 1)
    return source


def _arguments(tool: Any) -> dict[str, Any]:  # noqa: ANN401 a Tool
    """Return the arguments to construct an equal tool with, where they differ from the defaults.

    smolagents constructs it without any, and so loses them; by convention an argument is kept as the
    attribute of its name.
    """
    arguments = {}
    for parameter in inspect.signature(type(tool).__init__).parameters.values():
        keyword = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if parameter.name == "self" or not keyword or parameter.name not in vars(tool):
            continue
        value = vars(tool)[parameter.name]
        if value is parameter.default:
            continue
        encoded = encode_value(value)
        if parameter.default is parameter.empty or encoded != encode_value(parameter.default):
            arguments[parameter.name] = encoded
    return arguments
