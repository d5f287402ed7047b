"""Values on their way to the other side, in smolagents' "safe" format.

Runs on the host, and as a text of its own inside the kernel, as the module `_sandkernel_encoder`: it knows
nothing of sandkernel, needs the standard library alone, and runs on Python 3.8. So do the modules that it
asks, one for each library, which also read what they write: `standard`, `numpy_values` and so on.

What smolagents' own decoder understands is written as smolagents writes it, with one difference: a dict that
holds the key `"__type__"` is written in the form for dicts with other keys than text, which that decoder
turns into the same dict; as it stands, it would be taken for a value of another type.

What is large can travel beside the JSON, as bytes: then `{"__type__": "buffer", "index": 3, "kind": "bytes"}`
stands in its place. The kinds: `bytes`; `str` (UTF-8, lone surrogates let through); `ndarray` with `dtype`
and `shape` (in C order); `image` with `mode` and `size` (the bare pixels); `PIL.Image` (a PNG file).
"""

from __future__ import annotations

import base64
import sys
from typing import Any, NoReturn

if __name__ == "_sandkernel_encoder":
    import _sandkernel_arrow_values as arrow_values  # type: ignore[import-not-found]
    import _sandkernel_numpy_values as numpy_values  # type: ignore[import-not-found]
    import _sandkernel_pandas_values as pandas_values  # type: ignore[import-not-found]
    import _sandkernel_polars_values as polars_values  # type: ignore[import-not-found]
    import _sandkernel_standard as standard  # type: ignore[import-not-found]
    import _sandkernel_texts as texts  # type: ignore[import-not-found]
else:
    from sandkernel.serialization import (
        arrow_values,
        numpy_values,
        pandas_values,
        polars_values,
        standard,
        texts,
    )

# What reads the forms that smolagents' decoder does not know, by their names.
KINDS = {
    name: decode
    for module in (standard, texts, numpy_values, pandas_values, polars_values, arrow_values)
    for name, decode in module.KINDS.items()
}
# The form of a payload with buffers: its number rises when an older decoder would not understand it.
FORM = "buffers-1"
# What is smaller travels within the JSON: a buffer costs a few hundred bytes, and a part of a message each.
BUFFER_BYTES = 16 << 10
# The digits that Python itself turns into a number, and back.
INT_DIGITS = 4300
_INT_BITS = 14_000  # of certainly fewer digits
_INT_MAX = 1 << 64  # of which the same is quick to tell
_PATH_LENGTH = 300
_PLAIN = frozenset([float, bool, type(None)])
_BUILT_IN = frozenset([dict, tuple, set, frozenset, bytes, bytearray, memoryview, complex])
# The modes whose bare pixels are smaller, and much quicker to write, than a PNG file.
_RAW_MODES = frozenset(["L", "LA", "RGB", "RGBA"])
# Those that a PNG file holds as they are. One of the mode I, for example, it cuts off at 16 bits.
_PNG_MODES = frozenset(["1", "L", "LA", "P", "RGB", "RGBA"])


