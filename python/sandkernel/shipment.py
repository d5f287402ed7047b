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

    from sandkernel._sandkernel import Execution
    from sandkernel.plans import Plan

__all__ = ["Cut", "Piece", "Progress", "Shipment", "cuts", "discard", "size_of"]

Progress: TypeAlias = "Callable[[int, int], object]"

# A stock gateway resets a connection that brings it a message of more than 10 MiB; base64 adds a third.
PIECE_BYTES = 4 << 20
# Texts are encoded in parts: the whole of one would be there twice.
TEXT_CHARACTERS = 1 << 20
# Compressing costs more than it saves where a piece does not shrink to this part: hexadecimal digits don't.
WORTHWHILE = 0.5
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
        call: What the kernel is to execute, up to the last parenthesis.
        data: What is attached to the request.
        sent: The bytes of the shipment that are in the kernel after it.
    """

    call: str
    data: bytes | bytearray
    sent: int

    @property
    def code(self) -> str:
        """The code of the request, for a kernel that finds what is attached."""
        return f"{self.call})"

    @property
    def whole_code(self) -> str:
        """The same with what is attached in it, for a kernel that does not."""
        return f"{self.call},'{base64.b64encode(self.data).decode()}')"


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
        self._receiver = f"{module!r},{function!r}"
        self._parts: list[bytes | memoryview | str] = [document, *buffers]
        self.size = sum(map(size_of, self._parts))
        # Whether the kernel is known to tell its code what is attached, or not known not to.
        self._attached = True

    def pieces(self) -> Iterator[Piece]:
        """Return the requests, each of a size that a gateway takes."""
        for cut in cuts(self._parts):
            sample = cut.data[:SAMPLE_BYTES]
            compressed = len(zlib.compress(sample, 1)) < WORTHWHILE * len(sample)
            arguments = f"{self._receiver},{self.name!r},{cut.number},{cut.last},{compressed}"
            call = f"__import__('_sandkernel_shipments').receive({arguments}"
            yield Piece(call, zlib.compress(cut.data, 1) if compressed else cut.data, cut.sent)

    def send(
        self, piece: Piece, execute: Callable[[str, Sequence[bytes | bytearray]], Plan[Execution]]
    ) -> Plan[Execution]:
        """Have the kernel execute the request of a piece, in the way that it understands.

        Args:
            piece: One of its own pieces.
            execute: Executes code, with buffers attached to its request.
        """
        if self._attached:
            execution = yield from execute(piece.code, (piece.data,))
            if execution.error is None or execution.error.name != "NoAttachmentError":
                return execution
            self._attached = False
        return (yield from execute(piece.whole_code, ()))


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
