"""Values on their way from the host to the kernel."""

from __future__ import annotations

import base64
import json
import pickle
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from sandkernel.exceptions import PayloadError
from sandkernel.serialization import Encoder, UnsendableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Piece", "Progress", "Shipment", "discard", "encode", "encode_value"]

Progress: TypeAlias = "Callable[[int, int], object]"

# A stock gateway resets a connection that brings it a message of more than 10 MiB; base64 adds a third.
PIECE_BYTES = 4 << 20
# Texts are encoded in parts: the whole of one would be there twice.
TEXT_CHARACTERS = 1 << 20
# Compressing costs more than it saves where a piece does not shrink to this part.
WORTHWHILE = 0.8
SAMPLE_BYTES = 16 << 10


def encode_value(value: Any) -> Any:  # noqa: ANN401 any value may be sent
    """Return a value in smolagents' "safe" form, ready for JSON.

    Raises:
        UnsendableError: The value has no such form.
    """
    return Encoder().encode(value)


@dataclass(frozen=True)
class Piece:
    """A request of a shipment.

    Attributes:
        code: What the kernel is to execute.
        sent: The bytes of the shipment that are in the kernel after it.
    """

    code: str
    sent: int


class Shipment:
    """A document and the bytes beside it, for a function of the prelude.

    Args:
        function: The function's name. It takes a name, a number, whether the piece is the last, whether it is
            compressed, and the piece in base64.
        document: JSON.
        buffers: What is beside it. Nothing is copied but for the piece that is under way.
    """

    def __init__(
        self, function: str, document: bytes, buffers: Sequence[bytes | memoryview | str] = ()
    ) -> None:
        self.name = uuid.uuid4().hex
        self._function = function
        self._parts: list[bytes | memoryview | str] = [document, *buffers]
        self._sizes = [_size(part) for part in self._parts]
        self.size = sum(self._sizes)

    def pieces(self) -> Iterator[Piece]:
        """Return the requests, each of a size that a gateway takes."""
        head = f"{json.dumps(self._sizes)}\n".encode()
        piece = bytearray(head)
        number, sent = 0, -len(head)
        for block in self._blocks():
            for start in range(0, len(block), PIECE_BYTES):
                rest = block[start : start + PIECE_BYTES]
                while len(rest):
                    if len(piece) >= PIECE_BYTES:
                        sent += len(piece)
                        yield Piece(self._code(number, piece, last=False), sent)
                        piece.clear()
                        number += 1
                    room = PIECE_BYTES - len(piece)
                    piece += rest[:room]
                    rest = rest[room:]
        yield Piece(self._code(number, piece, last=True), self.size)

    def _blocks(self) -> Iterator[memoryview]:
        for part in self._parts:
            if isinstance(part, str):
                for text in _texts(part):
                    yield memoryview(text.encode("utf-8", "surrogatepass"))
            else:
                yield memoryview(part)

    def _code(self, number: int, piece: bytearray, *, last: bool) -> str:
        sample = piece[:SAMPLE_BYTES]
        compressed = len(zlib.compress(sample, 1)) < WORTHWHILE * len(sample)
        data = base64.b64encode(zlib.compress(piece, 1) if compressed else piece).decode()
        # The kernel finds the data by the first single quote.
        call = f'{self._function}("{self.name}",{number},{last},{compressed},'
        return f"__import__('_sandkernel').{call}'{data}')"


def discard(shipment: Shipment) -> str:
    """Return the code that makes the kernel forget what has come of a shipment."""
    return f"__import__('_sandkernel').discard('{shipment.name}')"


def _texts(text: str) -> Iterator[str]:
    for start in range(0, len(text), TEXT_CHARACTERS):
        yield text[start : start + TEXT_CHARACTERS]


def _size(part: bytes | memoryview | str) -> int:
    if not isinstance(part, str) or part.isascii():
        return len(part)
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in _texts(part))


def encode(variables: Mapping[str, Any], *, allow_pickle: bool) -> Shipment:
    """Return what carries variables to the kernel.

    Args:
        variables: The values by name. They are not to change until all is sent: large ones are read then.
        allow_pickle: Whether a value without a safe form travels as a pickle.

    Raises:
        PayloadError: A variable can't be sent; the message names it, and what in it can't.
    """
    encoder = Encoder(with_buffers=True)
    entries = []
    for name, value in variables.items():
        if not isinstance(name, str):
            raise PayloadError(f"A variable's name is text, not {name!r} ({type(name).__name__})")
        form, payload = _encode_variable(encoder, name, value, allow_pickle=allow_pickle)
        entries.append(f"{json.dumps(name)}:{json.dumps([form])[:-1]},{payload}]")
    return Shipment("receive_variables", f"{{{','.join(entries)}}}".encode(), encoder.buffers)


def _encode_variable(encoder: Encoder, name: str, value: object, *, allow_pickle: bool) -> tuple[str, str]:
    mark = len(encoder.buffers)
    try:
        return "safe", json.dumps(encoder.encode(value))
    except (UnsendableError, RecursionError, ValueError, TypeError) as error:
        del encoder.buffers[mark:]
        if not allow_pickle:
            raise PayloadError(_refusal(name, value, error)) from error
    try:
        return "pickle", json.dumps(encoder.buffer(pickle.dumps(value), "bytes"))
    except Exception as error:
        raise PayloadError(_refusal(name, value, error)) from error


def _refusal(name: str, value: object, error: Exception) -> str:
    if isinstance(error, RecursionError):
        reason = "it is nested too deeply, or holds itself"
    elif isinstance(error, UnsendableError) and not error.reason.startswith("it "):
        reason = f"{name}{error.path} is {error.reason}"
    else:
        reason = str(error)
    return (
        f"The variable {name!r} of type {type(value).__name__} can't be sent to the kernel: {reason:.500}. "
        "Send text, numbers, lists, dicts, dates, numpy arrays, PIL images or dataclasses; what can only be "
        "had on this machine, such as an open client, can be no variable of the kernel"
    )
