"""Values of the libraries that agents use, and how two of them are compared."""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import fractions
import ipaddress
import re
import types
import uuid
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import polars.testing
import pyarrow as pa

Point = collections.namedtuple("Point", "x y")  # noqa: PYI024 as agents write it
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def pandas_frame() -> pd.DataFrame:
    """Each kind of column that pandas has."""
    moments = pd.date_range("2024-03-30 12:00", periods=4, freq="12h")
    return pd.DataFrame(
        {
            "int": [1, 2, 3, 4],
            "float": [0.5, np.nan, np.inf, -0.0],
            "text": ["a", "", "é\U0001f600", None],
            "words": pd.Series(["a", None, "b", "b"], dtype=object),
            "mixed": pd.Series([1, "a", None, dt.date(2024, 1, 1)], dtype=object),
            "moment": moments,
            "zoned": moments.tz_localize("Europe/Berlin"),
            "offset": moments.tz_localize(dt.timezone(dt.timedelta(hours=-3, minutes=-30))),
            "span": moments - moments[0],
            "nullable": pd.array([1, None, 3, 4], dtype="Int16"),
            "real": pd.array([0.25, None, 3, 4], dtype="Float32"),
            "truth": pd.array([True, None, False, True], dtype="boolean"),
            "string": pd.array(["a", None, "c", "d"], dtype="string"),
            "category": pd.Categorical(["a", None, "b", "a"], categories=["b", "a", "c"], ordered=True),
            "bin": pd.cut([0.1, 0.5, 0.9, 1.5], [0, 0.5, 1.0]),
            "month": pd.period_range("2024-01", periods=4, freq="M"),
            "arrow": pd.array([[1], None, [2, 3], []], dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
            1: [b"x", b"", b"y", b"z"],
        }
    )


def polars_frame() -> pl.DataFrame:
    """Each kind of column that polars has."""
    day, moment = dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 1, 2, 3, 4)  # noqa: DTZ001 so they are
    return pl.DataFrame(
        {
            "int": [1, None, 3],
            "float": [0.5, None, float("inf")],
            "truth": [True, None, False],
            "whole": pl.Series([1, 2, 3], dtype=pl.UInt8),
            "wide": pl.Series([1, None, 2**100], dtype=pl.Int128),
            "text": ["a", None, "é\U0001f600"],
            "raw": [b"a", None, b"\xff"],
            "day": [day, None, day],
            "moment": [moment, None, moment],
            "zoned": pl.Series([moment, None, moment], dtype=pl.Datetime("ms", "Europe/Berlin")),
            "time": [dt.time(1, 2), None, dt.time(3)],
            "span": [dt.timedelta(1), None, dt.timedelta(seconds=-1)],
            "exact": pl.Series([decimal.Decimal("1.10"), None, decimal.Decimal(-2)], dtype=pl.Decimal(10, 2)),
            "category": pl.Series(["a", None, "b"], dtype=pl.Categorical),
            "choice": pl.Series(["a", None, "b"], dtype=pl.Enum(["b", "a"])),
            "list": [[1], None, []],
            "pair": pl.Series([[1, 2], None, [3, 4]], dtype=pl.Array(pl.Int16, 2)),
            "record": [{"a": 1, "b": [day]}, None, {"a": None, "b": None}],
            "nothing": [None, None, None],
        }
    )


def arrow_table() -> pa.Table:
    return pa.table(
        {
            "int": pa.array([1, None, 3], pa.int8()),
            "text": pa.array(["a", None, "é"]),
            "category": pa.array(["a", None, "a"]).dictionary_encode(),
            "list": pa.array([[1], None, []]),
            "record": pa.array([{"a": 1}, None, {"a": None}]),
            "exact": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("2.00")]),
            "nothing": pa.nulls(3),
        }
    ).replace_schema_metadata({b"unit": b"m"})


def record_array() -> np.ndarray[Any, Any]:
    kind = [("name", "U3"), ("at", "f8", (2,)), ("on", "?"), ("inner", [("a", "i2"), ("b", "M8[s]")])]
    array = np.zeros((2, 2), dtype=kind)
    array["name"], array["at"][0, 1], array["inner"]["a"] = "abc", [1, 2], 7
    return array


