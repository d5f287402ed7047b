"""JSON that a kernel sent, which may be hostile: objects take many times the memory of their text."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["parse"]


def parse(text: str, most: int) -> Any:  # noqa: ANN401 whatever the kernel put there
    """Return the value that a text says.

    Args:
        text: The text.
        most: The characters that it may have: a longer one is not parsed.

    Returns:
        The value; `None` where the text is longer, or is no JSON that Python reads.
    """
    if len(text) > most:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
