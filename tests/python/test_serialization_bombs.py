"""What a hostile kernel may send: each is refused, in little memory, with what, where and by which limit."""

from __future__ import annotations

import base64
import io
import json
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np  # noqa: F401 imported before memory is counted, as the next two
import PIL.Image
import PIL.JpegImagePlugin
import PIL.PngImagePlugin
import pytest

from sandkernel import PayloadLimits
from sandkernel.exceptions import PayloadError
from sandkernel.serialization import decode

MIB = 1 << 20


def refused(match: str, *buffers: bytes, form: str = "safe", limits: PayloadLimits | None = None) -> str:
    """Decode, and see that it is refused within a second or two and without memory to speak of."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(PayloadError, match=match) as raised:
            decode(form, buffers, limits=limits)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * sum(map(len, buffers)) + MIB
    assert time.process_time() - start < 10
    assert len(str(raised.value)) < 2000
    return str(raised.value)


def json_of(value: Any) -> bytes:
    return json.dumps(value).encode()


def typed(kind: str, data: Any, **further: Any) -> dict[str, Any]:
    return {"__type__": kind, "data": data, **further}


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    """A PNG file of one colour, some hundred times smaller than its pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def text_chunks(count: int) -> bytes:
    chunks = b""
    for number in range(count):
        data = b"zTXt%d\0\0" % number + zlib.compress(b"a" * (MIB - 100))
        chunks += struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return chunks


@pytest.mark.parametrize("count", ["50000000", "500000000", "9" * 9, "99999999999", "0" * 1000])
def test_arrays_of_large_elements(count: str) -> None:
    message = refused("array", json_of({"a": [0, typed("ndarray", ["x"] * 20, dtype=f"<U{count}")]}))
    assert "answer['a'][1]" in message
    if count.startswith("5"):
        assert "payload_limits.array_bytes allows 268435456" in message


def test_arrays_as_wide_as_their_longest() -> None:
    refused("array_bytes", json_of(typed("ndarray", ["x" * MIB] + [""] * 1000, dtype="<U0")))
    refused("array_bytes", json_of(typed("ndarray", [10**4000] + [0] * 100_000, dtype="U")))


@pytest.mark.parametrize(
    "dtype",
    [
        "O8",
        "V8",
        "f8,f8",
        "(1000000,1000000)f8",
        "f8" + ",f8" * 100_000,
        {"names": ["a"]},
        7,
        None,
        "U-1",
        "é",
    ],
)
def test_arrays_of_other_dtypes(dtype: Any) -> None:
    refused("answer is an array of the dtype", json_of(typed("ndarray", [1], dtype=dtype)))
    buffer = {"__type__": "buffer", "index": 0, "kind": "ndarray", "dtype": dtype, "shape": [1]}
    refused("answer", json_of({"value": buffer, "sizes": [8]}), bytes(8), form="buffers-1")


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("<f8", [1 << 61]),
        ("<f8", [2**31, 2**31, 2**31]),
        ("<f8", [-1, -1]),
        ("<f8", [True]),
        ("<f8", [1.0]),
        ("<f8", [1] * 33),
        ("<f8", [10**4000]),
        ("<f8", "1"),
        ("object", [1]),
        ("<U0", [2**40]),
        ("<U2", [1]),
    ],
)
def test_arrays_of_other_sizes_than_their_bytes(dtype: str, shape: Any) -> None:
    buffer = {"__type__": "buffer", "index": 0, "kind": "ndarray", "dtype": dtype, "shape": shape}
    refused("answer is an array", json_of({"value": buffer, "sizes": [8]}), b"\xff" * 8, form="buffers-1")


def test_arrays_that_hold_no_numbers() -> None:
    for data in ([[1], [2, 3]], [{"a": 1}], [typed("set", [1])], [typed("PIL.Image", "")], "x", [[[]], 1]):
        refused("answer", json_of(typed("ndarray", data, dtype="float64")))
    refused("answer", json_of(typed("ndarray", [256], dtype="uint8")))
    refused("shape", json_of(typed("ndarray", [1], dtype="object", shape=[1 << 40, 0, -1])))
    refused("shape", json_of(typed("ndarray", [1], dtype="object", shape=[1 << 40])))


