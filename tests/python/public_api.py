"""Describes what the public sees of the package, as one text, which `make public-api` writes.

The text is the same on every Python: annotations are as they are written, and argparse's own words left out.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import functools
import importlib
import importlib.metadata
import inspect
import re
import sys
import textwrap
import types
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _pytest.fixtures import FixtureFunctionDefinition

import sandkernel
from sandkernel import __main__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SNAPSHOT = Path(__file__).with_name("public_api.txt")
RENEW = "make public-api"
# What users import from, beside the package itself.
MODULES = (
    "sandkernel",
    "sandkernel.exceptions",
    "sandkernel.testing",
    "sandkernel.pytest_plugin",
    "sandkernel.pytest_plugin.model",
)
DEPRECATED = "deprecated: "
EXTENSION = "sandkernel._sandkernel"
# The methods with which a class takes part in Python's own syntax.
MAGIC = {
    "__aenter__",
    "__aexit__",
    "__aiter__",
    "__anext__",
    "__await__",
    "__call__",
    "__contains__",
    "__enter__",
    "__exit__",
    "__getitem__",
    "__init__",
    "__iter__",
    "__len__",
    "__next__",
}


def described() -> str:
    """Return the text."""
    sections = [
        _section("entry points and extras", _distribution()),
        _section("python -m sandkernel", _command_line(__main__.argument_parser())),
        _section("options of pytest", _pytest_options()),
    ]
    known: dict[int, str] = {}
    for module in MODULES:
        for name, value in _exports(module):
            place = f"{module}.{name}"
            first = known.setdefault(id(value), place)
            sections.append(_section(place, _object(value) if first == place else [f"the same as {first}"]))
    sections.append(_section("deprecated names", sorted(_deprecated())))
    return "\n".join(sections)


def difference() -> str:
    """Return how the package differs from the snapshot; nothing where it doesn't."""
    lines = difflib.unified_diff(
        SNAPSHOT.read_text(encoding="utf-8").splitlines(),
        described().splitlines(),
        "the snapshot",
        "the package",
        lineterm="",
        n=1,
    )
    return "\n".join(lines)


def _section(title: str, lines: Iterator[str] | list[str]) -> str:
    return "\n".join([f"== {title}", *lines, ""])


def _distribution() -> Iterator[str]:
    distribution = importlib.metadata.distribution("sandkernel")
    yield from sorted(f"{point.group}: {point.name} = {point.value}" for point in distribution.entry_points)
    yield from sorted(f"extra: {name}" for name in distribution.metadata.get_all("Provides-Extra") or ())
    yield f"python: {distribution.metadata['Requires-Python']}"


