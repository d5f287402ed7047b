"""What the source of a tool names, and whether a kernel has the same."""

from __future__ import annotations
import __future__

import ast
import builtins
import dis
import functools
import importlib
import inspect
import symtable
import textwrap
import types
import typing
from typing import TYPE_CHECKING, Any

import smolagents
from smolagents.tools import Tool
from smolagents.utils import BASE_BUILTIN_MODULES

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "asks_here",
    "decorators",
    "differences",
    "functions",
    "imports",
    "is_future",
    "runs_code",
    "unannotated",
]

Function: typing.TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

# What `_define` in `kernel/prelude.py` puts into a tool's namespace, and what every module has.
_GIVEN: dict[str, object] = {
    **{name: importlib.import_module(name) for name in BASE_BUILTIN_MODULES},
    "Any": typing.Any,
    "Optional": typing.Optional,
}
# Of these, each module has its own.
_OWN = frozenset({"Tool", "__name__", "__doc__", "__builtins__", "__loader__", "__package__", "__spec__"})
_MISSING = object()
# In a sandbox nobody answers.
_ASKING = frozenset({"input", "breakpoint"})
_ASKING_MODULES = frozenset({"getpass", "tkinter", "curses", "readline"})
_RUNNING = frozenset({"eval", "exec", "evaluate_python_code", "LocalPythonExecutor"})


def unannotated(code: str) -> str:
    """Return the source of classes without the annotations in the signatures of their methods.

    A kernel evaluates them when it makes the class, and may not have what they name; nobody reads them there.
    """
    lines = code.split("\n")
    for function in reversed(_methods(code)):
        if not _take_annotations(function):
            continue
        beginning = function.body[0]
        decorated = getattr(beginning, "decorator_list", [])
        first = min([beginning.lineno, *(decorator.lineno for decorator in decorated)]) - 1
        indent = " " * function.col_offset
        before, rest = _cut(lines[first], beginning.col_offset)
        function.body, function.decorator_list = [ast.Pass()], []
        signature = [indent + line for line in ast.unparse(function).split("\n")[:-1]]
        if before.strip():
            # The body begins in the line where the signature ends.
            signature.append(f"{indent}    {rest}")
            first += 1
        lines[function.lineno - 1 : first] = signature
    return "\n".join(lines)


def _methods(code: str) -> list[Function]:
    return [
        member
        for node in ast.parse(code).body
        if isinstance(node, ast.ClassDef)
        for member in node.body
        if isinstance(member, Function)
    ]


def _cut(line: str, offset: int) -> tuple[str, str]:
    """Cut a line where `ast` says, which counts the bytes of UTF-8."""
    data = line.encode()
    return data[:offset].decode(), data[offset:].decode()


def _take_annotations(function: Function) -> bool:
    """Take the annotations from a signature; return whether there were any."""
    annotated = function.returns is not None
    function.returns = None
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            annotated = annotated or argument.annotation is not None
            argument.annotation = None
    return annotated


def imports(code: str) -> Iterator[str]:
    """Return the modules that a source imports, by their names' first parts."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


# Each run of an agent asks again for all of its tools.
@functools.lru_cache(256)
def asks_here(code: str) -> str:
    """Return what a source asks whoever sits at this machine with; empty for nothing."""
    asking = {*(_global_names(code) & _ASKING), *(set(imports(code)) & _ASKING_MODULES)}
    if any(
        isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.stdin"
        for node in ast.walk(ast.parse(code))
    ):
        asking.add("sys.stdin")
    return min(asking, default="")


def runs_code(kind: type[Any]) -> str:
    """Return what a class runs code with that it is given; empty for nothing."""
    loaded = {
        str(instruction.argval)
        for base in kind.__mro__
        if base not in Tool.__mro__
        for function in functions(base)
        for code in _codes(function.__code__)
        for instruction in dis.get_instructions(code)
        if instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME"}
    }
    return min(loaded & _RUNNING, default="")


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def differences(code: str, kind: type[Any]) -> list[str]:
    """Return what the source of a class names and a kernel does not have, or has otherwise.

    Args:
        code: What is sent of the class.
        kind: The class: its methods tell what a name stands for on this machine.
    """
    scopes = [scope for function in functions(kind) for scope in _scopes(function)]
    found = []
    for name in sorted(_global_names(code) - _OWN - {base.__name__ for base in kind.__mro__}):
        theirs = _GIVEN.get(name, getattr(builtins, name, _MISSING))
        ours = next((scope[name] for scope in scopes if name in scope), theirs)
        if theirs is _MISSING:
            found.append(f"{name!r}, which is not defined there")
        elif ours is not theirs:
            found.append(f"{name!r}, which is something else there")
    return found


def functions(kind: type[Any]) -> list[types.FunctionType]:
    """Return the functions that the methods of a class are made of."""
    found = [inspect.unwrap(getattr(member, "__func__", member)) for member in vars(kind).values()]
    return [each for each in found if isinstance(each, types.FunctionType)]


def is_future(kind: type[Any]) -> bool:
    """Whether the module of a class begins with `from __future__ import annotations`."""
    flag = __future__.annotations.compiler_flag
    # smolagents writes the constructors of some.
    own = [each for each in functions(kind) if each.__globals__.get("__name__") != Tool.__module__]
    return any(each.__code__.co_flags & flag for each in own)


def decorators(function: types.FunctionType) -> list[str]:
    """Return the decorators of a function, without smolagents' `tool`.

    Raises:
        OSError: Its source can't be had.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    found = next((each for each in ast.walk(tree) if isinstance(each, Function)), None)
    return (
        [ast.unparse(each) for each in found.decorator_list if not _is_tool(each, function)] if found else []
    )


def _is_tool(decorator: ast.expr, function: types.FunctionType) -> bool:
    if isinstance(decorator, ast.Attribute):
        return decorator.attr == "tool"
    if not isinstance(decorator, ast.Name):
        return False
    return decorator.id == "tool" or function.__globals__.get(decorator.id) is smolagents.tool


def _scopes(function: types.FunctionType) -> Iterator[dict[str, object]]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    # An empty cell is of a name that is not assigned yet.
    yield {name: _MISSING if cell == types.CellType() else cell.cell_contents for name, cell in cells}
    yield function.__globals__


def _global_names(code: str) -> set[str]:
    """Return the names that a module's source takes from its namespace, and does not bind there itself."""
    module = symtable.symtable(code, "tool", "exec")
    bound = {symbol.get_name() for symbol in module.get_symbols() if _is_bound(symbol)}
    named: set[str] = set()
    tables = [module]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if table is module or symbol.is_global():
                if symbol.is_referenced():
                    named.add(symbol.get_name())
                if table is not module and symbol.is_assigned():
                    bound.add(symbol.get_name())
    return named - bound


def _is_bound(symbol: symtable.Symbol) -> bool:
    return symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
