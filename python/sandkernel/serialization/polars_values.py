"""What polars makes, there and back: each column as an array or a list.

Runs on the host, and as a text of its own inside the kernel, as the module `_sandkernel_polars_values`, on
Python 3.8. What `KINDS` read may come from a hostile kernel: see `standard.py`.
"""

from __future__ import annotations

import math
import sys
from typing import Any

if __name__ == "_sandkernel_polars_values":
    from _sandkernel_texts import encode as encode_texts  # type: ignore[import-not-found]
else:
    from sandkernel.serialization.texts import encode as encode_texts

__all__ = ["KINDS", "encode"]

_NUMBERS = frozenset(
    [
        "Int8",
        "Int16",
        "Int32",
        "Int64",
        "UInt8",
        "UInt16",
        "UInt32",
        "UInt64",
        "Float32",
        "Float64",
        "Boolean",
    ]
)
_TIMES = frozenset(["Date", "Time", "Datetime", "Duration"])  # whose values are ints underneath
_TEXTS = frozenset(["String", "Categorical", "Enum"])
_PLAIN = _NUMBERS | _TEXTS | frozenset(["Float16", "Int128", "UInt128", "Binary", "Date", "Time", "Null"])
_UNITS = ("ms", "us", "ns")
_WIDTH = 1 << 40
_LEVELS = 30


def encode(encoder: Any, value: Any) -> dict[str, Any] | None:
    """Return the form of a value of polars', or `None` for one of another type."""
    polars = sys.modules.get("polars")
    if polars is None or not hasattr(polars, "__version__"):
        return None
    if isinstance(value, polars.DataFrame):
        columns = [encoder.below("[%s]" % repr(column.name)[:60], column) for column in value.get_columns()]
        return {"__type__": "polars.DataFrame", "data": columns}
    if isinstance(value, polars.LazyFrame):
        encoder.refuse("a LazyFrame of polars, which holds no data yet: `collect()` it")
    if isinstance(value, polars.Series):
        return _encode_series(encoder, value)
    return None


def _encode_series(encoder: Any, series: Any) -> dict[str, Any]:
    kind = _name(series.dtype)
    encoded = {"__type__": "polars.Series", "name": series.name, "dtype": _described(encoder, series.dtype)}
    if kind in _TEXTS:
        return {**encoded, "data": encode_texts(encoder, series.cast(_polars().String).to_list())}
    if kind not in _NUMBERS | _TIMES or not _has_numpy():
        return {**encoded, "data": encoder.encode(series.to_list())}
    if series.null_count():
        encoded["mask"] = encoder.encode(series.is_null().to_numpy())
    physical = series.to_physical()
    filled = physical.fill_null(value=False) if kind == "Boolean" else physical.fill_null(0)
    return {**encoded, "data": encoder.encode(filled.to_numpy())}


def _polars() -> Any:
    return sys.modules["polars"]


def _has_numpy() -> bool:
    try:
        import numpy  # noqa: F401
    except ImportError:
        return False
    return True


def _name(dtype: Any) -> str:
    return str(dtype.base_type().__name__)


def _described(encoder: Any, dtype: Any) -> Any:
    name = _name(dtype)
    if name == "Datetime":
        return [name, dtype.time_unit, dtype.time_zone]
    if name == "Duration":
        return [name, dtype.time_unit]
    if name == "Decimal":
        return [name, dtype.precision, dtype.scale]
    if name == "Enum":
        return [name, dtype.categories.to_list()]
    if name == "List":
        return [name, _described(encoder, dtype.inner)]
    if name == "Array":
        return [name, _described(encoder, dtype.inner), dtype.size]
    if name == "Struct":
        return [name, [[field.name, _described(encoder, field.dtype)] for field in dtype.fields]]
    if name not in _PLAIN:
        encoder.refuse("a series of polars' of the dtype %s" % dtype)
    return name


def _dtype(described: Any, levels: int = _LEVELS) -> tuple[Any, int]:
    """Return a dtype, and how many values each row of it takes, also where it is null."""
    import polars

    if not levels:
        raise ValueError("of a dtype of too many levels")
    if isinstance(described, str) and described in _PLAIN:
        return getattr(polars, described), 1
    name, *arguments = described
    if name == "Datetime" and arguments[0] in _UNITS:
        return polars.Datetime(arguments[0], arguments[1]), 1
    if name == "Duration" and arguments[0] in _UNITS:
        return polars.Duration(arguments[0]), 1
    if name == "Decimal":
        return polars.Decimal(arguments[0], arguments[1]), 1
    if name == "Enum":
        return polars.Enum(arguments[0]), 1
    if name == "List":
        inner, values = _dtype(arguments[0], levels - 1)
        return polars.List(inner), values
    if name == "Array" and isinstance(arguments[1], int) and 0 <= arguments[1] < _WIDTH:
        inner, values = _dtype(arguments[0], levels - 1)
        return polars.Array(inner, arguments[1]), 1 + values * arguments[1]
    if name == "Struct":
        fields = [(field, *_dtype(inner, levels - 1)) for field, inner in arguments[0]]
        return polars.Struct({field: inner for field, inner, _ in fields}), 1 + sum(
            field[2] for field in fields
        )
    raise ValueError("of the dtype %.60r" % (described,))


def _frame(value: dict[str, Any], reader: Any) -> Any:
    import polars

    columns = [reader.decode(column, number) for number, column in enumerate(value["data"])]
    if not all(isinstance(column, polars.Series) for column in columns):
        raise TypeError("of something else than series")
    # A series of one value would be repeated for each row.
    if len({len(column) for column in columns}) > 1:
        raise ValueError("of columns of different lengths")
    return polars.DataFrame(columns)


def _series(value: dict[str, Any], reader: Any) -> Any:
    dtype, values = _dtype(value["dtype"])
    data = reader.decode(value["data"], "data")
    rows = _leaves(data) if isinstance(data, list) else math.prod(getattr(data, "shape", ()))
    reader.claim(rows * values, 8 * rows * values)
    try:
        return _made(value, data, dtype, reader)
    except BaseException as error:
        # A panic of polars' Rust is no `Exception`.
        if type(error).__name__ == "PanicException":
            raise ValueError("of values that polars does not take: %.200s" % error) from None
        raise


def _made(value: dict[str, Any], data: Any, dtype: Any, reader: Any) -> Any:
    import polars

    if isinstance(data, list):
        return polars.Series(value["name"], data, dtype=dtype)
    series = polars.Series(value["name"], data).cast(dtype)
    if "mask" not in value:
        return series
    mask = polars.Series(reader.decode(value["mask"], "mask"))
    if mask.dtype != polars.Boolean or len(mask) != len(series):
        raise ValueError("with no mask of its values")
    there = polars.when(~polars.lit(mask)).then(polars.lit(series))
    return polars.select(there.alias(value["name"])).to_series()


def _leaves(items: list[Any]) -> int:
    """Return how many values there are in lists and structs, those that are null included."""
    count, waiting = 0, [items]
    while waiting:
        for item in waiting.pop():
            count += 1
            if isinstance(item, dict):
                waiting.append(list(item.values()))
            elif isinstance(item, list):
                waiting.append(item)
    return count


KINDS = {"polars.DataFrame": _frame, "polars.Series": _series}
