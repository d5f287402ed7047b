"""Values on their way from the kernel to the host."""

from __future__ import annotations

import base64
import itertools
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from sandkernel import serialization
from sandkernel._sandkernel import printable
from sandkernel.exceptions import PayloadError
from sandkernel.plans import Deadline, within
from sandkernel.sandbox import kernel_json, presentation
from sandkernel.serialization.budget import Budget
from sandkernel.serialization.images import from_file as image_from_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sandkernel._sandkernel import Execution, Result
    from sandkernel.plans import Plan
    from sandkernel.sandbox.setup import KernelSetup
    from sandkernel.serialization import PayloadLimits

__all__ = [
    "Ticket",
    "decode",
    "fetch",
    "from_error",
    "from_results",
    "last_images",
    "output",
    "piece",
    "ticket",
]

MIME = "application/vnd.sandkernel.answer+json"
EXCEPTION = "FinalAnswerException"
PIECE_BYTES = 1 << 20
# For all the pieces of one, also where the step has no time limit.
FETCH_SECONDS = 900.0
# An answer's description has its form, and little else.
_DESCRIPTION_CHARACTERS = 1 << 10
_IMAGES = frozenset(["image/png", "image/jpeg"])
# How many are tried to be read.
_MOST_IMAGES = 100
_TICKET = re.compile(r"sandkernel:([0-9a-f]{32}):([0-9]{1,15}):([0-9]{1,15})")
_SURROGATE = re.compile("[\ud800-\udfff]")


def decode(
    form: str,
    buffers: Sequence[bytes],
    *,
    allow_pickle: bool,
    limits: PayloadLimits | None = None,
) -> Any:  # noqa: ANN401 any value may come
    """Turn what the kernel sent back into a value that can be printed.

    Args:
        form: What is sent: see `sandkernel.serialization.decode`.
        buffers: The serialized value.
        allow_pickle: Whether a pickle is loaded. Loading one runs code that the kernel chose.
        limits: What is refused.

    Raises:
        PayloadError: The payload can't be decoded, or is a pickle where none is allowed.
    """
    return _printable(serialization.decode(form, buffers, allow_pickle=allow_pickle, limits=limits))


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


def from_results(execution: Execution) -> tuple[str, list[bytes]] | None:
    """Return form and buffers of the answer that an execution published, if it did.

    The first one stands: in smolagents, `final_answer` ends the code.
    """
    for result in execution.results:
        if MIME not in result.mime_types:
            continue
        described = kernel_json.parse(result.json_of(MIME) or "", _DESCRIPTION_CHARACTERS)
        form = described.get("form") if isinstance(described, dict) else None
        # Each look at them is a copy.
        buffers = result.buffers
        if not isinstance(form, str) or not buffers:
            raise PayloadError("The final answer is malformed: it was not sent by final_answer")
        return form, buffers
    return None


def from_error(execution: Execution) -> tuple[str, list[bytes]] | None:
    """Return form and buffers of an answer that smolagents' own patched tool raised, if it did."""
    error = execution.error
    if error is None or error.name != EXCEPTION:
        return None
    form, separator, text = error.value.partition(":")
    if not separator or form not in ("safe", "pickle"):
        raise PayloadError("The final answer has an unknown form: expected the prefix 'safe:' or 'pickle:'")
    if form == "safe":
        return form, [text.encode()]
    try:
        return form, [base64.b64decode(text, validate=True)]
    except ValueError as broken:
        raise PayloadError(f"The final answer can't be decoded: {broken}") from broken


@dataclass(frozen=True)
class Ticket:
    """Stands for an answer that was published and did not arrive.

    Attributes:
        name: What the kernel knows it by.
        size: The length of its payload in bytes.
        document_size: The length of the payload's first buffer.
    """

    name: str
    size: int
    document_size: int


def ticket(execution: Execution) -> Ticket | None:
    """Return the ticket with which the code of an execution ended, if it did."""
    error = execution.error
    if error is None or error.name != EXCEPTION:
        return None
    matched = _TICKET.fullmatch(error.value)
    return Ticket(matched[1], int(matched[2]), int(matched[3])) if matched else None


