"""What pandas makes, there and back: each column as an array, never as a pickle.

Runs on the host, and as a text of its own inside the kernel, as the module `_sandkernel_pandas_values`, on
Python 3.8. What `KINDS` read may come from a hostile kernel: see `standard.py`.
"""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Any

if __name__ == "_sandkernel_pandas_values":
    from _sandkernel_standard import zone, zone_name  # type: ignore[import-not-found]
    from _sandkernel_texts import encode as encode_texts  # type: ignore[import-not-found]
else:
    from sandkernel.serialization.standard import zone, zone_name
    from sandkernel.serialization.texts import encode as encode_texts

__all__ = ["KINDS", "encode", "with_nanoseconds"]

_MASKED = re.compile(r"U?Int(8|16|32|64)|Float(32|64)|boolean")
_OF_NUMPY = ("NumpyEADtype", "PandasDtype", "SparseDtype")  # as 2.1, older ones, and both name them
_MOST_LEVELS = 1000
_MOST_STEPS = 200_000
_FREQUENCY = re.compile(r"-?[0-9]{0,9}[A-Za-z]{1,6}(-[A-Za-z]{1,3}){0,2}")


def encode(encoder: Any, value: Any) -> Any:
    """Return the form of a value of pandas', or `None` for one of another type."""
    import datetime

    # What was never imported can't have made this value; what is being imported lacks things.
    pandas = sys.modules.get("pandas")
    if pandas is None or not hasattr(pandas, "__version__"):
        return None
    if value is pandas.NA or value is pandas.NaT:
        return {"__type__": "pandas.missing", "name": "NA" if value is pandas.NA else "NaT"}
    if isinstance(value, pandas.Timestamp):
        plain = datetime.datetime.combine(value.date(), value.timetz())
        return {**encoder.encode(plain), "nanosecond": value.nanosecond}
    if isinstance(value, pandas.Timedelta):
        return {**encoder.encode(value.to_pytimedelta()), "nanosecond": value.nanoseconds}
    if isinstance(value, pandas.Period):
        return {"__type__": "pandas.Period", "ordinal": int(value.ordinal), "frequency": value.freqstr}
    if isinstance(value, pandas.Interval):
        sides = encoder.encode([value.left, value.right])
        return {"__type__": "pandas.Interval", "data": sides, "closed": value.closed}
    if type(value).__name__ in ("GeoDataFrame", "GeoSeries"):
        encoder.refuse("a %s: send its .to_json(), or its .to_wkb()" % type(value).__name__)
    if isinstance(value, pandas.DataFrame):
        return {
            "__type__": "pandas.DataFrame",
            "index": _encode_index(encoder, value.index, pandas),
            "columns": _encode_index(encoder, value.columns, pandas),
            "data": [
                encoder.below("[%s]" % repr(name)[:60], value.iloc[:, number].array)
                for number, name in enumerate(value.columns)
            ],
            "attributes": encoder.below(".attrs", dict(value.attrs)),
        }
    if isinstance(value, pandas.Series):
        return {
            "__type__": "pandas.Series",
            "name": encoder.below(".name", value.name),
            "index": _encode_index(encoder, value.index, pandas),
            "data": encoder.below(".values", value.array),
        }
    if isinstance(value, pandas.Index):
        return _encode_index(encoder, value, pandas)
    if isinstance(value, pandas.api.extensions.ExtensionArray):
        return _encode_array(encoder, value, pandas)
    return None


def _encode_index(encoder: Any, index: Any, pandas: Any) -> dict[str, Any]:
    names = encoder.below(".names", list(index.names))
    if isinstance(index, pandas.RangeIndex):
        data = encoder.encode(range(index.start, index.stop, index.step))
    elif isinstance(index, pandas.MultiIndex):
        data = [encoder.below(".levels", index.get_level_values(level)) for level in range(index.nlevels)]
    else:
        data = encoder.below(".index", index.array)
    encoded = {"__type__": "pandas.Index", "names": names, "data": data}
    frequency = getattr(index, "freqstr", None)
    if frequency is not None and not isinstance(index, pandas.PeriodIndex):
        encoded["frequency"] = frequency
    return encoded


