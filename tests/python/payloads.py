"""Payloads of every kind, for what mutates them."""

from __future__ import annotations

import io
import json

import numpy as np
import PIL.Image

from rich_values import LIBRARY_VALUES, STANDARD_VALUES
from test_serialization import safe, with_buffers


def seeds() -> list[tuple[str, list[bytes]]]:
    """Return payloads, each with the form that it has."""
    image = PIL.Image.linear_gradient("L").resize((40, 40))
    values = [
        {"a": [(1, {2}), 1j, b"xyz"], (1, 2): np.arange(4.0)},
        [image, np.array(["a", "bc"]), {"__type__": "tuple"}],
        {"text": "y" * 20_000, "array": np.arange(3000), "image": image.resize((130, 130))},
        *LIBRARY_VALUES,
        *STANDARD_VALUES,
    ]
    found = []
    for value in values:
        found.append(("safe", [safe(value)]))
        found.append(("buffers-1", with_buffers(value)))
    for options in ({"format": "JPEG"}, {"format": "JPEG", "progressive": True}, {"format": "PNG"}):
        file = io.BytesIO()
        image.save(file, **options)
        document = {"value": {"__type__": "buffer", "index": 0, "kind": "PIL.Image"}, "sizes": [file.tell()]}
        found.append(("buffers-1", [json.dumps(document).encode(), file.getvalue()]))
    return found
