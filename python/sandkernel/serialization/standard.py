"""Values of the standard library that JSON has no type for, there and back.

Runs on the host, and as a text of its own inside the kernel, as the module `_sandkernel_standard`, on Python
3.8. What `KINDS` read may come from a hostile kernel: whatever they raise is a refusal on the host. They are
given what `encode` wrote, and a reader: `reader.decode(item, step)` reads a part of it.
"""

from __future__ import annotations

import array
import collections
import re
import sys
import types
from typing import Any

__all__ = ["KINDS", "encode", "in_zone", "timedelta", "zone", "zone_name"]

_FACTORIES = {kind.__name__: kind for kind in (bool, dict, float, frozenset, int, list, set, str, tuple)}
_MAPPINGS = (collections.OrderedDict, collections.defaultdict, collections.Counter)
_ZONE = re.compile(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+){0,3}")
_ZONE_LENGTH = 64
# Each class costs a fraction of a millisecond, and some kilobytes.
_CLASSES = 64
_FIELDS = 1000
_PATTERN_LENGTH = 1000
_TEXT_CODES = ("u", "w")
_NUMBER_CODES = "bBhHiIlLqQfd"
_ADDRESSES = frozenset(
    [
        kind + version + part
        for kind in ("IP",)
        for version in ("v4", "v6")
        for part in ("Address", "Network", "Interface")
    ]
)


def encode(encoder: Any, value: Any) -> dict[str, Any] | None:
    """Return the form of a value, or `None` for one of another type."""
    import datetime
    import decimal
    import fractions
    import pathlib
    import uuid

    if isinstance(value, tuple):
        return _encode_namedtuple(encoder, value)
    if isinstance(value, dict):
        return _encode_mapping(encoder, value)
    # A datetime is a date as well: it comes first.
    for kind in (datetime.datetime, datetime.date, datetime.time):
        if isinstance(value, kind):
            encoded: dict[str, Any] = {"__type__": kind.__name__, "data": value.isoformat()}
            name = zone_name(getattr(value, "tzinfo", None))
            return {**encoded, "zone": name} if name and kind is datetime.datetime else encoded
    if isinstance(value, datetime.timedelta):
        encoded = {"__type__": "timedelta", "total_seconds": value.total_seconds()}
        if datetime.timedelta(seconds=value.total_seconds()) == value:
            return encoded
        return {**encoded, "parts": [value.days, value.seconds, value.microseconds]}
    if isinstance(value, decimal.Decimal):
        return {"__type__": "Decimal", "data": str(value)}
    if isinstance(value, pathlib.PurePath):
        return {"__type__": "Path", "data": str(value)}
    if isinstance(value, uuid.UUID):
        return {"__type__": "UUID", "data": str(value)}
    if isinstance(value, fractions.Fraction):
        return {"__type__": "Fraction", "data": encoder.encode([value.numerator, value.denominator])}
    if isinstance(value, range):
        return {"__type__": "range", "data": encoder.encode([value.start, value.stop, value.step])}
    if isinstance(value, slice):
        return {"__type__": "slice", "data": encoder.encode([value.start, value.stop, value.step])}
    if isinstance(value, re.Pattern):
        return {
            "__type__": "Pattern",
            "data": encoder.encode(value.pattern),
            "flags": int(value.flags) & ~int(re.DEBUG),
        }
    if isinstance(value, array.array):
        data = encoder.encode(value.tounicode() if value.typecode in _TEXT_CODES else value.tobytes())
        return {
            "__type__": "array",
            "typecode": value.typecode,
            "itemsize": value.itemsize,
            "byteorder": sys.byteorder,
            "data": data,
        }
    if type(value).__name__ in _ADDRESSES and type(value).__module__ == "ipaddress":
        return {"__type__": "ipaddress", "name": type(value).__name__, "data": str(value)}
    if isinstance(value, datetime.timezone):
        return {"__type__": "timezone", "data": [encoder.encode(item) for item in _arguments_of(value)]}
    if type(value).__name__ == "ZoneInfo" and zone_name(value) is not None:
        return {"__type__": "ZoneInfo", "data": zone_name(value)}
    if type(value) is types.SimpleNamespace:
        return {"__type__": "SimpleNamespace", "data": encoder.encode(vars(value))}
    if isinstance(value, types.MappingProxyType):
        return {"__type__": "mappingproxy", "data": encoder.encode(dict(value))}
    if type(value) is collections.ChainMap:
        return {"__type__": "ChainMap", "data": encoder.encode([dict(each) for each in value.maps])}
    if isinstance(value, collections.deque):
        return {"__type__": "deque", "data": encoder.encode(list(value)), "maxlen": value.maxlen}
    return None


