"""Names at the places where they were before: they work for one release, and warn."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["forward"]


def forward(module: str, places: Mapping[str, tuple[str, str]]) -> Callable[[str], object]:
    """Return the `__getattr__` of a module whose names are elsewhere now.

    Args:
        module: The module's name.
        places: By each name, the module that has it now, and its name there.
    """

    def get(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, current = places[name]
        warnings.warn(
            f"{module}.{name} is {place}.{current} now; the old place goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        value: object = getattr(importlib.import_module(place), current)
        return value

    return get
