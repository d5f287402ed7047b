"""How much of a host's memory what a sandbox sends may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from sandkernel.exceptions import ConfigurationError

__all__ = ["PayloadLimits"]


@dataclass(frozen=True)
class PayloadLimits:
    """What a final answer, or the arguments of a call to the host, may hold before they are refused.

    They are refused with a `PayloadError`.

    A sandbox can send what it likes. With the defaults no payload takes more than some 1.5 GB while it is
    decoded; an honest answer takes a little more than its own size. The limits of arrays and images hold for
    all those of one payload together.

    Attributes:
        payload_bytes: The bytes of the whole payload, as sent.
        depth: The levels of lists and dicts in its JSON.
        items: The values in its JSON: texts, numbers, lists, dicts. Those of an array or of bytes that travel
            as a buffer don't count.
        image_pixels: The pixels of images.
        image_bytes: The bytes of images, as sent.
        array_items: The elements of numpy arrays.
        array_bytes: The bytes that numpy arrays take in memory.

    Raises:
        ConfigurationError: A limit is no positive int.
    """

    payload_bytes: int = 256 << 20
    depth: int = 200
    items: int = 2_000_000
    image_pixels: int = 50_000_000
    image_bytes: int = 256 << 20
    array_items: int = 256 << 20
    array_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(
                    f"payload_limits.{field.name} is an int of at least 1, not {value!r:.60}"
                )

    @classmethod
    def of(cls, given: PayloadLimits | Mapping[str, int] | None) -> PayloadLimits:
        """Return limits as they are, or made of those that differ from the defaults.

        Raises:
            ConfigurationError: There is no such limit.
        """
        if given is None or isinstance(given, cls):
            return given or cls()
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"payload_limits is a PayloadLimits, not {type(given).__name__}")
        unknown = sorted(set(map(str, given)) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigurationError(f"payload_limits has no limit named {', '.join(unknown):.200}")
        return cls(**given)
