"""Columns of texts, there and back: one text, and the length of each.

Runs on the host, and as a text of its own inside the kernel, as the module `_sandkernel_texts`, on Python
3.8. What `KINDS` read may come from a hostile kernel: see `standard.py`.
"""

from __future__ import annotations

import sys
from array import array
from itertools import accumulate
from typing import Any

__all__ = ["KINDS", "encode"]

# What Python itself takes for a short text, and for the list's reference to it.
_OVERHEAD = 64
_WIDEST = 4


def encode(encoder: Any, texts: list[Any]) -> dict[str, Any] | None:
    """Return the form of texts and `None`s; `None` where there is anything else among them."""
    if not all(type(text) is str or text is None for text in texts):
        return None
    # -1 where there is none: two bytes each would do for most, and break for one.
    lengths = array("i", [-1 if text is None else len(text) for text in texts])
    joined = "".join([text for text in texts if text is not None])
    return {
        "__type__": "texts",
        "data": encoder.encode(joined),
        "lengths": encoder.encode(lengths.tobytes()),
        "byteorder": sys.byteorder,
    }


def _decode(value: dict[str, Any], reader: Any) -> list[str | None]:
    lengths = array("i", reader.decode(value["lengths"], "lengths"))
    if value["byteorder"] != sys.byteorder:
        lengths.byteswap()
    joined = reader.decode(value["data"], "data")
    if not isinstance(joined, str) or sum(length for length in lengths if length > 0) != len(joined):
        raise ValueError("of other lengths than its text")
    reader.claim(len(lengths), _OVERHEAD * len(lengths) + (1 if joined.isascii() else _WIDEST) * len(joined))
    ends = accumulate(max(length, 0) for length in lengths)
    return [None if length < 0 else joined[end - length : end] for length, end in zip(lengths, ends)]


KINDS = {"texts": _decode}
