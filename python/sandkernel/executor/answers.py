"""Values on their way from the kernel to the host."""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from smolagents.serialization import SafeSerializer

from sandkernel.exceptions import PayloadError

if TYPE_CHECKING:
    from sandkernel import Execution, Result

__all__ = ["Ticket", "decode", "from_error", "from_results", "output", "piece", "ticket"]

MIME = "application/vnd.sandkernel.answer+json"
EXCEPTION = "FinalAnswerException"
_TICKET = re.compile(r"sandkernel:([0-9a-f]{32}):([0-9]{1,15})")
_SURROGATE = re.compile("[\ud800-\udfff]")


def decode(form: str, payload: bytes, *, allow_pickle: bool) -> Any:  # noqa: ANN401 any value may come
    """Turn what the kernel sent back into a value.

    Args:
        form: `"safe"` (smolagents' JSON format) or `"pickle"`.
        payload: The serialized value.
        allow_pickle: Whether a pickle is loaded. Loading one runs code that the kernel chose.

    Raises:
        PayloadError: The payload can't be decoded, or is a pickle where none is allowed.
    """
    if form == "pickle" and not allow_pickle:
        raise PayloadError("The final answer is a pickle, and allow_pickle is False: it was not loaded")
    if form not in ("safe", "pickle"):
        raise PayloadError(
            f"The final answer has the unknown form {form[:40]!r}: expected 'safe' or 'pickle'"
        )
    try:
        if form == "pickle":
            return _printable(pickle.loads(payload))  # noqa: S301 the user asked for it
        return _printable(SafeSerializer.from_json_safe(json.loads(payload)))
    except (Exception, RecursionError) as error:
        message = f"The final answer can't be decoded ({len(payload)} bytes, form {form!r}): {error!r:.500}"
        raise PayloadError(message) from error


def _printable(value: Any) -> Any:  # noqa: ANN401 any value may come
    """Replace the lone surrogates of a text or path by U+FFFD, as in all other output.

    smolagents prints the answer, and no terminal takes a lone surrogate: the agent's run would end with an
    error. Within a list or a dict they stay: those are printed with escapes.
    """
    if isinstance(value, (str, PurePath)):
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            text = _SURROGATE.sub("\ufffd", text)
            return text if isinstance(value, str) else type(value)(text)
    return value


def from_results(execution: Execution) -> tuple[str, bytes] | None:
    """Return form and payload of the answer that an execution published, if it did.

    The first one stands: in smolagents, `final_answer` ends the code.
    """
    for result in execution.results:
        described = result.data.get(MIME)
        if described is None:
            continue
        form = described.get("form") if isinstance(described, dict) else None
        if not isinstance(form, str) or len(result.buffers) != 1:
            raise PayloadError("The final answer is malformed: it was not sent by final_answer")
        return form, bytes(result.buffers[0])
    return None


def from_error(execution: Execution) -> tuple[str, bytes] | None:
    """Return form and payload of an answer that smolagents' own patched tool raised, if it did."""
    error = execution.error
    if error is None or error.name != EXCEPTION:
        return None
    form, separator, text = error.value.partition(":")
    if not separator or form not in ("safe", "pickle"):
        raise PayloadError("The final answer has an unknown form: expected the prefix 'safe:' or 'pickle:'")
    if form == "safe":
        return form, text.encode()
    try:
        return form, base64.b64decode(text, validate=True)
    except binascii.Error as broken:
        raise PayloadError(f"The final answer can't be decoded: {broken}") from broken


@dataclass(frozen=True)
class Ticket:
    """Stands for an answer that was published and did not arrive.

    Attributes:
        name: What the kernel knows it by.
        size: The length of its payload in bytes.
    """

    name: str
    size: int


def ticket(execution: Execution) -> Ticket | None:
    """Return the ticket with which the code of an execution ended, if it did."""
    error = execution.error
    if error is None or error.name != EXCEPTION:
        return None
    matched = _TICKET.fullmatch(error.value)
    return Ticket(matched[1], int(matched[2])) if matched else None


def piece(execution: Execution) -> tuple[str, bytes]:
    """Return the form and the next bytes of an answer that is asked for in pieces.

    Raises:
        PayloadError: The kernel does not have it, or what it replied is no piece.
    """
    error = execution.error
    if error is not None and error.name == "Reply":
        form, _, text = error.value.partition(":")
        try:
            payload = base64.b64decode(text, validate=True)
        except binascii.Error:
            payload = b""
        if payload:
            return form, payload
    raise PayloadError("The final answer did not arrive whole: give it again, or a smaller one")


def output(execution: Execution) -> Any:  # noqa: ANN401 text, an image or None
    """Return the value of the last expression: its text, or a PIL image where it is one.

    Where there is no such value, it is the last image that was displayed, and `None` where there is none
    either.
    """
    expressions = [result for result in execution.results if result.kind == "execute_result"]
    if expressions:
        image = _image(expressions[-1])
        return expressions[-1].text if image is None else image
    images = (_image(result) for result in reversed(execution.results))
    return next((image for image in images if image is not None), None)


def _image(result: Result) -> Any | None:  # noqa: ANN401 PIL is optional
    try:
        data = result.png or result.jpeg
        if data is None:
            return None
        from PIL import Image  # noqa: PLC0415 optional

        return Image.open(io.BytesIO(data))
    except Exception:  # noqa: BLE001 the bytes are the kernel's: whatever is wrong with them, the text is left
        return None