def test_bools_of_other_bytes() -> None:
    buffer = {"__type__": "buffer", "index": 0, "kind": "ndarray", "dtype": "|b1", "shape": [3]}
    received = decode("buffers-1", [json_of({"value": buffer, "sizes": [3]}), b"\x00\x01\x80"])
    assert received.view("u1").tolist() == [0, 1, 1]


def test_a_limit_holds_for_all_together() -> None:
    buffer = {"__type__": "buffer", "kind": "ndarray", "dtype": "|u1", "shape": [60]}
    document = json_of({"value": [{**buffer, "index": 0}, {**buffer, "index": 1}], "sizes": [60, 60]})
    limits = PayloadLimits(array_bytes=100)
    message = refused(
        "array_bytes allows 100", document, bytes(60), bytes(60), form="buffers-1", limits=limits
    )
    assert "answer[1]" in message
    assert "120 with those before it" in message


def test_a_buffer_is_read_once() -> None:
    buffer = {"__type__": "buffer", "index": 0, "kind": "bytes"}
    document = json_of({"value": [buffer] * 1000, "sizes": [MIB]})
    assert "answer[1]" in refused("not there any more", document, bytes(MIB), form="buffers-1")


@pytest.mark.parametrize("index", [-1, 1, True, None, "0", 10**40, 0.0])
def test_buffers_that_are_not_there(index: Any) -> None:
    buffer = {"__type__": "buffer", "index": index, "kind": "bytes"}
    refused("buffer", json_of({"value": buffer, "sizes": [1]}), b"x", form="buffers-1")


@pytest.mark.parametrize(
    "document", [b"[]", b"{}", b'{"value":1}', b'{"value":1,"sizes":[9]}', b'{"value":1,"sizes":[-1,2]}']
)
def test_documents_that_do_not_fit_their_buffers(document: bytes) -> None:
    refused("malformed", document, b"x", form="buffers-1")


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (8_000, 8_000), (2_000_000_000, 1)])
def test_images_of_too_many_pixels(width: int, height: int) -> None:
    data = header_only(width, height)
    for document, buffers in images(data):
        message = refused("image_pixels allows 50000000", document, *buffers, form="buffers-1")
        assert f"{width} x {height} pixels" in message


