"""What a sandbox sent, on its way to values of this process."""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import decimal
import pathlib
import pickle
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

from sandkernel.exceptions import PayloadError
from sandkernel.serialization import arrays, images, standard
from sandkernel.serialization.budget import Budget, Path, brief, refusal
from sandkernel.serialization.document import parse
from sandkernel.serialization.encoder import FORM
from sandkernel.serialization.encoder import KINDS as FURTHER_KINDS
from sandkernel.serialization.limits import PayloadLimits
from sandkernel.serialization.pandas_values import with_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["decode"]

_ISO_LENGTH = 64
_DECIMAL_LENGTH = 4300
_DECIMAL_EXPONENT = 999_999  # that of Python's own context
# Values of one hash make a set slow: 50,000 of them take a minute. Honest ones have it in pairs: -1 and -2.
_SAME_HASH = 16


def decode(
    form: str,
    buffers: Sequence[bytes | memoryview],
    *,
    allow_pickle: bool = False,
    limits: PayloadLimits | None = None,
    subject: str = "The final answer",
    root: str = "answer",
    reserve: Callable[[int], None] | None = None,
) -> Any:  # noqa: ANN401 any value may come
    """Turn what a kernel sent back into a value. Whatever was sent, it executes none of it.

    Args:
        form: `"safe"` (smolagents' JSON format), `"buffers-1"` (the same, with bytes beside it), `"pickle"`.
        buffers: The payload; for `"buffers-1"` the JSON, and then the bytes, each apart or all in one.
        allow_pickle: Whether a pickle is loaded. Loading one runs code that the kernel chose.
        limits: What is refused; by default `PayloadLimits()`.
        subject: What it is called where it is refused.
        root: What the value itself is called in the path to a part of it.
        reserve: Called with the bytes that an array or an image takes, before it is made.

    Raises:
        PayloadError: It is refused; the message says what, where in the value, and by which limit. No other
            exception is raised.
    """
    try:
        return _decode(form, buffers, allow_pickle, Budget(limits or PayloadLimits(), reserve), root)
    except PayloadError as error:
        # What refuses it knows why, and not what it is.
        error.args = (f"{subject} {error}",)
        raise


def _decode(
    form: str,
    buffers: Sequence[bytes | memoryview],
    allow_pickle: bool,  # noqa: FBT001 there is one caller
    budget: Budget,
    root: str,
) -> Any:  # noqa: ANN401 any value may come
    limits = budget.limits
    size = sum(map(len, buffers))
    if size > limits.payload_bytes:
        raise PayloadError(
            f"is too large: it takes {size} bytes, and payload_limits.payload_bytes allows "
            f"{limits.payload_bytes}"
        )
    if form == "pickle":
        return _unpickle(b"".join(buffers), allow_pickle=allow_pickle)
    if form not in ("safe", FORM):
        raise PayloadError(f"has the unknown form {form[:40]!r}: expected 'safe', {FORM!r} or 'pickle'")
    if not buffers:
        raise PayloadError("is malformed: it is empty")
    try:
        value = parse(bytes(buffers[0]), limits)
        if form == FORM:
            value, beside = _take_apart(value, buffers[1:])
            return _Decoder(budget, beside).decode_root(value, root)
        if len(buffers) > 1:
            raise PayloadError("is malformed: it comes with bytes that its form has not")
        return _Decoder(budget).decode_root(value, root)
    except (RecursionError, MemoryError) as error:
        # Of levels that the limits allow, and the stack or the machine does not.
        raise PayloadError(
            f"can't be decoded ({size} bytes): it is nested too deeply, or too large ({type(error).__name__})"
        ) from None


def _unpickle(payload: bytes, *, allow_pickle: bool) -> Any:  # noqa: ANN401 any value may come
    if not allow_pickle:
        raise PayloadError("is a pickle, and allow_pickle is False: it was not loaded")
    # As smolagents does, for each.
    warnings.warn(
        "Loading a pickle that a sandbox sent. This runs code that the sandbox chose, in this process",
        FutureWarning,
        stacklevel=2,
    )
    try:
        return pickle.loads(payload)  # noqa: S301 the user asked for it
    except Exception as error:
        message = f"can't be decoded ({len(payload)} bytes of a pickle): {error!r:.500}"
        raise PayloadError(message) from error


