"""What the model is shown of an execution's output."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from smolagents.monitoring import AgentLogger, LogLevel

from sandkernel._sandkernel import overwritten, printable
from sandkernel.exceptions import ConfigurationError
from sandkernel.sandbox import presentation

if TYPE_CHECKING:
    from sandkernel._sandkernel import Execution

__all__ = ["logger", "observation", "shorten"]


def logger(given: Any) -> Any:  # noqa: ANN401 smolagents takes several
    """Return the logger that was given, or a silent one for `None`.

    Raises:
        ConfigurationError: It can't be told anything in the way that smolagents has, as one of the standard
            library.
    """
    if given is None:
        return AgentLogger(level=LogLevel.OFF)
    if isinstance(given, logging.Logger) or not callable(getattr(given, "log", None)):
        raise ConfigurationError(
            f"logger is a logger of smolagents, such as smolagents.monitoring.AgentLogger(), not "
            f"{type(given).__name__}"
        )
    return given


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
    omitted = text[head : len(text) - tail]
    note = f"[... {len(omitted):,} characters in {omitted.count(chr(10)) + 1:,} lines left out ...]"
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
