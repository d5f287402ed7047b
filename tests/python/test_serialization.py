"""Values to and from smolagents' format, apart from any kernel."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import PIL.Image
import pytest
from smolagents.serialization import SafeSerializer

from sandkernel import PayloadLimits
from sandkernel.exceptions import ConfigurationError, PayloadError
from sandkernel.serialization import Encoder, UnsendableError, decode


@dataclasses.dataclass
class Point:
    x: int
    further: Any = None


class Color(enum.Enum):
    RED = "red"


VALUES: list[Any] = [
    None,
    True,
    -(2**70),
    10**4299,
    0.1,
    math.inf,
    "text \ud800 \U0001f600",
    [1, "a", [None]],
    {"a": {"b": [1]}},
    {1: 2, (3, "x"): [4], None: 5},
    (1, (2,)),
    {1, "a", (2, 3)},
    frozenset({-1, -2}),
    b"\x00\xff",
    1 - 2j,
    dt.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=dt.timezone.utc),
    dt.date(2024, 2, 29),
    dt.time(1, 2),
    dt.timedelta(seconds=-1.5),
    decimal.Decimal("1.10"),
    pathlib.Path("/a/b"),
    {"__type__": "tuple", "data": [1]},
    {"__type__": "buffer", "index": 0, "kind": "bytes"},
    {"__type__": "dict_with_complex_keys", "data": [["__type__", 1]]},
    {"deep": [{"__type__": None}], "__type__": {"__type__": ["unhashable"]}},
    "x" * 20_000 + "\ud800é",
    [b"y" * 20_000, {"a": b"z" * 30_000}, bytearray(20_000)],
]


def safe(value: Any) -> bytes:
    return json.dumps(Encoder().encode(value)).encode()


def with_buffers(value: Any) -> list[bytes]:
    encoder = Encoder(with_buffers=True, snapshot=True)
    encoded = encoder.encode(value)
    document = {"value": encoded, "sizes": [len(buffer) for buffer in encoder.buffers]}
    return [json.dumps(document).encode(), *encoder.buffers]


def there_and_back(value: Any) -> Any:
    buffers = with_buffers(value)
    received = decode("buffers-1", buffers)
    # As it comes where a gateway dropped it: all the bytes in one.
    joined = decode("buffers-1", [buffers[0], b"".join(buffers[1:])])
    assert type(received) is type(joined)
    assert "Image" in repr(received) or repr(received) == repr(joined)
    return received


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_as_they_were(value: Any) -> None:
    assert decode("safe", [safe(value)]) == value
    assert there_and_back(value) == value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_smolagents_reads_what_we_write(value: Any) -> None:
    assert SafeSerializer.from_json_safe(json.loads(safe(value))) == value


@pytest.mark.parametrize(
    "value", [value for value in VALUES if "__type__" not in repr(value) and "bytearray" not in repr(value)]
)
def test_what_smolagents_writes_is_read(value: Any) -> None:
    assert decode("safe", [json.dumps(SafeSerializer.to_json_safe(value)).encode()]) == value


def test_nan_and_infinity() -> None:
    received = decode("safe", [b"[NaN, -Infinity, 1e999]"])
    assert math.isnan(received[0])
    assert received[1:] == [-math.inf, math.inf]


@pytest.mark.parametrize("count", [7, 30_000])
@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "uint64", ">i4", "float16", "float64", "complex64", "<U3", "S2", "M8[ns]", "m8[s]"],
)
def test_arrays(dtype: str, count: int) -> None:
    array = np.arange(count).astype("m8[s]" if dtype.startswith("m") else "i8").astype(dtype)
    for sent in (array, array.reshape(-1, 1)[::2], array[:0].reshape(0, 3), array[:1].reshape(())):
        for received in (there_and_back(sent), decode("safe", [safe(sent)])):
            np.testing.assert_array_equal(received, sent)
            assert received.dtype == sent.dtype
            assert received.shape == sent.shape
            assert received.flags.writeable


def test_arrays_of_objects() -> None:
    array = np.empty((2, 2), dtype=object)
    array[0] = [[1, 2], "a"]
    received = there_and_back(array)
    assert received.tolist() == array.tolist()
    assert received.shape == (2, 2)
    assert (
        decode("safe", [json.dumps(SafeSerializer.to_json_safe(np.array([1, "x"], object))).encode()])[1]
        == "x"
    )


@pytest.mark.parametrize(
    ("scalar", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int8(3), 3),
        (np.True_, True),
        (np.str_("a"), "a"),
        (np.complex64(1j), 1j),
        (np.datetime64("2024-01-02T03:04:05"), dt.datetime(2024, 1, 2, 3, 4, 5)),  # noqa: DTZ001
        (Color.RED, "red"),
        (Point(1, Point(2)), {"x": 1, "further": {"x": 2, "further": None}}),
    ],
)
def test_what_arrives_as_data(scalar: Any, expected: Any) -> None:
    def bare(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: bare(item) for key, item in value.items() if not key.startswith("__")}

    assert bare(there_and_back(scalar)) == expected


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "F"])
@pytest.mark.parametrize("side", [4, 200])
def test_images(mode: str, side: int) -> None:
    image = (
        PIL.Image.linear_gradient("L").resize((side, side)).convert("RGB").convert(mode.replace(";16", ""))
    )
    image = image.convert("I;16") if mode == "I;16" else image
    received = there_and_back([image])[0]
    assert (received.mode, received.size) == (image.mode, image.size)
    assert received.tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        ({"a": [0, {"b": object()}]}, "['a'][1]['b']", "object of type object"),
        ({(1, object()): 2}, "[(1, <object", "object of type object"),
        ([Point(1, [len])], "[0].further[0]", "builtin_function"),
        pytest.param(10**5000, "", "more than 4300 digits", id="int"),
        ([np.longdouble(1)], "[0]", "longdouble"),
        (np.zeros(3, dtype="V3"), "", "numpy array of the dtype |V3"),
    ],
)
def test_what_cannot_be_sent_is_found(value: Any, path: str, reason: str) -> None:
    with pytest.raises(UnsendableError) as raised:
        with_buffers(value)
    assert raised.value.path.startswith(path)
    assert reason in str(raised.value)


def test_what_holds_itself_cannot_be_sent() -> None:
    ring: list[Any] = ["x" * 20_000]
    ring.append(ring)
    encoder = Encoder(with_buffers=True)
    with pytest.raises(UnsendableError, match="holds itself"):
        encoder.encode(ring)
    assert encoder.buffers == []


def test_limits_are_checked() -> None:
    assert PayloadLimits.of(None) == PayloadLimits()
    assert PayloadLimits.of({"depth": 3}) == PayloadLimits(depth=3)
    for wrong in ({"depth": 0}, {"items": True}, {"image_bytes": 1.5}, {"pixels": 3}, 7):
        with pytest.raises(ConfigurationError, match="payload_limits"):
            PayloadLimits.of(wrong)  # type: ignore[arg-type]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from sandkernel import PayloadLimits; from sandkernel.serialization import decode; "
        "decode('safe', [b'[1]']); print(sorted({'numpy', 'PIL', 'smolagents'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_pickles_are_refused() -> None:
    with pytest.raises(PayloadError, match="pickle, and allow_pickle is False"):
        decode("pickle", [b"cos\nsystem\n(S'false'\ntR."])
