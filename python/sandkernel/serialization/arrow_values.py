"""What pyarrow makes, there and back, as a stream of Arrow's.

Runs on the host, and as a text of its own inside the kernel, as the module `_sandkernel_arrow_values`, on
Python 3.8. What `KINDS` read may come from a hostile kernel: see `standard.py`. So each message of a stream
is looked at before pyarrow reads it: a compressed one, and a row more than the limits allow, are refused.
"""

from __future__ import annotations

import struct
import sys
from typing import Any

__all__ = ["KINDS", "encode"]

# The first that loads no pickle for a column of a type of Python's (CVE-2023-47248).
_SAFE_VERSION = (14, 0, 1)
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # as Arrow's Message.fbs numbers them


def encode(encoder: Any, value: Any) -> dict[str, Any] | None:
    """Return the form of a value of pyarrow's, or `None` for one of another type."""
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is None or not hasattr(pyarrow, "ipc"):
        return None
    if isinstance(value, pyarrow.Table):
        kind, batches = "Table", value.to_batches()
    elif isinstance(value, pyarrow.RecordBatch):
        kind, batches = "RecordBatch", [value]
    elif isinstance(value, pyarrow.ChunkedArray):
        kind, batches = "ChunkedArray", pyarrow.table([value], names=[""]).to_batches()
    elif isinstance(value, pyarrow.Array):
        kind, batches = "Array", [pyarrow.record_batch([value], names=[""])]
    else:
        return None
    schema = value.schema if kind in ("Table", "RecordBatch") else pyarrow.schema([("", value.type)])
    if any(_is_extension(field.type, pyarrow) for field in schema):
        encoder.refuse("a %s of pyarrow's of an extension type" % kind)
    sink = pyarrow.BufferOutputStream()
    options = pyarrow.ipc.IpcWriteOptions(compression=None, unify_dictionaries=True)
    with pyarrow.ipc.new_stream(sink, schema, options=options) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return {"__type__": "pyarrow", "kind": kind, "data": encoder.encode(memoryview(sink.getvalue()))}


def _is_extension(kind: Any, pyarrow: Any) -> bool:
    if isinstance(kind, pyarrow.BaseExtensionType):
        return True
    inner = [kind.value_type] if hasattr(kind, "value_type") else []
    inner += [kind.field(number).type for number in range(kind.num_fields)]
    return any(_is_extension(each, pyarrow) for each in inner)


def _decode(value: dict[str, Any], reader: Any) -> Any:
    import pyarrow

    data = reader.decode(value["data"], "data")
    if not isinstance(data, bytes):
        raise TypeError("made of a %s" % type(data).__name__)
    if not reader.trusted:
        version = tuple(int(part) for part in pyarrow.__version__.split(".")[:3] if part.isdigit())
        if version < _SAFE_VERSION:
            raise ValueError(
                "of pyarrow's, and the one installed here runs what it reads: take 14.0.1 or later"
            )
        _check_messages(data, reader, pyarrow)
    with pyarrow.ipc.open_stream(data) as stream:
        if any(_is_extension(field.type, pyarrow) for field in stream.schema):
            raise ValueError("of an extension type")
        table = stream.read_all()
    table.validate(full=not reader.trusted)
    if not reader.trusted:
        reader.claim(0, table.nbytes)
        # How to make a pandas frame of it is the kernel's to say only where that can be trusted.
        further = {key: item for key, item in (table.schema.metadata or {}).items() if key != b"pandas"}
        table = table.replace_schema_metadata(further or None)
    if value["kind"] == "Table":
        return table
    if value["kind"] == "ChunkedArray":
        return table.column(0)
    (batch,) = table.to_batches() or [pyarrow.RecordBatch.from_pylist([], schema=table.schema)]
    return batch if value["kind"] == "RecordBatch" else batch.column(0)


def _check_messages(data: bytes, reader: Any, pyarrow: Any) -> None:
    """Refuse what takes more memory than it has bytes."""
    for message in pyarrow.ipc.MessageReader.open_stream(data):
        table = _Table.root(message.metadata)
        kind, header = table.number(1, "B"), table.table(2)
        if kind == _DICTIONARY_BATCH and header is not None:
            if header.number(2, "B"):
                raise ValueError("of dictionaries in parts")
            header = header.table(1)
        elif kind != _RECORD_BATCH:
            continue
        if header is None or header.table(3) is not None:
            raise ValueError("that is compressed")
        # Of each column, and of each within it, the length: also of those that have no bytes.
        rows = [header.number(0, "q"), *(length for length, _ in header.structs(1, "qq"))]
        reader.claim(sum(max(length, 0) for length in rows), 0)


class _Table:
    """A table of a flatbuffer: what can't be read raises `struct.error`."""

    def __init__(self, data: Any, start: int) -> None:
        self._data = data
        self._start = start
        self._fields = start - self._read("i", start)

    @classmethod
    def root(cls, data: Any) -> _Table:
        return cls(data, struct.unpack_from("<I", data)[0])

    def _read(self, kind: str, start: int) -> int:
        if start < 0:
            raise struct.error("before its beginning")
        return int(struct.unpack_from("<" + kind, self._data, start)[0])

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry + 2 > self._read("H", self._fields):
            return None
        offset = self._read("H", self._fields + entry)
        return self._start + offset if offset else None

    def number(self, field: int, kind: str) -> int:
        place = self._place(field)
        return 0 if place is None else self._read(kind, place)

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return None if place is None else _Table(self._data, place + self._read("I", place))

    def structs(self, field: int, kind: str) -> list[tuple[int, ...]]:
        place = self._place(field)
        if place is None:
            return []
        start = place + self._read("I", place)
        size = struct.calcsize("<" + kind) * self._read("I", start)
        part = memoryview(self._data)[start + 4 : start + 4 + size]
        return list(struct.iter_unpack("<" + kind, part))


KINDS = {"pyarrow": _decode}