def _command_line(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield f"{name}: {child.description}"
                yield from (f"    {line}" for line in _command_line(child))
        elif not isinstance(action, argparse._HelpAction):
            names = ", ".join(action.option_strings) or action.dest
            rest = f" {action.metavar or action.dest}" if action.nargs != 0 else ""
            yield f"{names}{rest} = {_value(action.default)}: {action.help}"


class _Options:
    """Takes the place of pytest's parser, and keeps the options that a plugin adds."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def addoption(self, *names: str, **_: object) -> None:
        self.lines.append(", ".join(names))

    def addini(self, name: str, *_: object, **__: object) -> None:
        self.lines.append(f"ini: {name}")

    def getgroup(self, *_: object, **__: object) -> _Options:
        return self


def _pytest_options() -> list[str]:
    options = _Options()
    plugin: Any = importlib.import_module("sandkernel.pytest_plugin")
    if hasattr(plugin, "pytest_addoption"):
        plugin.pytest_addoption(options)
    return options.lines


def _exports(module: str) -> Iterator[tuple[str, Any]]:
    names = importlib.import_module(module).__all__
    assert len(names) == len(set(names)), f"{module}.__all__ has a name twice"
    for name in sorted(names):
        yield name, getattr(importlib.import_module(module), name)


def _object(value: Any) -> Iterator[str]:
    if isinstance(value, FixtureFunctionDefinition):
        scope = value._fixture_function_marker.scope
        yield f"fixture of a {scope}: {_signature(value._get_wrapped_function())}"
    elif inspect.isclass(value):
        yield from _class(value)
    elif callable(value):
        yield f"function: {_signature(value)}"
    else:
        yield f"value: {type(value).__name__}"


def _class(value: type) -> Iterator[str]:
    """Describe a class, but for what it has from a base that is described itself."""
    bases = [base for base in value.__mro__[1:] if _is_seen(base)]
    yield f"class that is {', '.join(map(_name, bases))}" if bases else "class"
    inherited = next((_members(base) for base in bases if _is_ours(base)), {})
    for name, text in sorted(_members(value).items()):
        if inherited.get(name) != text:
            yield f"    {name} {text}"


def _members(value: type) -> dict[str, str]:
    members: dict[str, str] = {}
    for each in filter(_is_ours, reversed(_as_in_stub(value).__mro__)):
        for name in _instance_attributes(each):
            members.setdefault(name, "attribute")
        annotations_of = inspect.get_annotations(each)
        for name in filter(_is_public, {**vars(each), **annotations_of}):
            if name in annotations_of:
                default = f" = {_value(vars(each)[name])}" if name in vars(each) else ""
                members[name] = f"attribute: {annotations_of[name]}{default}"
            else:
                members[name] = _member(vars(each)[name])
    return members


def _is_ours(value: type) -> bool:
    return value.__module__.partition(".")[0] == "sandkernel"


def _is_seen(base: type) -> bool:
    """Whether users can see a base: it is exported, or somebody else's."""
    return base is not object and (not _is_ours(base) or base.__name__ in sandkernel.__all__)


def _is_public(name: str) -> bool:
    return name in MAGIC or not name.startswith("_")


def _member(member: Any) -> str:
    if isinstance(member, property):
        rest = ", can be set" if member.fset else ""
        return f"property: {_annotation(member.fget)}{rest}"
    if isinstance(member, (classmethod, staticmethod)):
        kind = "async " if inspect.iscoroutinefunction(member.__func__) else ""
        return f"{kind}{type(member).__name__}: {_signature(member.__func__)}"
    if callable(member):
        kind = "async method" if inspect.iscoroutinefunction(member) else "method"
        return f"{kind}: {_signature(member)}"
    if hasattr(member, "func") and hasattr(member, "__get__"):
        return f"property: {_annotation(member.func)}"
    return f"attribute = {_value(member)}"


def _annotation(function: Callable[..., object]) -> str:
    return str(function.__annotations__.get("return", "not annotated"))


def _signature(function: Callable[..., object]) -> str:
    """Return a signature as it is written, with the values of its defaults."""
    if inspect.isclass(function):
        return "class"
    signature = inspect.signature(function)
    for name, parameter in signature.parameters.items():
        if parameter.annotation is not parameter.empty:
            assert isinstance(parameter.annotation, str), f"{function}: {name} is not annotated as text"
    parameters = [
        parameter.replace(default=_Shown(parameter.default))
        if parameter.default is not parameter.empty
        else parameter
        for parameter in signature.parameters.values()
    ]
    # Annotations are strings: `Signature` would show them in quotes on some Pythons.
    shown = [
        parameter.replace(annotation=_Shown(parameter.annotation, text=True))
        if parameter.annotation is not parameter.empty
        else parameter
        for parameter in parameters
    ]
    returned = signature.return_annotation
    result = f" -> {returned}" if returned is not signature.empty else ""
    text = f"{signature.replace(parameters=shown, return_annotation=signature.empty)}{result}"
    keywords = "".join(f" with {_keywords(name, function)}" for name in re.findall(r"Unpack\[(\w+)\]", text))
    return text + keywords


def _keywords(name: str, function: Any) -> str:
    """Return the keywords that a function takes by a `TypedDict`."""
    annotations_of = inspect.get_annotations(inspect.unwrap(function).__globals__[name])
    texts = [
        f"{keyword}: {getattr(annotation, '__forward_arg__', annotation)}"
        for keyword, annotation in annotations_of.items()
    ]
    return f"{name}({', '.join(texts)})"


def _options(name: str, function: Any) -> str:
    """Return the keywords that a function takes by a `TypedDict`."""
    keywords = inspect.get_annotations(inspect.unwrap(function).__globals__[name])
    texts = (getattr(annotation, "__forward_arg__", annotation) for annotation in keywords.values())
    return f" with {name}({', '.join(map('{}: {}'.format, keywords, texts))})"


class _Shown:
    """Shows a value in a signature as it is shown in the snapshot."""

    def __init__(self, value: object, *, text: bool = False) -> None:
        self.shown = str(value) if text else _value(value)

    def __repr__(self) -> str:
        return self.shown


def _value(value: object) -> str:
    if inspect.isclass(value) or inspect.isroutine(value):
        return _name(value)
    if isinstance(value, types.MappingProxyType):
        return _value(dict(value))
    shown = repr(value)
    assert " at 0x" not in shown, f"{shown} would be another one in each run"
    return shown


def _name(value: Any) -> str:
    module = "" if value.__module__ == "builtins" or _is_ours(value) else f"{value.__module__}."
    return f"{module}{value.__qualname__}"


def _instance_attributes(value: type) -> Iterator[str]:
    """Find the public attributes that the constructor of a class gives its objects."""
    constructor = vars(value).get("__init__")
    if not isinstance(constructor, types.FunctionType) or constructor.__code__.co_filename == "<string>":
        return
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(constructor)))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_public(node.attr):
            yield from [node.attr] if ast.unparse(node.value) == "self" else []


def _as_in_stub(value: type) -> type:
    """Return the class of the stub for one of the extension module, which has no annotations."""
    stub: type = _stub().get(value.__name__, value) if value.__module__ == EXTENSION else value
    return stub


@functools.cache
def _stub() -> dict[str, Any]:
    path = Path(sandkernel.__file__).with_name("_sandkernel.pyi")
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec", flags=annotations.compiler_flag)
    names: dict[str, Any] = {"__name__": EXTENSION}
    exec(code, names)
    return names


def _deprecated() -> Iterator[str]:
    """Find the names of the last snapshot that are not exported any more, but still given with a warning."""
    for line in SNAPSHOT.read_text(encoding="utf-8").splitlines() if SNAPSHOT.exists() else ():
        module, _, name = line.removeprefix("== ").removeprefix(DEPRECATED).rpartition(".")
        if (
            not line.startswith(("== sandkernel.", DEPRECATED))
            or name in importlib.import_module(module).__all__
        ):
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                getattr(importlib.import_module(module), name)
            except AttributeError:
                continue
        if any(issubclass(warning.category, DeprecationWarning) for warning in caught):
            yield f"{DEPRECATED}{module}.{name}"


def main() -> int:
    """Show how the package differs from the snapshot, or write the snapshot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the snapshot")
    if parser.parse_args().write:
        SNAPSHOT.write_text(described(), encoding="utf-8")
        return 0
    print(difference())
    return 1 if difference() else 0


if __name__ == "__main__":
    sys.exit(main())