def _arguments_of(zone: Any) -> Any:
    """Return what a fixed time zone was made of: its offset, and its name where it was given one."""
    return zone.__getinitargs__()


def _encode_namedtuple(encoder: Any, value: tuple[Any, ...]) -> dict[str, Any] | None:
    fields = getattr(type(value), "_fields", None)
    if not isinstance(fields, tuple) or len(fields) != len(value) or len(fields) > _FIELDS:
        return None
    data = [encoder.below(".%s" % field, item) for field, item in zip(fields, value)]
    return {"__type__": "namedtuple", "name": type(value).__name__, "fields": list(fields), "data": data}


def _encode_mapping(encoder: Any, value: dict[Any, Any]) -> dict[str, Any] | None:
    kind = type(value)
    if kind not in _MAPPINGS:
        return None
    encoded = {"__type__": kind.__name__, "data": encoder.encode(dict(value))}
    if isinstance(value, collections.defaultdict):
        factory = value.default_factory
        encoded["factory"] = getattr(factory, "__name__", None)
        if factory is not None and _FACTORIES.get(encoded["factory"]) is not factory:
            return None  # a function is no data: what the dict holds arrives as a dict
    return encoded


def zone_name(tzinfo: Any) -> str | None:
    """Return the name by which the other side finds a time zone, if it has one."""
    name = getattr(tzinfo, "key", None) or getattr(tzinfo, "zone", None)  # that of `zoneinfo`, that of pytz
    return name if isinstance(name, str) and len(name) <= _ZONE_LENGTH and _ZONE.fullmatch(name) else None


def zone(name: Any) -> Any:
    """Return the time zone of a name, or `None` where there is none."""
    if not isinstance(name, str) or len(name) > _ZONE_LENGTH or not _ZONE.fullmatch(name):
        return None
    try:
        import zoneinfo

        return zoneinfo.ZoneInfo(name)
    except Exception:
        return None  # an older Python, no such zone here, or a directory of zones


def in_zone(value: Any, name: Any) -> Any:
    """Return a datetime with an offset in the zone of a name, or as it is where it does not fit there."""
    found = zone(name)
    if found is None or value.tzinfo is None:
        return value
    for fold in (0, 1):
        moved = value.replace(tzinfo=found, fold=fold)
        if moved.utcoffset() == value.utcoffset():
            return moved
    return value


def timedelta(value: dict[str, Any]) -> Any:
    """Return a timedelta, exact where a float of its seconds is not."""
    import datetime

    if "parts" in value:
        days, seconds, microseconds = value["parts"]
        return datetime.timedelta(int(days), int(seconds), int(microseconds))
    return datetime.timedelta(seconds=value["total_seconds"])


def _uuid(value: dict[str, Any], _: Any) -> Any:
    import uuid

    return uuid.UUID(value["data"])


def _fraction(value: dict[str, Any], _: Any) -> Any:
    import fractions

    numerator, denominator = value["data"]
    return fractions.Fraction(int(numerator), int(denominator))


def _range(value: dict[str, Any], _: Any) -> range:
    start, stop, step = value["data"]
    return range(start, stop, step)


def _slice(value: dict[str, Any], reader: Any) -> slice:
    start, stop, step = _list(reader.decode(value["data"], "data"))
    return slice(start, stop, step)


def _pattern(value: dict[str, Any], reader: Any) -> Any:
    pattern, flags = reader.decode(value["data"], "data"), value["flags"]
    if not isinstance(pattern, (str, bytes)) or type(flags) is not int:
        raise TypeError("a pattern made of something else")
    flags &= ~int(re.DEBUG)
    if reader.trusted:
        return re.compile(pattern, flags)
    key = ("Pattern", pattern, flags)
    if key not in reader.classes:
        if len(pattern) > _PATTERN_LENGTH or len(reader.classes) >= _CLASSES:
            raise ValueError("too long, or one too many: send its .pattern and .flags")
        text = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
        may_ignore_case = flags & re.IGNORECASE or "(?" in text
        if (
            isinstance(pattern, str)
            and may_ignore_case
            and (not text.isascii() or re.search(r"\\[uUN]", text))
        ):
            # To ignore the case of a range, `re` goes over all of its characters: a million of them, at will.
            raise ValueError("of characters whose case takes long: send its .pattern and .flags")
        reader.classes[key] = re.compile(pattern, flags)
    return reader.classes[key]


