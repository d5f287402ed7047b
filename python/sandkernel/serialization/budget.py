"""What a payload has used up of its limits, and how it is said that one is reached."""

from __future__ import annotations

from reprlib import Repr
from typing import TYPE_CHECKING, TypeAlias

from sandkernel.exceptions import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandkernel.serialization.limits import PayloadLimits

__all__ = ["Budget", "Path", "brief", "refusal"]

# Where a value sits: the path of what holds it, and its place there. Written out only for an error.
Path: TypeAlias = "tuple[Path, object] | str"

_STEPS = 20
# The bytes of memory that one of what a limit counts takes, where it takes some.
_MEMORY_BYTES = {"image_pixels": 4, "array_bytes": 1}
_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60


def brief(value: object) -> str:
    """Return the beginning of what `repr` says of a value, which may be of many megabytes."""
    return _repr.repr(value)


def refusal(path: Path, reason: str) -> PayloadError:
    """Return the error that refuses the value at a path. `decode` puts before it what is decoded."""
    steps: list[str] = []
    while isinstance(path, tuple):
        path, step = path
        steps.append(f"[{brief(step)}]")
    steps.reverse()
    if len(steps) > _STEPS:
        steps = [*steps[: _STEPS // 2], "...", *steps[-_STEPS // 2 :]]
    return PayloadError(f"can't be decoded: {path}{''.join(steps)} {reason}")


class Budget:
    """Counts the arrays and images of one payload against its limits.

    Args:
        limits: The limits.
        reserve: Called with the bytes of memory that one of them takes, before it is made.
    """

    def __init__(self, limits: PayloadLimits, reserve: Callable[[int], None] | None = None) -> None:
        self.limits = limits
        self._reserve = reserve
        self._used = dict.fromkeys(("image_pixels", "image_bytes", "array_items", "array_bytes"), 0)

    def spend(self, path: Path, limit: str, amount: int, what: str) -> None:
        """Count an amount, before anything of that size is made.

        Args:
            path: The value's.
            limit: The limit's name.
            amount: How much of it the value takes.
            what: The value, and the amount's unit, for the error.

        Raises:
            PayloadError: The limit is passed.
        """
        allowed = getattr(self.limits, limit)
        if self._used[limit] + amount > allowed:
            total = f", {self._used[limit] + amount} with those before it" if self._used[limit] else ""
            raise refusal(path, f"is {what} ({amount}{total}): payload_limits.{limit} allows {allowed}")
        self._used[limit] += amount
        if self._reserve is not None:
            self._reserve(amount * _MEMORY_BYTES.get(limit, 0))
