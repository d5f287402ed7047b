"""JSON of a sandbox's, on its way to lists and dicts."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from sandkernel.exceptions import PayloadError
from sandkernel.serialization.encoder import INT_DIGITS

if TYPE_CHECKING:
    from sandkernel.serialization.limits import PayloadLimits

__all__ = ["parse"]

_SEPARATORS = (b",", b"[", b"{", b":")
_BLOCK = 1 << 16


def parse(document: bytes, limits: PayloadLimits) -> Any:  # noqa: ANN401 whatever JSON there is
    """Return what JSON says; its values are counted before one is made.

    Raises:
        PayloadError: It is no JSON, or holds too many values, too deep ones, or too large numbers.
    """
    values = _count(document, limits.items)
    if values > limits.items:
        raise PayloadError(
            f"can't be decoded: it holds too many values ({values}): "
            f"payload_limits.items allows {limits.items}"
        )
    try:
        # Not the bytes themselves: `json` would look for UTF-16 and UTF-32 in them.
        return json.loads(document.decode("utf-8", "surrogatepass"), parse_int=_parse_int())
    except RecursionError:
        raise PayloadError(
            f"can't be decoded: it is nested too deeply: payload_limits.depth allows {limits.depth} levels"
        ) from None
    except ValueError as error:
        raise PayloadError(f"can't be decoded: its JSON is malformed: {error!s:.200}") from error


def _count(document: bytes, enough: int) -> int:
    """Return the number of values in JSON, or a larger one where that is no more than `enough`."""
    count = 1 + _separators(document)
    if count <= enough:
        return count
    # Now without what only looks like one, since it is within a text.
    document = document.replace(rb"\\", b"").replace(rb"\"", b"")
    texts = document.count(b'"') // 2
    if texts > enough:
        return texts
    count, within = 1, 0
    for start in range(0, len(document), _BLOCK):
        # Every second of the parts between the quotes is a text.
        parts = document[start : start + _BLOCK].split(b'"')
        count += _separators(b"".join(parts[within::2]))
        within ^= (len(parts) - 1) & 1
    return count


def _separators(document: bytes) -> int:
    return sum(map(document.count, _SEPARATORS))


def _parse_int() -> Any:  # noqa: ANN401 a function, or what stands for the default
    limit = getattr(sys, "get_int_max_str_digits", lambda: 0)()
    # Its own is quick, and refuses long ones by itself; where that is turned off, it takes minutes for one.
    return None if 0 < limit <= INT_DIGITS else _bounded_int


def _bounded_int(text: str) -> int:
    if len(text) > INT_DIGITS + 1:
        raise ValueError(f"an int of {len(text)} digits, and {INT_DIGITS} are allowed")
    return int(text)
