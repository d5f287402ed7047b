"""What is sent to the kernel in requests that a gateway takes."""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Cut", "Piece", "Progress", "Shipment", "cuts", "discard", "size_of"]

Progress: TypeAlias = "Callable[[int, int], object]"

# A stock gateway resets a connection that brings it a message of more than 10 MiB; base64 adds a third.
PIECE_BYTES = 4 << 20
# Texts are encoded in parts: the whole of one would be there twice.
TEXT_CHARACTERS = 1 << 20
# Compressing costs more than it saves where a piece does not shrink to this part.
WORTHWHILE = 0.8
SAMPLE_BYTES = 16 << 10


class Cut(NamedTuple):
    """Some bytes of what is sent in pieces.

    Attributes:
        number: How many come before it.
        data: The bytes. They are let go when the next are asked for.
        last: Whether it is the last.
        sent: How many bytes of the whole are in it and those before it.
    """

    number: int
    data: bytearray
    last: bool
    sent: int


def cuts(parts: Sequence[bytes | memoryview | str]) -> Iterator[Cut]:
    """Return pieces of a size that a gateway takes; the first begins with a line, the JSON of the sizes."""
    head = f"{json.dumps([size_of(part) for part in parts])}\n".encode()
    piece = bytearray(head)
    number, sent = 0, -len(head)
    for block in _blocks(parts):
        for start in range(0, len(block), PIECE_BYTES):
            rest = block[start : start + PIECE_BYTES]
            while len(rest):
                if len(piece) >= PIECE_BYTES:
                    sent += len(piece)
                    yield Cut(number, piece, last=False, sent=sent)
                    piece.clear()
                    number += 1
                room = PIECE_BYTES - len(piece)
                piece += rest[:room]
                rest = rest[room:]
    yield Cut(number, piece, last=True, sent=sent + len(piece))


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
    """A document and the bytes beside it, for a function of ours in the kernel.

    Args:
        module: The function's module.
        function: The function's name. It takes what the document says, and the list of what is beside it.
        document: JSON.
        buffers: What is beside it. Nothing is copied but for the piece that is under way.
    """

    def __init__(
        self, module: str, function: str, document: bytes, buffers: Sequence[bytes | memoryview | str] = ()
    ) -> None:
        self.name = uuid.uuid4().hex
        self._receiver = f'"{module}","{function}"'
        self._parts: list[bytes | memoryview | str] = [document, *buffers]
        self.size = sum(map(size_of, self._parts))

    def pieces(self) -> Iterator[Piece]:
        """Return the requests, each of a size that a gateway takes."""
        for cut in cuts(self._parts):
            yield Piece(self._code(cut.number, cut.data, last=cut.last), cut.sent)

    def _code(self, number: int, piece: bytearray, *, last: bool) -> str:
        sample = piece[:SAMPLE_BYTES]
        compressed = len(zlib.compress(sample, 1)) < WORTHWHILE * len(sample)
        data = base64.b64encode(zlib.compress(piece, 1) if compressed else piece).decode()
        # The kernel finds the data by the first single quote after the call's name.
        arguments = f'{self._receiver},"{self.name}",{number},{last},{compressed}'
        return f"__import__('_sandkernel_shipments').receive({arguments},'{data}')"


def discard(shipment: Shipment) -> str:
    """Return the code that makes the kernel forget what has come of a shipment."""
    return f"__import__('_sandkernel_shipments').discard('{shipment.name}')"


def _blocks(parts: Sequence[bytes | memoryview | str]) -> Iterator[memoryview]:
    for part in parts:
        if isinstance(part, str):
            for text in _texts(part):
                yield memoryview(text.encode("utf-8", "surrogatepass"))
        else:
            yield memoryview(part)


def _texts(text: str) -> Iterator[str]:
    for start in range(0, len(text), TEXT_CHARACTERS):
        yield text[start : start + TEXT_CHARACTERS]


def size_of(part: bytes | memoryview | str) -> int:
    """Return how many bytes a part takes."""
    if not isinstance(part, str) or part.isascii():
        return len(part)
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in _texts(part))
