"""What the model is shown of an error in its code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sandkernel._sandkernel import printable
from sandkernel.sandbox.observation import shorten

if TYPE_CHECKING:
    from sandkernel._sandkernel import ExecutionError

__all__ = ["render"]

MAX_LENGTH = 10_000
MAX_LIBRARY_FRAMES = 2

_RULE = re.compile(r"-{20,}\s*")
_HEADER = re.compile(r"\S+\s+Traceback \(most recent call last\)\s*")
_FRAME = re.compile(r"(File|Cell|Input) \S")
_MACHINERY = re.compile(
    r"File \S*([/\\](IPython|ipykernel)[/\\]|<sandkernel>)|File (<sandkernel>|sandkernel\.gateway\.)"
)
_LIBRARY = re.compile(r"File (?!tool )")


def render(error: ExecutionError) -> str:
    """Return the traceback of an error, cut down to what the agent's code can mend.

    Kept are the frames of the agent's cells and tools, and the last two of the libraries that it called; the
    frames of IPython, ipykernel and our own are left out.

    Args:
        error: An error whose traceback is IPython's.

    Returns:
        A printable text of some 10,000 characters at most.
    """
    parts = [printable(part).rstrip() for part in error.traceback]
    parts = [part for part in parts if part and not _RULE.fullmatch(part) and not _HEADER.fullmatch(part)]
    # A kernel of bash gives no name, and the exit status alone.
    name = error.name or "Error"
    summary = printable(f"{name}: {error.value}" if error.value else name)
    kept = _without_libraries([part for part in parts if not _MACHINERY.match(part)])
    if not kept:
        kept = [summary]
    elif _FRAME.match(kept[-1]):
        kept.append(summary)
    # The last part says what is wrong: it is kept before all else.
    *frames, last = kept
    last = shorten(last, MAX_LENGTH // 2)
    before = shorten("\n".join(frames), MAX_LENGTH - len(last))
    return f"{before}\n{last}" if before else last


def _without_libraries(parts: list[str]) -> list[str]:
    kept: list[str] = []
    run: list[str] = []
    for part in [*parts, ""]:
        if _FRAME.match(part) and _LIBRARY.match(part):
            run.append(_arrows(part))
            continue
        omitted = len(run) - MAX_LIBRARY_FRAMES
        if omitted > 0:
            kept.append(f"[... library frames left out: {omitted} ...]")
        kept += run[-MAX_LIBRARY_FRAMES:]
        run = []
        if part:
            kept.append(part)
    return kept


def _arrows(frame: str) -> str:
    """Keep of a library's frame its place and the lines that were running, not those around them."""
    place, *lines = frame.split("\n")
    return "\n".join([place, *(line for line in lines if line.lstrip().startswith("-"))])
