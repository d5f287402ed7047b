"""What a hostile kernel may send in the name of a library: refused, or no larger than what was sent."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import numpy as np
import pandas as pd
import polars as pl  # noqa: F401 imported before memory is counted
import pyarrow as pa
import pytest

from rich_values import FRAME, STANDARD_VALUES, arrow_table, polars_frame, record_array
from sandkernel import PayloadLimits
from sandkernel.exceptions import PayloadError
from sandkernel.serialization import decode
from test_serialization import safe, with_buffers
from test_serialization_bombs import json_of, refused, typed

ARRAY = typed("ndarray", [1], dtype="int64")
HUGE = typed("range", [0, 1 << 60, 1])


def index(data: Any, *names: Any, **further: Any) -> dict[str, Any]:
    return typed("pandas.Index", data, names=list(names or [None]), **further)


def frame(*columns: Any, rows: Any = HUGE) -> dict[str, Any]:
    names = index(typed("range", [0, len(columns), 1]))
    return typed("pandas.DataFrame", list(columns), index=index(rows), columns=names, attributes={})


def column(dtype: Any, data: Any = ARRAY, **further: Any) -> dict[str, Any]:
    return typed("pandas.array", data, dtype=dtype, **further)


def series_of_polars(dtype: Any, data: Any) -> dict[str, Any]:
    return typed("polars.Series", data, name="n", dtype=dtype)


@pytest.mark.parametrize(
    "value",
    [
        frame(),
        frame(1, rows=typed("range", [0, 9, 1])),
        frame("text", rows=typed("range", [0, 9, 1])),
        frame(ARRAY, rows=typed("range", [0, 9, 1])),
        frame(typed("ndarray", [[1]], dtype="int64"), rows=typed("range", [0, 1, 1])),
        frame(frame(rows=typed("range", [0, 1, 1])), rows=typed("range", [0, 1, 1])),
        typed("pandas.Series", 1, index=index(HUGE), name=None),
        typed("pandas.Series", ARRAY, index=7, name=None),
        typed("pandas.Series", ARRAY, index=index(ARRAY), name=[]),
        index([]),
        index([1], None),
        index(HUGE, None, None),
        index(typed("range", [0, 10**40, 1])),
        index([index(ARRAY), index(typed("range", [0, 9, 1]))], None, None),
        index(typed("ndarray", [n * (2**61 - 1) for n in range(1000)], dtype="object")),
        column("category", categories=index(ARRAY), ordered=False),
        column("category", categories=HUGE, ordered=False),
        column("period", frequency="1" * 1000),
        column("period", frequency="__import__('os')"),
        column("period", frequency=7),
        column("datetimetz", zone="/etc/passwd"),
        column("datetimetz", zone="../../etc/passwd"),
        column("datetimetz", zone=1e300),
        column("interval", closed="both"),
        column("interval", [ARRAY, typed("ndarray", ["x"], dtype="U")], closed="both"),
        column("U50000000"),
        column("object", HUGE),
        column("string", "text"),
        column("arrow", HUGE),
        column("Int64"),
        column("Int64", mask=typed("ndarray", [True] * 2, dtype="bool")),
        column("Float64", mask=typed("ndarray", [True], dtype="bool")),
        column(["Int64"], mask=ARRAY),
        typed("pandas.missing", 1),
        series_of_polars(["Array", "Int64", 1 << 35], [None]),
        series_of_polars(["Array", ["Array", ["Array", "Int8", 1 << 15], 1 << 15], 1 << 15], [None]),
        series_of_polars(["Array", "Int64", 1 << 29], [None]),
        series_of_polars(["Array", "Int64", -1], [None]),
        series_of_polars(["Datetime", "us", "Nowhere/At_All"], ARRAY),
        series_of_polars(["Datetime", "years", None], ARRAY),
        series_of_polars(["Decimal", 10**9, -5], ["1"]),
        series_of_polars(["Struct", [["a", "Int8", 1]]], [{"a": 1}]),
        series_of_polars(["Enum", ["a", "a"]], ["a"]),
        series_of_polars(["Enum", ["b"]], ["a"]),
        series_of_polars("Object", [1]),
        series_of_polars("DataType", [1]),
        series_of_polars("__class__", [1]),
        series_of_polars(7, [1]),
        series_of_polars("Int8", [1000]),
        series_of_polars("Int8", "text"),
        series_of_polars("Int8", HUGE),
        typed("polars.DataFrame", [series_of_polars("Int8", [1]), series_of_polars("Int16", [1, 2])]),
        typed("polars.DataFrame", [series_of_polars("Int8", [1]), series_of_polars("Int8", [1])]),
        typed("polars.DataFrame", [1]),
        typed("texts", "abc", lengths=typed("bytes", "AAAAAA=="), byteorder="little"),
        typed("texts", "abc", lengths=typed("bytes", "AAAA"), byteorder="little"),
        typed("texts", 7, lengths=typed("bytes", ""), byteorder="little"),
        typed("records", [["a", ARRAY]], shape=[1 << 60]),
        typed("records", [["a", 1]], shape=[]),
        typed("records", [["a", ARRAY], ["a", ARRAY]], shape=[1]),
        typed("masked_array", ARRAY, mask=1),
        typed("masked_array", 1, mask=ARRAY),
        typed("UUID", "x"),
        typed("UUID", 7),
        typed("Fraction", [1, 0]),
        typed("Fraction", ["1", []]),
        typed("range", [0, 1, 0]),
        typed("range", ["a"]),
        typed("deque", [1], maxlen=-1),
        typed("deque", "abc", maxlen=None),
        typed("defaultdict", {}, factory="eval"),
        typed("defaultdict", {}, factory=["list"]),
        typed("Counter", [1]),
        typed("OrderedDict", typed("dict_with_complex_keys", [[n * (2**61 - 1), 0] for n in range(99)])),
        typed("namedtuple", [1], name="P", fields=["__import__('os')"]),
        typed("namedtuple", [1], name="P", fields=["_x"]),
        typed("namedtuple", [1], name="P", fields=[1]),
        typed("namedtuple", [1], name="P", fields=[[]]),
        typed("namedtuple", [1], name="P(", fields=["x"]),
        typed("namedtuple", [1], name="P", fields=["x", "y"]),
        typed("namedtuple", [], name="P", fields=[f"x{n}" for n in range(1001)]),
        [typed("namedtuple", [1], name=f"P{n}", fields=["x"]) for n in range(65)],
        typed("timedelta", 0, total_seconds=0, parts=[10**12, 0, 0]),
        typed("timedelta", 0, total_seconds=0, parts=7),
        {**typed("pyarrow", "text"), "kind": "Table"},
        {**typed("pyarrow", typed("bytes", "")), "kind": "Table"},
    ],
    ids=lambda value: str(value)[:70],
)
def test_values_that_are_none(value: Any) -> None:
    assert "answer[0]" in refused("can't be decoded", json_of([value]))


def test_datetimes_of_unknown_zones_keep_their_offset() -> None:
    for zone in ("Nowhere/At_All", "../../etc/passwd", "Europe", 7, "x" * 1000):
        value = typed("datetime", "2024-01-01T00:00:00+01:00", zone=zone)
        assert decode("safe", [json_of(value)]).isoformat() == value["data"]


def test_texts_are_counted() -> None:
    document, *buffers = with_buffers(FRAME["words"].repeat(9000))
    limits = PayloadLimits(array_bytes=1_000_000)
    refused("array_bytes allows 1000000", document, *buffers, form="buffers-1", limits=limits)


def arrow(stream: bytes, kind: str = "Table") -> tuple[bytes, bytes]:
    buffer = {"__type__": "buffer", "index": 0, "kind": "bytes"}
    return json_of({"value": {**typed("pyarrow", buffer), "kind": kind}, "sizes": [len(stream)]}), stream


def stream_of(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_streams(codec: str) -> None:
    for table in (
        pa.table({"n": np.zeros(1 << 20)}),
        pa.table({"t": pa.array(["a" * 9000]).dictionary_encode()}),
    ):
        refused("compressed", *arrow(stream_of(table, compression=codec)), form="buffers-1")


def test_rows_without_bytes() -> None:
    many = pa.Array.from_buffers(pa.null(), 1 << 40, [None])
    for rows in (many, pa.RunEndEncodedArray.from_arrays(pa.array([1 << 40]), pa.array([1]))):
        stream = stream_of(pa.table({"n": rows}), allow_64bit=True)
        assert len(stream) < 1000
        refused("array_items allows", *arrow(stream), form="buffers-1")


def test_types_of_an_extension() -> None:
    identity = pa.array([b"x" * 16], pa.uuid())
    for array in (identity, pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), identity)):
        refused("extension", *arrow(stream_of(pa.table({"n": array}))), form="buffers-1")


def test_dictionaries_in_parts() -> None:
    words = [pa.array(["a"] * n + ["b", "c"][:n]).dictionary_encode() for n in (1, 2)]
    schema = pa.schema([("w", words[0].type)])
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with pa.ipc.new_stream(sink, schema, options=options) as stream:
        for array in words:
            stream.write_batch(pa.record_batch([array], schema=schema))
    refused("dictionaries in parts", *arrow(sink.getvalue().to_pybytes()), form="buffers-1")


def test_how_pandas_reads_a_table_is_not_the_kernels_to_say() -> None:
    table = pa.Table.from_pandas(FRAME[["int"]].set_index("int", append=True).reset_index("int"))
    assert b"pandas" in table.schema.metadata
    assert decode("buffers-1", arrow(stream_of(table))).schema.metadata is None


def seeds() -> list[list[bytes]]:
    values = [
        FRAME,
        FRAME.set_index(["words", "zoned"])["bin"],
        polars_frame(),
        record_array(),
        STANDARD_VALUES,
    ]
    streams = [list(arrow(stream_of(arrow_table()))) for _ in range(3)]
    return [[safe(value)] for value in values] + streams


@pytest.mark.parametrize("seed", range(2))
# What the libraries say of values that are odd.
@pytest.mark.filterwarnings("ignore")
def test_mutated_payloads_are_a_value_or_refused(seed: int) -> None:
    dice = random.Random(seed)
    originals = seeds()
    refusals = 0
    for _ in range(600):
        buffers = [bytearray(buffer) for buffer in dice.choice(originals)]
        target = buffers[-1]
        for _ in range(dice.choice([1, 1, 2, 5])):
            at = dice.randrange(len(target))
            choice = dice.random()
            if choice < 0.5:
                target[at] = dice.choice([0, 1, 127, 255, *b'0129[]{}",-', dice.randrange(256)])
            elif len(buffers) == 1:
                # A word of the document by another of it.
                words = target.split(b'"')
                words[dice.randrange(len(words))] = dice.choice(words)
                target[:] = b'"'.join(words)
            else:
                target[at : at + 8] = dice.randrange(1 << dice.choice([8, 31, 63])).to_bytes(8, "little")
        try:
            decode("buffers-1" if len(buffers) > 1 else "safe", list(map(bytes, buffers)))
        except PayloadError as error:
            refusals += 1
            assert len(str(error)) < 3000  # noqa: PT017 what is raised is the point
    assert 0 < refusals < 600


SPARSE = {
    "__type__": "pandas.array",
    "dtype": "sparse",
    "data": {"__type__": "ndarray", "data": [1.0], "dtype": "float64"},
    "indices": {"__type__": "ndarray", "data": [5], "dtype": "int32"},
    "length": 10,
    "fill": 0,
}
EMPTY = {"__type__": "bytes", "data": ""}


@pytest.mark.parametrize(
    "value",
    [
        {"__type__": "Pattern", "data": r"[\u0000-\U0010ffff]" * 40, "flags": 2},
        {"__type__": "Pattern", "data": "(?i:[\0-\U0010ffff])" * 40, "flags": 0},
        {"__type__": "Pattern", "data": "(" * 900, "flags": 0},
        {"__type__": "Pattern", "data": "a" * 2000, "flags": 0},
        {"__type__": "Pattern", "data": ["a"], "flags": 0},
        {"__type__": "Pattern", "data": "a", "flags": "x"},
        [{"__type__": "Pattern", "data": f"x{number}", "flags": 0} for number in range(100)],
        {"__type__": "pixels", "mode": "F", "size": [1 << 30, 1 << 30], "data": EMPTY},
        {"__type__": "pixels", "mode": "1", "size": [8, 1], "data": EMPTY},
        {"__type__": "pixels", "mode": ["F"], "size": [0, 1], "data": EMPTY},
        {"__type__": "pixels", "mode": "F", "size": [-1, 1], "data": EMPTY},
        {"__type__": "pixels", "mode": "F", "size": [0, 1], "data": 3},
        {
            "__type__": "pixels",
            "mode": "PA",
            "size": [1, 1],
            "data": {**EMPTY, "data": "AAA="},
            "palette": [1],
        },
        {**SPARSE, "length": 3},
        {**SPARSE, "length": -4},
        {**SPARSE, "length": 1 << 40},
        {**SPARSE, "fill": "x"},
        {**SPARSE, "indices": {"__type__": "ndarray", "data": [-1], "dtype": "int32"}},
        {"__type__": "ZoneInfo", "data": "../../etc/passwd"},
        {"__type__": "timezone", "data": [{"__type__": "timedelta", "total_seconds": 1e9}]},
        {"__type__": "pandas.Period", "ordinal": 10**30, "frequency": "D"},
        {"__type__": "pandas.Period", "ordinal": 1, "frequency": "D" * 100},
        {"__type__": "pandas.Interval", "data": [1, [2]], "closed": "x"},
        {"__type__": "array", "typecode": "d", "itemsize": 8, "byteorder": "little", "data": "AAA"},
        {"__type__": "array", "typecode": "d", "itemsize": 4, "byteorder": "little", "data": EMPTY},
        {"__type__": "ipaddress", "name": "__loader__", "data": "x"},
        {"__type__": "ipaddress", "name": "IPv4Address", "data": "1" * 10_000},
        {"__type__": "mappingproxy", "data": 3},
        {"__type__": "ChainMap", "data": [1]},
        {"__type__": "slice", "data": [1]},
        {"__type__": "bytearray", "data": "x"},
        {"__type__": "SimpleNamespace"},
    ],
    ids=lambda value: str(value)[:60],
)
def test_malformed_values_are_refused_at_once(value: Any) -> None:
    began = time.process_time()
    with pytest.raises(PayloadError):
        decode("safe", [json.dumps(value).encode()], limits=PayloadLimits(array_items=1 << 30))
    assert time.process_time() - began < 5


def test_an_index_of_too_many_levels() -> None:
    level = index(typed("ndarray", [], dtype="int64"))
    levels = index([level] * 50_000, *[None] * 50_000)
    refused("of 50000 levels, and 1000 are allowed", json_of(levels))


def test_business_days_for_a_thousand_years() -> None:
    days = np.busday_offset("2020-01-01", np.arange(400_000), roll="forward").astype("M8[us]")
    hostile = index(typed("ndarray", days.view("i8").tolist(), dtype="datetime64[us]"), frequency="B")
    began = time.process_time()
    decoded = decode("safe", [json_of(hostile)])
    assert time.process_time() - began < 2
    assert (len(decoded), decoded.freq) == (len(days), None)
    # Steps of one length are compared at once.
    seconds = pd.date_range("2020", periods=400_000, freq="s", unit="us")
    honest = index(typed("ndarray", seconds.asi8.tolist(), dtype="datetime64[us]"), frequency="s")
    assert decode("safe", [json_of(honest)]).freq == "s"
