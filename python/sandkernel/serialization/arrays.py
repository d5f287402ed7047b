"""numpy arrays of a sandbox's."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from sandkernel.serialization.budget import Budget, Path, brief, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["from_buffer", "from_items"]

# Numbers, texts and times of a fixed size. Whatever else numpy understands, records above all, stays out.
_DTYPE = re.compile(
    r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)|object"
    r"|[<>=|]?(b1|[iu][1248]|f[248]|c(8|16)|[SU][0-9]{0,9})"
    r"|([<>=]?[mM]8|(datetime|timedelta)64)(\[[0-9]{0,9}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
_DIMENSIONS = 32
_LAST_CHARACTER = 0x10FFFF
_SCALARS = (str, int, float, complex, bytes, type(None))


def _dtype(given: object, path: Path) -> Any:  # noqa: ANN401 numpy is optional
    import numpy as np  # noqa: PLC0415 optional

    if not isinstance(given, str) or not _DTYPE.fullmatch(given):
        reason = f"is an array of the dtype {brief(given)}: only numbers, texts and times are taken"
        raise refusal(path, reason)
    try:
        return np.dtype(given)
    except (TypeError, ValueError) as error:
        raise refusal(path, f"is an array of the dtype {brief(given)}: {error!s:.200}") from None


def _shape(given: object, path: Path) -> tuple[int, ...]:
    if (
        not isinstance(given, list)
        or len(given) > _DIMENSIONS
        or not all(type(length) is int and 0 <= length < 1 << 62 for length in given)
    ):
        raise refusal(path, f"is an array of the shape {brief(given)}")
    return tuple(given)


def from_buffer(data: memoryview, dtype: object, shape: object, budget: Budget, path: Path) -> Any:  # noqa: ANN401 numpy is optional
    """Return an array of its own made of bytes in C order."""
    import numpy as np  # noqa: PLC0415 optional

    kind = _dtype(dtype, path)
    lengths = _shape(shape, path)
    if kind.kind == "O" or kind.itemsize == 0:
        raise refusal(path, f"is an array of the dtype {brief(dtype)}, which has no bytes")
    items = math.prod(lengths)
    if items * kind.itemsize != data.nbytes:
        raise refusal(
            path,
            f"is an array of {items} elements of {kind.itemsize} bytes, and {data.nbytes} bytes were sent",
        )
    budget.spend(path, "array_items", items, "an array of too many elements")
    budget.spend(path, "array_bytes", data.nbytes, "an array of too many bytes")
    if kind.kind == "b":
        # numpy takes for granted that there is no other byte.
        return np.frombuffer(data, "u1").reshape(lengths) != 0
    array = np.frombuffer(data, kind).reshape(lengths).copy()
    if kind.kind == "U" and array.size:
        codes = array.reshape(-1).view(np.dtype("u4").newbyteorder(kind.byteorder))
        if codes.max() > _LAST_CHARACTER:
            raise refusal(path, "is an array of texts with characters that don't exist")
    return array


def from_items(items: Any, dtype: object, shape: object, budget: Budget, path: Path) -> Any:  # noqa: ANN401 numpy is optional
    """Return an array made of nested lists."""
    import numpy as np  # noqa: PLC0415 optional

    kind = _dtype(dtype, path)
    count, longest, scalars = 0, 0, True
    for item in _leaves(items):
        count += 1
        if kind.kind in "SU":
            longest = max(longest, _length(item))
        scalars = scalars and isinstance(item, _SCALARS)
    # Without a size of its own, such an element has that of the longest.
    width = kind.itemsize or max(longest, _DIGITS) * (4 if kind.kind == "U" else 1)
    budget.spend(path, "array_items", count, "an array of too many elements")
    budget.spend(path, "array_bytes", count * width, "an array of too many bytes")
    if kind.kind == "O" and (shape is not None or not scalars):
        return _objects(items, shape, path)
    if not scalars:
        raise refusal(path, f"is an array of the dtype {brief(dtype)} that holds something else")
    try:
        with np.errstate(all="ignore"):
            array = np.array(items, dtype=kind)
            return array if shape is None else array.reshape(_shape(shape, path))
    except (ValueError, TypeError, OverflowError, Warning) as error:
        raise refusal(path, f"is no array of the dtype {brief(dtype)}: {error!s:.200}") from error


# What a number takes at most that numpy writes as a text, ints apart.
_DIGITS = 64


def _length(item: object) -> int:
    if isinstance(item, int):
        return item.bit_length() // 3 + 2
    return len(item) if isinstance(item, (str, bytes)) else 0


def _leaves(items: object) -> Iterator[object]:
    waiting = [items]
    while waiting:
        item = waiting.pop()
        if type(item) is list:
            waiting.extend(item)
        else:
            yield item


def _objects(items: object, shape: object, path: Path) -> Any:  # noqa: ANN401 numpy is optional
    import numpy as np  # noqa: PLC0415 optional

    lengths = (len(items) if isinstance(items, list) else -1,) if shape is None else _shape(shape, path)
    if not isinstance(items, list) or math.prod(lengths) != len(items):
        raise refusal(path, f"is an array of objects of the shape {brief(shape)} that holds others")
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        array[index] = item
    return array.reshape(lengths)
