"""Values on their way from the host to the kernel."""

from __future__ import annotations

import base64
import json
import pickle
import uuid
import zlib
from typing import TYPE_CHECKING, Any

from smolagents.serialization import SafeSerializer, SerializationError

from sandkernel.exceptions import PayloadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["encode", "encode_value", "pieces"]

# A stock gateway resets a connection that brings it a message of more than 10 MiB.
PIECE_BYTES = 3 << 20


def encode_value(value: Any) -> Any:  # noqa: ANN401 any value may be sent
    """Return a value in smolagents' "safe" form, ready for JSON.

    Raises:
        SerializationError: The value has no such form.
    """
    return SafeSerializer.to_json_safe(value)


def encode(variables: Mapping[str, Any], *, allow_pickle: bool) -> bytes:
    """Return the document that carries variables to the kernel.

    Args:
        variables: The values by name.
        allow_pickle: Whether a value without a safe form travels as a pickle.

    Raises:
        PayloadError: A variable can't be sent; the message names it.
    """
    document = {}
    for name, value in variables.items():
        if not isinstance(name, str):
            raise PayloadError(f"A variable's name is text, not {name!r} ({type(name).__name__})")
        document[name] = _encode_variable(name, value, allow_pickle=allow_pickle)
    return json.dumps(document).encode()


def _encode_variable(name: str, value: object, *, allow_pickle: bool) -> tuple[str, Any]:
    try:
        safe = encode_value(value)
        json.dumps(safe)
    except (SerializationError, RecursionError, ValueError, TypeError) as error:
        if not allow_pickle:
            raise PayloadError(_refusal(name, value, error)) from error
    else:
        return "safe", safe
    try:
        return "pickle", base64.b64encode(pickle.dumps(value)).decode()
    except Exception as error:
        raise PayloadError(_refusal(name, value, error)) from error


def _refusal(name: str, value: object, error: Exception) -> str:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else f"{error}"
    return (
        f"The variable {name!r} of type {type(value).__name__} can't be sent to the kernel: {reason:.500}. "
        "Send text, numbers, lists, dicts, dates, numpy arrays, PIL images or dataclasses; what can only be "
        "had on this machine, such as an open client, can be no variable of the kernel"
    )


def pieces(function: str, document: bytes) -> Iterator[str]:
    """Return the code that hands a document to a function of the prelude, in requests that a gateway takes.

    Args:
        function: The function's name, which takes a name, a piece in base64, and whether it is the last.
        document: The bytes.
    """
    name = uuid.uuid4().hex
    # IPython takes 0.3 s for each MiB of a cell's source: JSON shrinks to a third and less, at little cost.
    document = zlib.compress(document, 1)
    starts = range(0, max(len(document), 1), PIECE_BYTES)
    for start in starts:
        piece = base64.b64encode(document[start : start + PIECE_BYTES]).decode()
        last = start == starts[-1]
        yield f"__import__('_sandkernel').{function}('{name}','{piece}',{last})"
