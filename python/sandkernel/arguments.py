"""Checks of arguments that several constructors and methods share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from sandkernel.exceptions import ConfigurationError

__all__ = ["flag", "mapping", "texts", "variables"]

V = TypeVar("V")


def texts(given: Iterable[str], name: str) -> list[str]:
    """Return several texts as a list.

    A single text is refused: Python would take it for the sequence of its characters, and `list` makes one
    of it without a word. So each function that takes several texts passes them through here before it does
    anything else with them.

    Args:
        given: Several texts: a list, a tuple, a set, a generator.
        name: The argument's name, for the error.

    Raises:
        ConfigurationError: It is a single text, bytes, a mapping or nothing iterable, or holds something else
            than texts.
    """
    if isinstance(given, str):
        raise ConfigurationError(f"{name} is a sequence of texts, not one text: write [{given!r:.100}]")
    if isinstance(given, (bytes, bytearray, memoryview, Mapping)) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{name} is a sequence of texts, not {type(given).__name__}: {given!r:.100}")
    items = list(given)
    for index, item in enumerate(items):
        if not isinstance(item, str):
            raise ConfigurationError(
                f"{name} is a sequence of texts, and {name}[{index}] is {type(item).__name__}: {item!r:.100}"
            )
    return items


def mapping(given: Mapping[str, V] | None, name: str, of: str) -> dict[str, V]:
    """Return a mapping as a dict of its own; `None` is an empty one.

    Args:
        given: The mapping.
        name: The argument's name, for the error.
        of: The values and how they are found, for the error: "tools by their names".

    Raises:
        ConfigurationError: It is no mapping.
    """
    if given is None:
        return {}
    found: Any = given
    if not isinstance(found, Mapping):
        raise ConfigurationError(f"{name} is a mapping of {of}, not {type(found).__name__}: {found!r:.100}")
    return dict(found)


def flag(given: bool, name: str) -> bool:  # noqa: FBT001
    """Return a choice between two.

    Args:
        given: `True` or `False`.
        name: The argument's name, for the error.

    Raises:
        ConfigurationError: It is something else. Whatever it is, Python would take it for one of the two.
    """
    found: Any = given
    if not isinstance(found, bool):
        raise ConfigurationError(f"{name} is True or False, not {type(found).__name__}: {found!r:.100}")
    return found


def variables(given: Mapping[str, str | None] | None, name: str) -> dict[str, str | None]:
    """Return environment variables as a dict of its own; `None` is an empty one.

    No error shows a value: it may be a key.

    Args:
        given: The values by the names of the variables; a value of `None` stands for none.
        name: The argument's name, for the error.

    Raises:
        ConfigurationError: It is no mapping of texts, or no process can have such variables.
    """
    if given is None:
        return {}
    found: Any = given
    if not isinstance(found, Mapping):
        raise ConfigurationError(
            f"{name} is a mapping of texts by the names of variables, not {type(found).__name__}"
        )
    # As a copy: what is checked is what is taken.
    checked: dict[Any, Any] = dict(found)
    for variable, value in checked.items():
        if not isinstance(variable, str):
            raise ConfigurationError(
                f"{name} has texts as names of variables, and one is {type(variable).__name__}"
            )
        if not variable or "=" in variable or not _is_possible(variable):
            # What stands behind the sign may be a value.
            shown = variable.partition("=")[0]
            raise ConfigurationError(
                f"{name} has a name that no variable can have: a text that is not empty, and has neither '=' "
                f"nor NUL nor lone surrogates. It begins with {shown!r:.60}"
            )
        if value is None:
            continue
        if not isinstance(value, str):
            kind = type(value).__name__
            raise ConfigurationError(
                f"{name}[{variable!r:.60}] is a text, or None for no such variable, not {kind}"
            )
        if not _is_possible(value):
            raise ConfigurationError(
                f"{name}[{variable!r:.60}] holds NUL or lone surrogates, as no variable can"
            )
    return checked


def _is_possible(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