def _encode_array(encoder: Any, array: Any, pandas: Any) -> Any:
    import numpy

    dtype = array.dtype
    if isinstance(dtype, pandas.CategoricalDtype):
        categories = _encode_index(encoder, array.categories, pandas)
        return _array(
            "category", encoder.encode(array.codes), categories=categories, ordered=bool(array.ordered)
        )
    if isinstance(dtype, pandas.DatetimeTZDtype):
        name = zone_name(dtype.tz)
        if name is None:
            offset = dtype.tz.utcoffset(None)
            name = None if offset is None else offset.total_seconds()
        if name is not None:
            moments = array.tz_convert("UTC").tz_localize(None)
            return _array("datetimetz", encoder.encode(numpy.asarray(moments)), zone=name)
    if isinstance(dtype, pandas.PeriodDtype):
        ordinals = numpy.asarray(array.asi8)
        return _array("period", encoder.encode(ordinals), frequency=array.freqstr)
    if isinstance(dtype, pandas.IntervalDtype):
        sides = [encoder.encode(side.array) for side in (array.left, array.right)]
        return _array("interval", sides, closed=array.closed)
    if isinstance(dtype, pandas.StringDtype):
        texts = array.to_numpy(dtype=object, na_value=None).tolist()
        return _array("string", encode_texts(encoder, texts), not_a_number=dtype.na_value is not pandas.NA)
    if _MASKED.fullmatch(str(dtype)):
        mask = numpy.asarray(array.isna())
        values = array.to_numpy(dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        return _array(str(dtype), encoder.encode(values), mask=encoder.encode(mask))
    if isinstance(dtype, getattr(pandas, "ArrowDtype", ())):
        return _array("arrow", encoder.encode(array.__arrow_array__()))
    if isinstance(dtype, pandas.SparseDtype) and array.sp_values.dtype.kind in "biufc":
        indices = array.sp_index.to_int_index().indices
        fill = encoder.encode(array.fill_value)
        return _array(
            "sparse",
            encoder.encode(array.sp_values),
            indices=encoder.encode(indices),
            length=len(array),
            fill=fill,
        )
    if isinstance(dtype, numpy.dtype) or type(dtype).__name__ in _OF_NUMPY:
        values = numpy.asarray(array)
        words = encode_texts(encoder, values.tolist()) if values.dtype == object and len(values) else None
        return encoder.encode(values) if words is None else _array("object", words)
    return encoder.refuse("a pandas array of the dtype %s" % dtype)


def _array(dtype: str, data: Any, **further: Any) -> dict[str, Any]:
    return {"__type__": "pandas.array", "dtype": dtype, "data": data, **further}


def with_nanoseconds(value: Any, nanosecond: Any) -> Any:
    """Return the time of pandas' of so many nanoseconds; without pandas, the time as it is."""
    try:
        import pandas
    except ImportError:
        return value
    if not isinstance(nanosecond, int) or not 0 <= nanosecond < 1000:  # noqa: PLR2004
        raise ValueError("of %.40r nanoseconds" % (nanosecond,))
    kind = pandas.Timedelta if hasattr(value, "total_seconds") else pandas.Timestamp
    rich = kind(value)
    return rich + pandas.Timedelta(nanosecond, "ns") if nanosecond else rich


def _missing(value: dict[str, Any], _: Any) -> Any:
    try:
        import pandas
    except ImportError:
        return None
    return pandas.NA if value["name"] == "NA" else pandas.NaT


def _frame(value: dict[str, Any], reader: Any) -> Any:
    import pandas

    index = _an_index(reader.decode(value["index"], "index"))
    columns = _an_index(reader.decode(value["columns"], "columns"))
    arrays = [_column(reader.decode(item, number), index) for number, item in enumerate(value["data"])]
    if len(arrays) != len(columns):
        raise ValueError("of %d columns with %d names" % (len(arrays), len(columns)))
    # As series: of bare objects, pandas would infer the dtype.
    series = [pandas.Series(array, index=index, dtype=array.dtype, copy=False) for array in arrays]
    frame = pandas.DataFrame(dict(enumerate(series)), index=index, copy=False)
    frame.columns = columns
    frame.attrs.update(reader.decode(value["attributes"], "attrs"))
    return frame


def _series(value: dict[str, Any], reader: Any) -> Any:
    import pandas

    index = _an_index(reader.decode(value["index"], "index"))
    array = _column(reader.decode(value["data"], "data"), index)
    return pandas.Series(
        array, index=index, name=reader.decode(value["name"], "name"), dtype=array.dtype, copy=False
    )


def _an_index(index: Any) -> Any:
    import pandas

    if not isinstance(index, pandas.Index):
        raise TypeError("with a %s for an index" % type(index).__name__)
    return index


def _column(array: Any, index: Any) -> Any:
    """Return an array of one dimension: a scalar would be one for each row."""
    import numpy
    import pandas

    if not isinstance(array, (numpy.ndarray, pandas.api.extensions.ExtensionArray)) or array.ndim != 1:
        raise TypeError("with a %s for a column" % type(array).__name__)
    if index is not None and len(array) != len(index):
        raise ValueError("with a column of %d values and %d rows" % (len(array), len(index)))
    return array


def _index(value: dict[str, Any], reader: Any) -> Any:
    import pandas

    names = reader.decode(value["names"], "names")
    if isinstance(value["data"], list):
        if len(value["data"]) > _MOST_LEVELS:
            raise ValueError("of %d levels, and %d are allowed" % (len(value["data"]), _MOST_LEVELS))
        levels = [_an_index(reader.decode(item, level)) for level, item in enumerate(value["data"])]
        return pandas.MultiIndex.from_arrays(levels, names=names)
    data = reader.decode(value["data"], "data")
    (name,) = names
    if isinstance(data, range):
        # It has no memory until somebody looks at it.
        reader.claim(len(data), 0)
        return pandas.RangeIndex(data, name=name)
    array = _column(data, None)
    if array.dtype == object:
        reader.check_hashes(array)
    index = pandas.Index(array, name=name, dtype=array.dtype, tupleize_cols=False)
    frequency = value.get("frequency")
    if isinstance(frequency, str) and _FREQUENCY.fullmatch(frequency):
        # Another version of pandas may have another word for it: it can be inferred.
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            offset = pandas.tseries.frequencies.to_offset(frequency)
            # pandas counts the values out to compare them, one by one unless all steps are of one length. No
            # honest index of business days, weeks or months is that long.
            if len(index) <= _MOST_STEPS or isinstance(offset, pandas.offsets.Tick):
                index.freq = offset
    return index


def _extension_array(value: dict[str, Any], reader: Any) -> Any:
    import numpy
    import pandas

    dtype = value["dtype"]
    if dtype == "category":
        categories = _an_index(reader.decode(value["categories"], "categories"))
        codes = _column(reader.decode(value["data"], "data"), None)
        return pandas.Categorical.from_codes(codes, categories=categories, ordered=bool(value["ordered"]))
    if dtype == "interval":
        left, right = [_column(reader.decode(item, step), None) for step, item in enumerate(value["data"])]
        return pandas.arrays.IntervalArray.from_arrays(left, right, closed=value["closed"])
    data = reader.decode(value["data"], "data")
    if dtype in ("object", "string"):
        return _text_array(data, value, reader)
    if dtype == "sparse":
        return _sparse_array(data, value, reader)
    if dtype == "arrow":
        return pandas.arrays.ArrowExtensionArray(data)
    if not isinstance(data, numpy.ndarray) or data.ndim != 1:
        raise TypeError("an array made of a %s" % type(data).__name__)
    if dtype == "datetimetz":
        return pandas.array(data).tz_localize("UTC").tz_convert(_zone(value["zone"]))
    if dtype == "period":
        if not _FREQUENCY.fullmatch(value["frequency"]):
            raise ValueError("of periods of another frequency: %.60r" % value["frequency"])
        return pandas.PeriodIndex.from_ordinals(data.astype("i8"), freq=value["frequency"]).array
    if not _MASKED.fullmatch(dtype):
        raise ValueError("of the dtype %.60r" % (dtype,))
    mask = reader.decode(value["mask"], "mask")
    if not isinstance(mask, numpy.ndarray) or mask.dtype != bool or mask.shape != data.shape:
        raise TypeError("with no mask of its values")
    kind = pandas.arrays.BooleanArray if dtype == "boolean" else pandas.arrays.IntegerArray
    return (pandas.arrays.FloatingArray if dtype.startswith("F") else kind)(data, mask)


def _sparse_array(data: Any, value: dict[str, Any], reader: Any) -> Any:
    import numpy
    import pandas

    indices, length = reader.decode(value["indices"], "indices"), value["length"]
    if not all(isinstance(part, numpy.ndarray) and part.ndim == 1 for part in (data, indices)):
        raise TypeError("a sparse array made of something else")
    if type(length) is not int or length < 0 or data.dtype.kind not in "biufc" or indices.dtype.kind != "i":
        raise TypeError("a sparse array of other types")
    # Whoever makes a dense one of it has them all.
    reader.claim(length, length * data.itemsize)
    fill = reader.decode(value["fill"], "fill")
    if not isinstance(fill, (bool, int, float, complex)):
        raise TypeError("of the value %.40r between the others" % (fill,))
    if len(data) != len(indices):
        raise ValueError("of %d values at %d places" % (len(data), len(indices)))
    places, dtype = indices.astype("i4"), pandas.SparseDtype(data.dtype, fill)
    make = pandas.arrays.SparseArray
    if hasattr(make, "from_indices"):  # from pandas 3.1 on
        return make.from_indices(data, places, length, fill_value=fill)
    from pandas._libs.sparse import IntIndex

    index = IntIndex(length, places, check_integrity=True)
    return make(data, sparse_index=index, fill_value=fill, dtype=dtype)


def _period(value: dict[str, Any], _: Any) -> Any:
    import pandas

    frequency, ordinal = value["frequency"], value["ordinal"]
    if not isinstance(frequency, str) or not _FREQUENCY.fullmatch(frequency) or type(ordinal) is not int:
        raise ValueError("of the frequency %.60r" % (frequency,))
    return pandas.Period(ordinal=ordinal, freq=frequency)


def _interval(value: dict[str, Any], reader: Any) -> Any:
    import pandas

    left, right = reader.decode(value["data"], "data")
    return pandas.Interval(left, right, closed=value["closed"])


def _text_array(texts: Any, value: dict[str, Any], reader: Any) -> Any:
    import numpy
    import pandas

    if type(texts) is not list:
        raise TypeError("a column of texts made of a %s" % type(texts).__name__)
    reader.claim(0, 8 * len(texts))
    array = numpy.empty(len(texts), dtype=object)
    array[:] = texts
    if value["dtype"] == "object":
        return array
    if value["not_a_number"]:
        try:
            return pandas.array(array, dtype=pandas.StringDtype(na_value=numpy.nan))
        except TypeError:
            return array  # a pandas before 3, which has no such dtype
    return pandas.array(array, dtype="string")


def _zone(name: Any) -> Any:
    import datetime

    if isinstance(name, (int, float)):
        return datetime.timezone(datetime.timedelta(seconds=name))
    found = zone(name)
    if found is None:
        raise ValueError("in the time zone %.60r, which is not known here" % (name,))
    return found


KINDS = {
    "pandas.missing": _missing,
    "pandas.DataFrame": _frame,
    "pandas.Series": _series,
    "pandas.Index": _index,
    "pandas.array": _extension_array,
    "pandas.Period": _period,
    "pandas.Interval": _interval,
}