def header_only(width: int, height: int) -> bytes:
    small = png(8, 8)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return small[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + small[33:]


def images(data: bytes) -> list[tuple[bytes, list[bytes]]]:
    within = json_of({"value": typed("PIL.Image", base64.b64encode(data).decode()), "sizes": []})
    beside = {"value": {"__type__": "buffer", "index": 0, "kind": "PIL.Image"}, "sizes": [len(data)]}
    return [(within, []), (json_of(beside), [data])]


def test_the_limit_of_images_can_be_set() -> None:
    document = json_of(typed("PIL.Image", base64.b64encode(png(100, 100)).decode()))
    assert decode("safe", [document], limits=PayloadLimits(image_pixels=10_000)).size == (100, 100)
    refused("image_pixels allows 9999", document, limits=PayloadLimits(image_pixels=9999))
    refused("image_bytes allows 20", document, limits=PayloadLimits(image_bytes=20))
    both = json_of([json.loads(document)] * 2)
    refused("image_pixels allows 10000", both, limits=PayloadLimits(image_pixels=10_000))


def test_images_with_comments() -> None:
    document = json_of(typed("PIL.Image", base64.b64encode(png(8, 8, text_chunks(20))).decode()))
    with pytest.raises(PayloadError, match="comments"):
        decode("safe", [document], limits=PayloadLimits(image_bytes=10 * MIB))


def test_images_of_other_formats() -> None:
    for name in ("GIF", "BMP", "TIFF", "PPM", "WEBP"):
        file = io.BytesIO()
        PIL.Image.new("RGB", (4, 4)).save(file, format=name)
        refused("another format", json_of(typed("PIL.Image", base64.b64encode(file.getvalue()).decode())))
    file = io.BytesIO()
    PIL.Image.new("RGB", (40, 40), (255, 0, 0)).save(file, format="JPEG", progressive=True)
    jpeg = file.getvalue()
    assert decode("safe", [json_of(typed("PIL.Image", base64.b64encode(jpeg).decode()))]).size == (40, 40)
    scans = base64.b64encode(jpeg[:-2] + b"\xff\xda" * 100).decode()
    refused("scans", json_of(typed("PIL.Image", scans)))


@pytest.mark.parametrize("cut", [8, 20, 40, 50])
def test_images_that_are_cut(cut: int) -> None:
    refused(
        "no image that can be read", json_of(typed("PIL.Image", base64.b64encode(png(64, 64)[:cut]).decode()))
    )


@pytest.mark.parametrize(
    ("mode", "size"),
    [("RGB", [2, 2]), ("XYZ", [2, 2]), (["RGB"], [1, 1]), ("L", [0, 12]), ("L", [12]), ("L", 12)],
)
def test_pixels_that_do_not_fit(mode: Any, size: Any) -> None:
    buffer = {"__type__": "buffer", "index": 0, "kind": "image", "mode": mode, "size": size}
    refused("image", json_of({"value": buffer, "sizes": [13]}), bytes(13), form="buffers-1")


@pytest.mark.parametrize("levels", [201, 990, 100_000, 3_000_000])
@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('{"__type__":"tuple","data":[', "]}")]
)
def test_deep_nesting(levels: int, opening: str, closing: str) -> None:
    document = (opening * levels + "1" + closing * levels).encode()
    refused("payload_limits.(depth allows 200|items allows 2000000)", document)


def test_depth_can_be_set() -> None:
    document = b"[" * 50 + b"]" * 50
    assert decode("safe", [document])
    refused("depth allows 49", document, limits=PayloadLimits(depth=49))
    refused("nested too deeply", b"[" * 90_000 + b"]" * 90_000, limits=PayloadLimits(depth=100_000))
    # Where the caller's own stack is nearly used up, too.
    limit = sys.getrecursionlimit()

    def sink(levels: int) -> None:
        if levels:
            sink(levels - 1)
        else:
            with pytest.raises(PayloadError):
                decode("safe", [b"[" * 150 + b"{}" + b"]" * 150])

    sink(limit - 200 - depth_of_stack())


def depth_of_stack() -> int:
    frame, depth = sys._getframe(), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1  # type: ignore[assignment]
    return depth


@pytest.mark.parametrize("item", [b"[]", b"{}", b"1", b'""', b'{"a":[]}'])
def test_too_many_items(item: bytes) -> None:
    message = refused("items allows 2000000", b"[" + b",".join([item] * 2_000_001) + b"]")
    assert "too many values" in message
    refused("items allows 3", b"[" + b",".join([item] * 10) + b"]", limits=PayloadLimits(items=3))


def test_punctuation_within_texts_is_no_item() -> None:
    text = '[{,:"\\' * 1_000
    limits = PayloadLimits(items=10)
    assert decode("safe", [json_of([text, {text: text}])], limits=limits) == [text, {text: text}]
    refused("malformed", b'["' + b"\\" * 9 + b",[{" * 100, limits=limits)
    refused("items|malformed", b'"' * 200 + b"," * 200, limits=limits)


@pytest.mark.parametrize(
    "document",
    [b"1" * 5000, b"-" + b"1" * 5_000_000, b"[" + b"9" * 4301 + b"]"],
)
def test_large_numbers(document: bytes) -> None:
    refused("malformed.*digits", document)


def test_large_numbers_where_python_has_no_limit() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        refused("malformed.*5000000 digits", b"1" * 5_000_000)
        assert decode("safe", [b"-" + b"1" * 4300]) == -int("1" * 4300)
    finally:
        sys.set_int_max_str_digits(before)