def _take_apart(value: object, buffers: Sequence[bytes | memoryview]) -> tuple[object, list[memoryview]]:
    """Return the JSON of the value itself, and the bytes beside it."""
    sizes = value.get("sizes") if isinstance(value, dict) else None
    if (
        not isinstance(value, dict)
        or "value" not in value
        or not isinstance(sizes, list)
        or not all(type(size) is int and 0 <= size < 1 << 62 for size in sizes)
    ):
        raise PayloadError("is malformed: it does not say what is beside its JSON")
    beside = [memoryview(buffer) for buffer in buffers]
    if [buffer.nbytes for buffer in beside] != sizes:
        joined = beside[0] if len(beside) == 1 else memoryview(b"")
        if joined.nbytes != sum(sizes):
            raise PayloadError(
                f"is malformed: {sum(buffer.nbytes for buffer in beside)} bytes came beside "
                f"its JSON in {len(beside)} parts, and it speaks of {sum(sizes)} in {len(sizes)}"
            )
        beside, start = [], 0
        for size in sizes:
            beside.append(joined[start : start + size])
            start += size
    return value["value"], beside


class _Decoder:
    """Reads one payload."""

    def __init__(self, budget: Budget, buffers: Sequence[memoryview] | None = None) -> None:
        self._limits = budget.limits
        self._budget = budget
        self._buffers: list[memoryview | None] | None = None if buffers is None else list(buffers)
        self.classes: dict[Any, Any] = {}

    def decode_root(self, value: object, root: str) -> Any:  # noqa: ANN401
        return self._decode(value, root, 0)

    def claim(self, path: Path, items: int, size: int) -> None:
        self._budget.spend(path, "array_items", items, "of too many elements")
        self._budget.spend(path, "array_bytes", size, "of too many bytes")

    def _decode(self, value: Any, path: Path, depth: int) -> Any:  # noqa: ANN401
        kind = type(value)
        if kind is not list and kind is not dict:
            return value
        if depth >= self._limits.depth:
            raise refusal(
                path, f"is nested too deeply: payload_limits.depth allows {self._limits.depth} levels"
            )
        if kind is list:
            return self._items(value, path, depth)
        name = value.get("__type__")
        decode = _KINDS.get(name) if isinstance(name, str) else None
        if decode is None and isinstance(name, str) and name in FURTHER_KINDS:
            return self._further(value, path, depth)
        if decode is None or (name == "buffer" and self._buffers is None):
            return {key: self._decode(item, (path, key), depth + 1) for key, item in value.items()}
        try:
            return decode(self, value, path, depth)
        except KeyError as error:
            raise refusal(path, f"is a {name} without {error}") from None

    def _items(self, values: list[Any], path: Path, depth: int) -> list[Any]:
        if not any(type(value) is list or type(value) is dict for value in values):
            return values
        return [self._decode(value, (path, index), depth + 1) for index, value in enumerate(values)]

    def _further(self, value: dict[str, Any], path: Path, depth: int) -> Any:  # noqa: ANN401
        """Read a kind by what also writes it: what it raises is whatever came up in some library."""
        name = value["__type__"]
        try:
            return FURTHER_KINDS[name](value, _Reader(self, path, depth))
        except (PayloadError, RecursionError, MemoryError):
            raise
        except ImportError as error:
            raise refusal(path, f"needs a package that is not installed here: {error!s:.200}") from error
        except Exception as error:
            reason = f"is no {name} that can be read: {type(error).__name__}: {error!s:.200}"
            raise refusal(path, reason) from error

    # The kinds. Each is given the dict, and raises `KeyError` for what it lacks.

    def _data(self, value: dict[str, Any], path: Path, kind: type[Any]) -> Any:  # noqa: ANN401
        data = value["data"]
        if not isinstance(data, kind):
            raise refusal(path, f"is a {value['__type__']} made of a {type(data).__name__}")
        return data

    def _members(self, value: dict[str, Any], path: Path, depth: int) -> list[Any]:
        # The dict around them is a level too.
        return self._items(self._data(value, path, list), path, depth + 1)

    def _tuple(self, value: dict[str, Any], path: Path, depth: int) -> tuple[Any, ...]:
        return tuple(self._members(value, path, depth))

    def _set(self, value: dict[str, Any], path: Path, depth: int) -> set[Any]:
        members = self._members(value, path, depth)
        _check_hashes(members, path)
        return set(members)

    def _frozenset(self, value: dict[str, Any], path: Path, depth: int) -> frozenset[Any]:
        return frozenset(self._set(value, path, depth))

    def _dict(self, value: dict[str, Any], path: Path, depth: int) -> dict[Any, Any]:
        keys, items = [], []
        for index, pair in enumerate(self._data(value, path, list)):
            if not isinstance(pair, list) or len(pair) != 2:  # noqa: PLR2004 key and value
                raise refusal((path, index), "is no pair of key and value")
            key = self._decode(pair[0], (path, index), depth + 2)
            keys.append(key)
            items.append(self._decode(pair[1], (path, key), depth + 2))
        _check_hashes(keys, path)
        return dict(zip(keys, items, strict=True))

    def _dataclass(self, value: dict[str, Any], path: Path, depth: int) -> dict[str, Any]:
        fields = self._data(value, path, dict)
        names = {"__dataclass__": value["class_name"], "__module__": value["module"]}
        if not all(isinstance(name, str) for name in names.values()):
            raise refusal(path, "is a dataclass whose class has no name")
        return {**names, **{key: self._decode(item, (path, key), depth + 2) for key, item in fields.items()}}

    def _bytes(self, value: dict[str, Any], path: Path, _: int) -> bytes:
        return _from_base64(self._data(value, path, str), path)

    def _image(self, value: dict[str, Any], path: Path, _: int) -> Any:  # noqa: ANN401
        text = self._data(value, path, str)
        # Bytes of base64 that no image may have are not decoded first.
        if len(text) // 4 * 3 - 2 > self._limits.image_bytes:
            self._budget.spend(path, "image_bytes", len(text) // 4 * 3, "an image of too many bytes")
        try:
            return images.from_file(_from_base64(text, path), self._budget, path)
        except ImportError:
            return value  # as smolagents does without PIL

    def _pixels(self, value: dict[str, Any], path: Path, depth: int) -> Any:  # noqa: ANN401
        data, palette = (self._decode(value.get(key), (path, key), depth + 1) for key in ("data", "palette"))
        if not isinstance(data, bytes):
            raise refusal(path, f"is an image made of a {type(data).__name__}")
        try:
            return images.from_pixels(
                memoryview(data), value["mode"], value["size"], self._budget, path, palette=palette
            )
        except ImportError as error:
            raise refusal(path, f"needs a package that is not installed here: {error!s:.200}") from error
        except ValueError as error:
            raise refusal(path, f"is no image that can be read: {error!s:.200}") from error

    def _bytearray(self, value: dict[str, Any], path: Path, depth: int) -> bytearray:
        data = self._decode(value["data"], (path, "data"), depth + 1)
        if not isinstance(data, bytes):
            raise refusal(path, f"is a bytearray made of a {type(data).__name__}")
        return bytearray(data)

    def _array(self, value: dict[str, Any], path: Path, depth: int) -> Any:  # noqa: ANN401
        items = self._decode(value["data"], path, depth + 1)
        try:
            return arrays.from_items(items, value["dtype"], value.get("shape"), self._budget, path)
        except ImportError:
            return items  # as smolagents does without numpy

    def _complex(self, value: dict[str, Any], path: Path, _: int) -> complex:
        real, imaginary = value["real"], value["imag"]
        return complex(_number(real, path), _number(imaginary, path))

    def _timedelta(self, value: dict[str, Any], path: Path, _: int) -> Any:  # noqa: ANN401 or one of pandas'
        _number(value["total_seconds"], path)
        try:
            span = standard.timedelta(value)
            return with_nanoseconds(span, value["nanosecond"]) if "nanosecond" in value else span
        except (OverflowError, TypeError, ValueError) as error:
            raise refusal(path, f"is no timedelta: {error!s:.200}") from None

    def _iso(self, value: dict[str, Any], path: Path, _: int) -> Any:  # noqa: ANN401
        text = self._data(value, path, str)
        kind: type[Any] = {"datetime": dt.datetime, "date": dt.date, "time": dt.time}[value["__type__"]]
        if len(text) <= _ISO_LENGTH:
            with contextlib.suppress(OverflowError, TypeError, ValueError):
                moment = kind.fromisoformat(text)
                if "zone" in value:
                    moment = standard.in_zone(moment, value["zone"])
                return with_nanoseconds(moment, value["nanosecond"]) if "nanosecond" in value else moment
        raise refusal(path, f"is no {value['__type__']} in ISO format: {text[:_ISO_LENGTH]!r}")

    def _decimal(self, value: dict[str, Any], path: Path, _: int) -> decimal.Decimal:
        text = self._data(value, path, str)
        if len(text) > _DECIMAL_LENGTH:
            raise refusal(path, f"is a Decimal of {len(text)} characters, and {_DECIMAL_LENGTH} are allowed")
        try:
            number = decimal.Decimal(text)
        except (decimal.InvalidOperation, ValueError):
            raise refusal(path, f"is no Decimal: {text[:60]!r}") from None
        if number.is_finite() and abs(number.adjusted()) > _DECIMAL_EXPONENT:
            raise refusal(path, f"is a Decimal beyond 1E±{_DECIMAL_EXPONENT}: {text[:60]!r}")
        return number

    def _path(self, value: dict[str, Any], path: Path, _: int) -> pathlib.Path:
        return pathlib.Path(self._data(value, path, str))

    def _buffer(self, value: dict[str, Any], path: Path, _: int) -> Any:  # noqa: ANN401
        index, kind = value["index"], value["kind"]
        buffers = self._buffers or []
        data = buffers[index] if type(index) is int and 0 <= index < len(buffers) else None
        if data is None:
            # Each is read once: a thousand arrays of one buffer would be a thousand times its size.
            raise refusal(path, f"is the buffer {brief(index)}, which is not there, or not there any more")
        buffers[index] = None
        if kind == "bytes":
            return data.tobytes()
        if kind == "str":
            try:
                return str(data, "utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise refusal(path, f"is a text that is no UTF-8: {error.reason}") from None
        try:
            if kind == "ndarray":
                return arrays.from_buffer(data, value["dtype"], value["shape"], self._budget, path)
            if kind == "image":
                return images.from_pixels(data, value["mode"], value["size"], self._budget, path)
            if kind == "PIL.Image":
                return images.from_file(data, self._budget, path)
        except ImportError as error:
            raise refusal(path, f"needs a package that is not installed here: {error!s:.200}") from error
        raise refusal(path, f"is a buffer of the unknown kind {brief(kind)}")


class _Reader:
    """What a kind reads its parts by."""

    # What is read comes from a sandbox.
    trusted = False

    def __init__(self, decoder: _Decoder, path: Path, depth: int) -> None:
        self._decoder = decoder
        self._path = path
        self._depth = depth
        # Those that were made for this payload, so that there is one for each name and fields.
        self.classes = decoder.classes

    def decode(self, item: object, step: object) -> Any:  # noqa: ANN401
        return self._decoder._decode(item, (self._path, step), self._depth + 1)  # noqa: SLF001 this file's own

    def claim(self, items: int, size: int) -> None:
        """Count what is about to be made."""
        self._decoder.claim(self._path, items, size)

    def check_hashes(self, values: Iterable[object]) -> None:
        """Refuse what would make a table of hashes slow."""
        _check_hashes(values, self._path)


_KINDS: dict[str, Callable[[_Decoder, dict[str, Any], Path, int], Any]] = {
    "bytes": _Decoder._bytes,  # noqa: SLF001 so it is with all of them: the class is this table's own
    "PIL.Image": _Decoder._image,  # noqa: SLF001
    "set": _Decoder._set,  # noqa: SLF001
    "tuple": _Decoder._tuple,  # noqa: SLF001
    "complex": _Decoder._complex,  # noqa: SLF001
    "frozenset": _Decoder._frozenset,  # noqa: SLF001
    "dict_with_complex_keys": _Decoder._dict,  # noqa: SLF001
    "datetime": _Decoder._iso,  # noqa: SLF001
    "date": _Decoder._iso,  # noqa: SLF001
    "time": _Decoder._iso,  # noqa: SLF001
    "timedelta": _Decoder._timedelta,  # noqa: SLF001
    "Decimal": _Decoder._decimal,  # noqa: SLF001
    "Path": _Decoder._path,  # noqa: SLF001
    "ndarray": _Decoder._array,  # noqa: SLF001
    "dataclass": _Decoder._dataclass,  # noqa: SLF001
    "pixels": _Decoder._pixels,  # noqa: SLF001
    "bytearray": _Decoder._bytearray,  # noqa: SLF001
    "buffer": _Decoder._buffer,  # noqa: SLF001
}


def _from_base64(text: str, path: Path) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise refusal(path, f"is no base64: {error!s:.200}") from None


def _number(value: object, path: Path) -> float:
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            pass
    raise refusal(path, f"is made of {type(value).__name__}, or of too large a number")


def _check_hashes(values: Iterable[object], path: Path) -> None:
    """Refuse what has no hash, and what has so often the same that a set would take for ever."""
    try:
        hashes = Counter(map(hash, values))
    except TypeError as error:
        raise refusal(path, f"holds what no set or key can be: {error!s:.200}") from None
    if hashes and max(hashes.values()) > _SAME_HASH:
        raise refusal(path, f"holds more than {_SAME_HASH} members of the same hash")