def _array(value: dict[str, Any], reader: Any) -> Any:
    code, data = value["typecode"], reader.decode(value["data"], "data")
    if code in _TEXT_CODES and isinstance(data, str):
        return array.array(code, data)
    if (
        not isinstance(code, str)
        or len(code) != 1
        or code not in _NUMBER_CODES
        or not isinstance(data, bytes)
    ):
        raise TypeError("of the type code %.20r" % (code,))
    made = array.array(code)
    if made.itemsize != value["itemsize"]:
        raise ValueError("of elements of another size than here: send a list")
    reader.claim(len(data) // made.itemsize, len(data))
    made.frombytes(data)
    if value["byteorder"] != sys.byteorder:
        made.byteswap()
    return made


def _address(value: dict[str, Any], _: Any) -> Any:
    import ipaddress

    if value["name"] not in _ADDRESSES:
        raise ValueError("of the kind %.40r" % (value["name"],))
    return getattr(ipaddress, value["name"])(str(value["data"])[:100])


def _timezone(value: dict[str, Any], reader: Any) -> Any:
    import datetime

    return datetime.timezone(*[reader.decode(item, number) for number, item in enumerate(value["data"])])


def _zone(value: dict[str, Any], _: Any) -> Any:
    found = zone(value["data"])
    if found is None:
        raise ValueError("%.60r, which is not known here" % (value["data"],))
    return found


def _plain_dict(value: dict[str, Any], reader: Any) -> dict[Any, Any]:
    data = reader.decode(value["data"], "data")
    if type(data) is not dict:
        raise TypeError("made of a %s" % type(data).__name__)
    return data


def _namespace(value: dict[str, Any], reader: Any) -> Any:
    return types.SimpleNamespace(**_plain_dict(value, reader))


def _proxy(value: dict[str, Any], reader: Any) -> Any:
    return types.MappingProxyType(_plain_dict(value, reader))


def _chain(value: dict[str, Any], reader: Any) -> Any:
    maps = _list(reader.decode(value["data"], "data"))
    if not all(type(each) is dict for each in maps):
        raise TypeError("of something else than dicts")
    return collections.ChainMap(*maps)


def _deque(value: dict[str, Any], reader: Any) -> Any:
    return collections.deque(_list(reader.decode(value["data"], "data")), value["maxlen"])


def _mapping(value: dict[str, Any], reader: Any) -> dict[Any, Any]:
    items = reader.decode(value["data"], "data")
    if type(items) is not dict:
        raise TypeError("made of a %s" % type(items).__name__)
    if value["__type__"] == "OrderedDict":
        return collections.OrderedDict(items)
    if value["__type__"] == "Counter":
        return collections.Counter(items)
    factory = value["factory"]
    return collections.defaultdict(None if factory is None else _FACTORIES[factory], items)


def _namedtuple(value: dict[str, Any], reader: Any) -> Any:
    name, fields = value["name"], tuple(_list(value["fields"]))
    kind = reader.classes.get((name, fields))
    if kind is None:
        if len(reader.classes) >= _CLASSES or len(fields) > _FIELDS:
            raise ValueError("of one class too many, or of too many fields")
        if not all(isinstance(field, str) for field in (name, *fields)):
            raise TypeError("of names that are no text")
        make: Any = collections.namedtuple  # noqa: PYI024 known at run time only
        kind = make(name, fields)
        # It can be imported from nowhere: its pickle is a tuple.
        kind.__reduce__ = _reduce
        reader.classes[name, fields] = kind
    return kind(*_list(reader.decode(value["data"], "data")))


def _reduce(value: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple, (tuple(value),)


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise TypeError("made of a %s" % type(value).__name__)
    return value


KINDS = {
    "UUID": _uuid,
    "Fraction": _fraction,
    "range": _range,
    "slice": _slice,
    "Pattern": _pattern,
    "array": _array,
    "ipaddress": _address,
    "timezone": _timezone,
    "ZoneInfo": _zone,
    "SimpleNamespace": _namespace,
    "mappingproxy": _proxy,
    "ChainMap": _chain,
    "deque": _deque,
    "OrderedDict": _mapping,
    "defaultdict": _mapping,
    "Counter": _mapping,
    "namedtuple": _namedtuple,
}
