"""What the host sent, on its way to values of the kernel.

Runs inside the kernel, as the module `_sandkernel_decoder`, on Python 3.8. It trusts the host: nothing is
checked here that the host's own encoder sees to. `sandkernel/serialization/encoder.py` says what is sent.
"""

import base64

from _sandkernel_encoder import KINDS as FURTHER_KINDS
from _sandkernel_pandas_values import with_nanoseconds
from _sandkernel_standard import in_zone, timedelta


class Decoder:
    """Turns smolagents' "safe" format, and what stands beside it, back into values.

    Args:
        buffers: What is beside the JSON: bytearrays, which become the memory of the values.
    """

    # What the modules of `FURTHER_KINDS` ask for; the host checks more.
    trusted = True

    def __init__(self, buffers=()):
        self._buffers = buffers
        self.classes = {}

    def claim(self, items, size):
        pass

    def check_hashes(self, values):
        pass

    def decode(self, value, step=None):
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        name = value.get("__type__")
        decode = _KINDS.get(name) if isinstance(name, str) else None
        if decode is not None:
            return decode(self, value)
        if isinstance(name, str) and name in FURTHER_KINDS:
            return FURTHER_KINDS[name](value, self)
        return {key: self.decode(item) for key, item in value.items()}

    def _dict(self, value):
        return {self.decode(key): self.decode(item) for key, item in value["data"]}

    def _dataclass(self, value):
        fields = {"__dataclass__": value["class_name"], "__module__": value["module"]}
        fields.update((key, self.decode(item)) for key, item in value["data"].items())
        return fields

    def _array(self, value):
        import numpy

        items = self.decode(value["data"])
        shape = value.get("shape")
        if value["dtype"] == "object" and shape is not None:
            array = numpy.empty(len(items), dtype=object)
            for index, item in enumerate(items):
                array[index] = item
        else:
            array = numpy.array(items, dtype=value["dtype"])
        return array if shape is None else array.reshape(shape)

    def _buffer(self, value):
        data = self._buffers[value["index"]]
        kind = value["kind"]
        if kind == "bytes":
            return bytes(data)
        if kind == "str":
            return data.decode("utf-8", "surrogatepass")
        if kind == "ndarray":
            import numpy

            return numpy.frombuffer(data, dtype=value["dtype"]).reshape(value["shape"])
        if kind == "image":
            from PIL import Image

            return Image.frombytes(value["mode"], tuple(value["size"]), bytes(data))
        return _open_image(data)


def _pixels(self, value):
    from PIL import Image

    size, data = tuple(value["size"]), self.decode(value["data"])
    if not data:
        return Image.new(value["mode"], size)
    image = Image.frombytes(value["mode"], size, data)
    if "palette" in value:
        image.putpalette(self.decode(value["palette"]))
    return image


def _open_image(data):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data))


def _iso(_, value):
    import datetime

    moment = getattr(datetime, value["__type__"]).fromisoformat(value["data"])
    if "zone" in value:
        moment = in_zone(moment, value["zone"])
    return with_nanoseconds(moment, value["nanosecond"]) if "nanosecond" in value else moment


def _timedelta(_, value):
    span = timedelta(value)
    return with_nanoseconds(span, value["nanosecond"]) if "nanosecond" in value else span


def _decimal(_, value):
    import decimal

    return decimal.Decimal(value["data"])


def _path(_, value):
    import pathlib

    return pathlib.Path(value["data"])


_KINDS = {
    "bytes": lambda _, value: base64.b64decode(value["data"]),
    "complex": lambda _, value: complex(value["real"], value["imag"]),
    "tuple": lambda self, value: tuple(self.decode(value["data"])),
    "set": lambda self, value: set(self.decode(value["data"])),
    "frozenset": lambda self, value: frozenset(self.decode(value["data"])),
    "dict_with_complex_keys": Decoder._dict,
    "PIL.Image": lambda _, value: _open_image(base64.b64decode(value["data"])),
    "ndarray": Decoder._array,
    "datetime": _iso,
    "date": _iso,
    "time": _iso,
    "timedelta": _timedelta,
    "Decimal": _decimal,
    "Path": _path,
    "dataclass": Decoder._dataclass,
    "pixels": _pixels,
    "bytearray": lambda self, value: bytearray(self.decode(value["data"])),
    "buffer": Decoder._buffer,
}