def piece(execution: Execution, size: int) -> tuple[str, bytes]:
    """Return the form and the next bytes of an answer that is asked for in pieces.

    Args:
        execution: What the kernel replied.
        size: The length of the piece. A shorter one would have to be followed by more than are asked for.

    Raises:
        PayloadError: The kernel does not have it, or what it replied is not that piece.
    """
    error = execution.error
    if error is not None and error.name == "Reply":
        form, _, text = error.value.partition(":")
        try:
            payload = base64.b64decode(text, validate=True)
        except ValueError:
            payload = b""
        if len(payload) == size:
            return form, payload
    raise PayloadError("The final answer did not arrive whole: give it again, or a smaller one")


def fetch(
    ticket: Ticket, setup: KernelSetup, limits: Mapping[str, int], subject: str = "The final answer"
) -> Plan[tuple[str, list[bytes]]]:
    """Ask for an answer that did not arrive, since a gateway's output limits drop large messages.

    Args:
        ticket: What stands for it.
        setup: Of the kernel that has it.
        limits: The bytes that it may have, by the names of the settings.
        subject: What it is called where it is refused.

    Raises:
        PayloadError: It is larger, or the kernel gives no such pieces.
        ExecutionTimeout: It did not arrive in time.
    """
    for name, allowed in limits.items():
        if ticket.size > allowed:
            raise PayloadError(
                f"{subject} is too large: it takes {ticket.size} bytes, and {name} allows {allowed}. "
                "Give a summary, or a part of it"
            )
    form, payload = yield from within(Deadline(FETCH_SECONDS), _pieces(ticket, setup))
    document, beside = payload[: ticket.document_size], payload[ticket.document_size :]
    return form, [bytes(document), bytes(beside)] if beside else [bytes(document)]


def _pieces(ticket: Ticket, setup: KernelSetup) -> Plan[tuple[str, bytearray]]:
    form, payload = "safe", bytearray()
    while (left := ticket.size - len(payload)) > 0:
        call = f"answer_piece({ticket.name!r},{len(payload)},{PIECE_BYTES})"
        execution: Execution = yield setup.request(f"__import__('_sandkernel').{call}")
        form, next_piece = piece(execution, min(left, PIECE_BYTES))
        payload += next_piece
    return form, payload


def output(execution: Execution, limits: PayloadLimits, text_limit: int) -> Any:  # noqa: ANN401 text, an image or None
    """Return the value of the last expression: a PIL image where it is one, or what a plot returns.

    Otherwise it is its text (see `presentation.py`). Where there is no such value, it is the last image that
    was displayed, or else the last thing that has a text beside its type's name, as a figure of plotly's,
    which displays itself; and `None` where there is nothing of that either.

    Args:
        execution: The execution.
        limits: What an image may have.
        text_limit: The characters of what is no text of Python's, such as HTML.
    """
    # One for all images of the execution: code can display many of which none can be read.
    budget = Budget(limits)
    expressions = [result for result in execution.results if result.kind == "execute_result"]
    if expressions:
        image = _image_of(expressions[-1], budget)
        if image is None and presentation.is_drawn(expressions[-1].text):
            image = next(last_images(execution, budget), None)
        return _shown(presentation.text_of(expressions[-1], text_limit)) if image is None else image
    image = next(last_images(execution, budget), None)
    if image is not None:
        return image
    left = execution.results[execution.cleared_results :]
    texts = (presentation.rich_text(result, text_limit) for result in reversed(left))
    return _shown(next((text for text in texts if text), None))


def _shown(text: str | None) -> str | None:
    # smolagents writes it to the terminal.
    return None if text is None else printable(text)


def last_images(execution: Execution, budget: Budget) -> Iterator[Any]:
    """Yield the images that an execution displayed and that can be read, the last one first."""
    left = execution.results[execution.cleared_results :]
    displayed = (result for result in reversed(left) if not _IMAGES.isdisjoint(result.mime_types))
    for result in itertools.islice(displayed, _MOST_IMAGES):
        image = _image_of(result, budget)
        if image is not None:
            yield image


def _image_of(result: Result, budget: Budget) -> Any | None:  # noqa: ANN401 PIL is optional
    """Return the image that a result is, or `None` where it is none that can be read within the budget."""
    try:
        data = result.png or result.jpeg
        return None if data is None else image_from_file(data, budget, "the image")
    except Exception:  # noqa: BLE001 the bytes are the kernel's: whatever is wrong with them, the text is left
        return None