@pytest.mark.parametrize(
    "value",
    [
        typed("Decimal", "1E1000000"),
        typed("Decimal", "1E-9999999"),
        typed("Decimal", "1" * 5000),
        typed("Decimal", "one"),
        typed("Decimal", 1),
        typed("datetime", "2024-13-01"),
        typed("date", "2024-01-01" * 1000),
        typed("time", None),
        typed("timedelta", 0, total_seconds=1e300),
        typed("timedelta", 0, total_seconds=10**400),
        typed("timedelta", 0, total_seconds="1"),
        typed("complex", 0, real=10**400, imag=0),
        typed("complex", 0, real=[], imag=0),
        typed("bytes", "a"),
        typed("bytes", "????"),
        typed("bytes", "é"),
        typed("bytes", [1]),
        typed("Path", 1),
        typed("tuple", "abc"),
        typed("set", [[]]),
        typed("set", [typed("Decimal", "sNaN")]),
        typed("frozenset", {"a": 1}),
        typed("dict_with_complex_keys", [[1]]),
        typed("dict_with_complex_keys", [[[], 1]]),
        typed("dict_with_complex_keys", ["ab"]),
        typed("dataclass", {}, class_name=1, module="m"),
        typed("dataclass", []),
        {"__type__": "bytes"},
        {"__type__": "complex", "real": 1},
        {"__type__": "ndarray", "data": [1]},
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_values_that_are_none(value: Any) -> None:
    assert "answer[0]" in refused("can't be decoded", json_of([value]))


@pytest.mark.parametrize("name", ["nothing", "", 7, None, ["bytes"], {"a": 1}, "buffer", "Bytes"])
def test_unknown_types_are_dicts(name: Any) -> None:
    value = {"__type__": name, "data": [1], "index": 0, "kind": "bytes"}
    assert decode("safe", [json_of(value)]) == value


def test_sets_whose_members_have_one_hash() -> None:
    for kind in ("set", "frozenset"):
        refused("same hash", json_of(typed(kind, [n * (2**61 - 1) for n in range(100_000)])))
    pairs = [[n * (2**61 - 1), 0] for n in range(100_000)]
    refused("same hash", json_of(typed("dict_with_complex_keys", pairs)))


def test_payloads_that_are_too_large() -> None:
    refused(
        "takes 11 bytes, and payload_limits.payload_bytes allows 10",
        b"1" * 11,
        limits=PayloadLimits(payload_bytes=10),
    )
    refused("form 'x", b"1", form="x" * 1000)
    refused("pickle", b"1", form="pickle")
    for form in ("safe", "buffers-1"):
        refused("empty", form=form)
    refused("malformed", b"1", b"1")


@pytest.mark.parametrize("document", [b"", b"{", b"\xff", "1".encode("utf-16"), b"[1,]", b"nul", b'"\x00"'])
def test_what_is_no_json(document: bytes) -> None:
    refused("malformed", document)


def test_hostile_keys_in_a_path() -> None:
    value: Any = {"x": object}
    value = {"\x00" * 100_000: typed("Decimal", "x")}
    assert len(refused("Decimal", json_of(value))) < 500
    deep: Any = typed("Decimal", "x")
    for _ in range(150):
        deep = {"k" * 1000: deep}
    refused(r"\.\.\.", json_of(deep))


def test_bombs_of_what_python_does_not_count() -> None:
    """PIL's memory is its own: here no process may have more than a little above what the imports take."""
    code = """
        import resource, sys
        sys.path.insert(0, sys.argv[1])
        import test_serialization_bombs as bombs
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (100 << 20),) * 2)
        for width, height in ((30_000, 30_000), (8_000, 8_000)):
            bombs.test_images_of_too_many_pixels(width, height)
        bombs.test_arrays_of_large_elements("50000000")
        try:
            bytearray(200 << 20)
        except MemoryError:
            print("bounded")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("bounded\n", "")
