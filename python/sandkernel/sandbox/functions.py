"""Functions of this process that code in the sandbox may call."""

from __future__ import annotations

import inspect
import json
import keyword
from typing import TYPE_CHECKING, Any

from sandkernel.exceptions import ConfigurationError
from sandkernel.sandbox.tool_definitions import FINAL_ANSWER, Described, Stub

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FunctionPlacement", "check_functions", "check_name", "invoke"]

# What the code may read of a function.
_DESCRIPTION_CHARACTERS = 20_000


def check_name(name: object, what: str) -> None:
    """Refuse what can't be the name of a variable.

    Args:
        name: The name.
        what: What has it, as the subject of a sentence: "A variable".

    Raises:
        ConfigurationError: Python has no such name.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"{what} has a name that is a str, not {type(name).__name__}: {name!r:.100}")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigurationError(f"{what} can't be called {name!r:.100}: that is no name of Python's")


def check_functions(given: Mapping[str, Callable[..., object]]) -> None:
    """Refuse functions that can't be called from the sandbox.

    Raises:
        ConfigurationError: One has no such name, can't be called, or has a signature that can't be had.
    """
    for name, function in given.items():
        check_name(name, "A function")
        if name == FINAL_ANSWER:
            raise ConfigurationError(
                f"A function can't be called {name!r}: agents end with a tool of that name"
            )
        _describe(name, function)


def _describe(name: str, function: Callable[..., object]) -> Stub:
    if not callable(function):
        raise ConfigurationError(
            f"The function {name!r} can't be called: it is {type(function).__name__}, {function!r:.100}"
        )
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"The signature of the function {name!r} can't be described: {error}. Wrap it in a function of "
            "your own that names its arguments"
        ) from error
    inputs = {parameter.name: _input(parameter) for parameter in signature.parameters.values()}
    documentation = inspect.getdoc(function) or ""
    description = f"{name}{signature}\n\n{documentation}".strip()[:_DESCRIPTION_CHARACTERS]
    return Stub(name, description, json.dumps(inputs), _text(signature.return_annotation))


def _input(parameter: inspect.Parameter) -> dict[str, object]:
    described: dict[str, object] = {"type": _text(parameter.annotation)}
    if parameter.default is not parameter.empty:
        described["nullable"] = True
    return described


def _text(annotation: object) -> str:
    if annotation is inspect.Signature.empty:
        return "any"
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


class FunctionPlacement:
    """Has every function run here, on the host.

    Attributes:
        failed: Nothing: no source is sent, so nothing can fail to be made in the kernel.
    """

    def __init__(self) -> None:
        self.failed: dict[Described, str] = {}

    def define(self, given: Mapping[str, Any]) -> list[Described]:
        """Return what the kernel is told of functions.

        Raises:
            ConfigurationError: One can't be described.
        """
        return [_describe(name, function) for name, function in given.items()]

    def may_stay(self, name: str) -> bool:
        """Whether a function may run on the host: each does."""
        del name
        return True

    def tell_broken(self, name: str, reason: str) -> None:
        """Tell nobody: no function is made in the kernel, so none is broken there."""


def invoke(name: str, function: Callable[..., object], args: list[Any], kwargs: dict[str, Any]) -> object:
    """Call a function as the code asked for it.

    Raises:
        TypeError: The arguments are not those of its signature.
    """
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}() can't be called so: {error}") from None
    return function(*args, **kwargs)
