"""Checks of arguments that several constructors and methods share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from sandkernel.exceptions import ConfigurationError

__all__ = ["mapping", "texts"]

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
