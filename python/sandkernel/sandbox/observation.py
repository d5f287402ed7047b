"""What the model is shown of an execution's output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandkernel._sandkernel import overwritten, printable
from sandkernel.sandbox import presentation

if TYPE_CHECKING:
    from sandkernel._sandkernel import Execution

__all__ = ["observation", "shorten"]


def shorten(text: str, limit: int) -> str:
    """Keep the head and the tail of a text, and count what is left out between them.

    Args:
        text: The text.
        limit: How many of its characters are kept.

    Returns:
        The text itself where it is no longer than `limit`.
    """
    if len(text) <= limit:
        return text
    head, tail = limit - limit // 2, limit // 2
    lines = text.count("\n", head, len(text) - tail) + 1
    note = f"[... {len(text) - limit:,} characters in {lines:,} lines left out ...]"
    return f"{text[:head]}\n{note}\n{text[len(text) - tail :]}"


def observation(execution: Execution, limit: int) -> str:
    """Return the output of an execution as the model is to see it.

    Carriage returns are folded, and what the code cleared is left out. What was displayed, as text, follows
    what was printed.

    Args:
        execution: The execution.
        limit: The characters that are kept.
    """
    text = shorten(overwritten(execution.screen), limit)
    if execution.omitted_output_bytes:
        text += f"\n[... {execution.omitted_output_bytes:,} bytes of output were not kept ...]"
    left = execution.results[execution.cleared_results :]
    texts = [presentation.text_of(result, limit) for result in left if result.kind == "display_data"]
    displayed = [text for text in texts if text]
    if displayed:
        separator = "\n" if text and not text.endswith("\n") else ""
        text += separator + shorten("\n".join(displayed), limit) + "\n"
    # smolagents writes it to the terminal.
    return printable(text)
