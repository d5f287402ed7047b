"""What numpy makes, on its way to the other side; records and masked arrays there and back.

Runs on the host, and as a text of its own inside the kernel, as the module `_sandkernel_numpy_values`, on
Python 3.8. What `KINDS` read may come from a hostile kernel: see `standard.py`.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["KINDS", "encode"]

_NUMBER_BYTES = {"f": 8, "c": 16}  # what is wider means something else on another machine


def encode(encoder: Any, value: Any) -> Any:
    """Return the form of a scalar or an array, or `None` for a value of another type."""
    numpy = sys.modules.get("numpy")
    # While numpy is being imported, it is there and has nothing.
    if numpy is None or not hasattr(numpy, "generic"):
        return None
    if isinstance(value, numpy.generic):
        if value.dtype.kind == "M":
            value = value.astype("datetime64[us]")
        elif value.dtype.kind == "m":
            value = value.astype("timedelta64[us]")
        item = value.item()
        return None if item is None or isinstance(item, numpy.generic) else encoder.encode(item)
    if not isinstance(value, numpy.ndarray):
        return None
    if isinstance(value, numpy.ma.MaskedArray):
        mask = numpy.ma.getmaskarray(value)
        plain = (
            numpy.where(mask, numpy.zeros((), value.dtype), value.data) if value.dtype.names is None else None
        )
        if plain is None:
            encoder.refuse("a masked array of records")
        return {"__type__": "masked_array", "data": encoder.encode(plain), "mask": encoder.encode(mask)}
    if value.dtype.names is not None:
        fields = [
            [name, encoder.below("[%r]" % name, numpy.asarray(value[name]))] for name in value.dtype.names
        ]
        return {"__type__": "records", "data": fields, "shape": list(value.shape)}
    if value.dtype.kind in "biufcSUmMO" and value.dtype.itemsize <= _NUMBER_BYTES.get(
        value.dtype.kind, sys.maxsize
    ):
        return _encode_array(encoder, value, numpy)
    return encoder.refuse("a numpy array of the dtype %s" % value.dtype)


def _encode_array(encoder: Any, value: Any, numpy: Any) -> dict[str, Any]:
    kind = value.dtype.kind
    if kind != "O" and encoder.is_large(value.nbytes):
        flat = numpy.ascontiguousarray(value).reshape(-1).view("u1")
        return dict(encoder.buffer(flat, "ndarray", dtype=value.dtype.str, shape=list(value.shape)))
    array = numpy.asarray(value).view("i8") if kind in "mM" else numpy.asarray(value)
    items = array.tolist()
    if kind in "cSO":
        items = encoder.encode(array.reshape(-1).tolist() if kind == "O" else items)
    encoded = {"__type__": "ndarray", "data": items, "dtype": str(value.dtype)}
    if kind == "O" or not value.size:
        # smolagents' decoder does without: lists can't tell it here.
        encoded["shape"] = list(value.shape)
    return encoded


def _records(value: dict[str, Any], reader: Any) -> Any:
    import numpy

    shape = tuple(value["shape"])
    columns = [(name, reader.decode(column, name)) for name, column in value["data"]]
    for _, column in columns:
        if not isinstance(column, numpy.ndarray) or column.shape[: len(shape)] != shape:
            raise TypeError("of fields that are no arrays of the shape %.60r" % (shape,))
    dtype = numpy.dtype([(name, column.dtype, column.shape[len(shape) :]) for name, column in columns])
    # Without a field, or with fields of no size, a shape of any size has no bytes.
    if not columns or any(not column.size for _, column in columns):
        shape = shape if 0 in shape else (0,)
    elements = max([column.size for _, column in columns], default=0)
    reader.claim(elements, sum(column.nbytes for _, column in columns))
    array = numpy.empty(shape, dtype)
    for name, column in columns:
        array[name] = column
    return array


def _masked(value: dict[str, Any], reader: Any) -> Any:
    import numpy

    data, mask = reader.decode(value["data"], "data"), reader.decode(value["mask"], "mask")
    if not all(isinstance(part, numpy.ndarray) for part in (data, mask)) or data.shape != mask.shape:
        raise TypeError("a masked array made of something else")
    return numpy.ma.MaskedArray(data, mask.astype(bool))


KINDS = {"records": _records, "masked_array": _masked}