FRAME = pandas_frame()
LIBRARY_VALUES: list[Any] = [
    FRAME,
    FRAME.iloc[:0],
    FRAME.iloc[1:3, [3, 1]],
    FRAME.set_index(["words", "zoned"]),
    FRAME.set_index("moment").asfreq("12h")[["int"]],
    FRAME.groupby("category", observed=False)[["int", "float"]].agg(["sum", "max"]),
    FRAME["float"].rename((1, "x")),
    FRAME["bin"].value_counts(),
    pd.DataFrame(index=range(3)),
    pd.DataFrame([[1, 2]], columns=["same", "same"]),
    pd.Series(range(9), dtype="uint8").rename_axis("n"),
    pd.Index(["a", "b"], name="letters"),
    pd.MultiIndex.from_product([[1, 2], ["a"]], names=["n", None]),
    pd.Series(["x" * 9, "é"] * 4000),
    pd.DataFrame(np.arange(30_000.0).reshape(-1, 3)),
    pd.Timestamp("2024-03-31 02:30:00.123456789", tz="UTC"),
    pd.Timestamp("2024-10-27 02:30+01:00").tz_convert("Europe/Berlin"),
    pd.Timedelta("1 days 00:00:00.000000001"),
    pd.Period("2024-02", freq="M"),
    pd.Period("2024-02-29 12:30", freq="15min"),
    pd.Period(ordinal=3, freq="Q-NOV"),
    pd.Interval(0, 1.5, closed="both"),
    pd.Interval(pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02"), closed="left"),
    pd.Series(pd.arrays.SparseArray([0.0, 0.0, 1.5, np.nan], fill_value=0.0), name="sparse"),
    pd.DataFrame({"a": pd.arrays.SparseArray([np.nan] * 9000 + [1.0]), "b": range(9001)}),
    pd.arrays.SparseArray([False, True, False]),
    pd.arrays.SparseArray([7, 7, 7], fill_value=7),
    pd.NA,
    pd.NaT,
    polars_frame(),
    polars_frame().clear(),
    polars_frame()["record"],
    pl.DataFrame({"n": np.arange(9000)}),
    pl.DataFrame(),
    arrow_table(),
    arrow_table().slice(1, 1),
    arrow_table().slice(0, 0),
    arrow_table().to_batches()[0],
    arrow_table().to_batches()[0].slice(0, 0),
    pa.chunked_array([[1], [2, None]]),
    pa.array(["a", None]),
    pa.table({"n": np.arange(9000)}),
    record_array(),
    record_array()[:0],
    np.ma.MaskedArray([1, 2, 3], [False, True, False]),
]
STANDARD_VALUES: list[Any] = [
    uuid.UUID(int=7),
    fractions.Fraction(-1, 3),
    range(5, -(10**20), -3),
    collections.deque([1, (2,)], maxlen=3),
    collections.OrderedDict([("b", 1), ((1,), {2})]),
    collections.defaultdict(list, {"a": [1]}),
    collections.defaultdict(None, {1: 2}),
    collections.Counter("abba"),
    Point(1, [Point({2}, None)]),
    dt.datetime(2024, 7, 1, 12, tzinfo=BERLIN),
    dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=-3601))),
    dt.timedelta(999_999_999, 1, 1),
    slice(1, None, -2),
    slice("a", (1, 2.5)),
    array.array("d", [1.5, -0.0]),
    array.array("i"),
    array.array("H", range(20_000)),
    array.array("u", "aé\U0001f600"),
    re.compile(r"(?P<year>\d{4})-[a-z]+", re.IGNORECASE | re.MULTILINE),
    re.compile(rb"\xff[a-b]", re.DOTALL),
    re.compile("é[à-ü]"),
    ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_address("fe80::1%eth0"),
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_interface("2001:db8::1/64"),
    dt.timezone.utc,
    dt.timezone(dt.timedelta(hours=-3), "here"),
    BERLIN,
    types.SimpleNamespace(a=1, b=[(1,)]),
    types.MappingProxyType({"a": (1,), 2: None}),
    collections.ChainMap({"a": 1}, {2: (3,)}),
    {frozenset({(1, None)}): {dt.date(2024, 1, 1): {1.5, True}}},
]


def same(one: Any, other: Any) -> None:  # noqa: C901 a case for each library
    """Fail where two values differ, also in their types."""
    assert type(one) is type(other) or type(one).__name__ == type(other).__name__ == "Point"
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_freq=True)
        assert one.attrs == other.attrs
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other)
    elif isinstance(one, pd.Index):
        pd.testing.assert_index_equal(one, other)
    elif isinstance(one, (pl.DataFrame, pl.Series)):
        compare = polars.testing.assert_frame_equal if isinstance(one, pl.DataFrame) else None
        (compare or polars.testing.assert_series_equal)(one, other)
    elif isinstance(one, (pa.Table, pa.RecordBatch)):
        assert one.equals(other, check_metadata=True)
    elif isinstance(one, (pa.Array, pa.ChunkedArray)):
        assert one.equals(other)
    elif isinstance(one, pd.api.extensions.ExtensionArray):
        pd.testing.assert_extension_array_equal(one, other)
    elif one is pd.NA or one is pd.NaT:
        assert one is other
    elif isinstance(one, np.ma.MaskedArray):
        assert (one.tolist(), one.dtype) == (other.tolist(), other.dtype)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other
        assert repr(one) == repr(other)
        assert getattr(one, "tzinfo", None) == getattr(other, "tzinfo", None)