class UnsendableError(TypeError):
    """A value that has no safe form.

    Attributes:
        path: Where it sits in the whole, such as `['a'][3]`.
        reason: What is wrong with it.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return self.reason

    def below(self, step: str) -> UnsendableError:
        """Return the error of the value that holds this one."""
        return UnsendableError(self.reason, step + self.path if len(self.path) < _PATH_LENGTH else self.path)


class Encoder:
    """Turns values into JSON, and large ones into bytes beside it.

    Args:
        with_buffers: Whether there may be bytes beside the JSON. Without, smolagents' decoder reads it.
        snapshot: Whether the buffers are copies, which nobody changes until they are sent. Otherwise they are
            texts, and views of the values' own memory.

    Attributes:
        buffers: The bytes beside the JSON: bytes, flat memoryviews of bytes, and, without `snapshot`, texts
            that stand for their UTF-8.
    """

    def __init__(self, with_buffers: bool = False, snapshot: bool = False) -> None:  # noqa: FBT001, FBT002
        self._with_buffers = with_buffers
        self._snapshot = snapshot
        self.buffers: list[Any] = []

    def encode(self, value: Any) -> Any:
        """Return the value in a form that `json.dumps` takes.

        Raises:
            UnsendableError: It has none.
        """
        mark = len(self.buffers)
        try:
            return self._encode(value)
        except RecursionError:
            del self.buffers[mark:]
            raise UnsendableError("it is nested too deeply, or holds itself") from None
        except UnsendableError:
            del self.buffers[mark:]
            raise

    def buffer(self, data: Any, kind: str, **further: Any) -> dict[str, Any]:
        """Put bytes, or a text, beside the JSON, and return what stands in its place there."""
        if isinstance(data, str):
            if self._snapshot:
                data = data.encode("utf-8", "surrogatepass")
        else:
            view = memoryview(data)
            data = view.tobytes() if self._snapshot else view.cast("B")
        self.buffers.append(data)
        return {"__type__": "buffer", "index": len(self.buffers) - 1, "kind": kind, **further}

    def below(self, step: str, value: Any) -> Any:
        """Return the form of a part of a value, whose errors say where it sits."""
        try:
            return self._encode(value)
        except UnsendableError as error:
            raise error.below(step) from None

    def is_large(self, size: int) -> bool:
        """Return whether so many bytes travel beside the JSON."""
        return self._with_buffers and size >= BUFFER_BYTES

    def refuse(self, reason: str) -> NoReturn:
        """Raise the error of a value that can't be sent."""
        raise UnsendableError(reason)

    def _encode(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, str):
            if type(value) is not str and _is_of_agents(value):
                return self._encode_of_agents(value)
            return self.buffer(value, "str") if self.is_large(len(value)) else value
        if isinstance(value, int):
            if value.bit_length() > _INT_BITS and abs(value) >= 10**INT_DIGITS:
                raise UnsendableError("an int of more than %d digits" % INT_DIGITS)
            return value
        if isinstance(value, list):
            return self._encode_items(value)
        if type(value) not in _BUILT_IN:
            for encode in self._encoders:
                encoded = encode(self, value)
                if encoded is not None:
                    return encoded
        if isinstance(value, dict):
            return self._encode_dict(value)
        for kind in (tuple, set, frozenset):
            if isinstance(value, kind):
                return {"__type__": kind.__name__, "data": self._encode_items(list(value))}
        if isinstance(value, (bytes, bytearray, memoryview)):
            if isinstance(value, bytearray) and self._with_buffers:
                return {"__type__": "bytearray", "data": self._encode(memoryview(value))}
            if isinstance(value, memoryview) and not value.c_contiguous:
                value = value.tobytes()
            if self.is_large(memoryview(value).nbytes):
                return self.buffer(value, "bytes")
            return {"__type__": "bytes", "data": base64.b64encode(value).decode()}
        if isinstance(value, complex):
            return {"__type__": "complex", "real": value.real, "imag": value.imag}
        import enum

        if isinstance(value, enum.Enum):
            return self._encode(value.value)
        raise UnsendableError("an object of type %s" % type(value).__name__)

    def _encode_items(self, values: list[Any]) -> list[Any]:
        kinds = set(map(type, values))
        if kinds <= _PLAIN or (kinds == {int} and min(values) > -_INT_MAX and max(values) < _INT_MAX):
            return values
        encoded = []
        index = 0
        try:
            for index, value in enumerate(values):  # noqa: B007 the error names it
                encoded.append(self._encode(value))
        except UnsendableError as error:
            raise error.below("[%d]" % index) from None
        return encoded

    def _encode_dict(self, value: dict[Any, Any]) -> dict[str, Any]:
        key = None
        try:
            if "__type__" not in value and all(isinstance(key, str) for key in value):
                encoded = {}
                for key, item in value.items():
                    encoded[key] = self._encode(item)
                return encoded
            pairs = []
            for key, item in value.items():
                pairs.append([self._encode(key), self._encode(item)])
        except UnsendableError as error:
            raise error.below("[%s]" % repr(key)[:60]) from None
        return {"__type__": "dict_with_complex_keys", "data": pairs}

    def _encode_image(self, value: Any) -> Any:
        # A library that was never imported can't have made this value: look it up, don't load it.
        module, figures = sys.modules.get("PIL.Image"), sys.modules.get("matplotlib.figure")
        is_figure = isinstance(value, getattr(figures, "Figure", ()))
        if not is_figure and not isinstance(value, getattr(module, "Image", ())):
            return None
        if _is_of_agents(value):
            return self._encode_of_agents(value)
        import io

        file = io.BytesIO()
        try:
            if is_figure:
                value.savefig(file, format="png", bbox_inches="tight")
            elif value.mode not in _PNG_MODES or 0 in value.size:
                return self._encode_pixels(value)
            elif (
                self.is_large(value.size[0] * value.size[1])
                and value.mode in _RAW_MODES
                and "transparency" not in value.info
            ):
                return self.buffer(value.tobytes(), "image", mode=value.mode, size=list(value.size))
            else:
                value.save(file, format="PNG")
        except Exception as error:
            reason = "an image that can't be written as PNG (%s: %s)" % (type(error).__name__, error)
            raise UnsendableError(reason) from None
        data = file.getvalue()
        if self.is_large(len(data)):
            return self.buffer(data, "PIL.Image")
        return {"__type__": "PIL.Image", "data": base64.b64encode(data).decode()}

    def _encode_pixels(self, value: Any) -> dict[str, Any]:
        """Return the form of an image that no PNG file holds as it is."""
        encoded = {"__type__": "pixels", "mode": value.mode, "size": list(value.size)}
        if value.mode == "PA":
            encoded["palette"] = self._encode(bytes(value.getpalette("RGB") or ()))
        return {**encoded, "data": self._encode(value.tobytes())}

    def _encode_of_agents(self, value: Any) -> Any:
        """Return what one of smolagents' own types holds; of a sound, what makes the same one again."""
        try:
            raw = value.to_raw()
        except Exception as error:
            reason = "an %s that can't be read (%s: %s)" % (type(value).__name__, type(error).__name__, error)
            raise UnsendableError(reason) from None
        if not hasattr(value, "samplerate"):
            return self._encode(raw)
        import numpy

        return self._encode((value.samplerate, numpy.asarray(raw)))

    def _encode_fields(self, value: Any) -> dict[str, Any] | None:
        """Return what a dataclass, or a model of pydantic's, holds."""
        import dataclasses

        if isinstance(value, type):
            return None
        pydantic = sys.modules.get("pydantic")
        model = getattr(pydantic, "BaseModel", None)
        if dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value)]
        elif model is not None and isinstance(value, model):
            names = list(getattr(type(value), "model_fields", ()))
        else:
            return None
        data = {}
        for name in names:
            try:
                data[name] = self._encode(getattr(value, name))
            except UnsendableError as error:
                raise error.below("." + name) from None
        kind = type(value)
        return {"__type__": "dataclass", "class_name": kind.__name__, "module": kind.__module__, "data": data}

    # Before what smolagents' format has: a datetime of pandas' is a datetime, a named tuple a tuple.
    _encoders = (
        pandas_values.encode,
        standard.encode,
        _encode_image,
        numpy_values.encode,
        polars_values.encode,
        arrow_values.encode,
        _encode_fields,
    )


def _is_of_agents(value: Any) -> bool:
    types = sys.modules.get("smolagents.agent_types")
    return types is not None and isinstance(value, getattr(types, "AgentType", ()))
