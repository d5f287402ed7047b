"""Whether a directory of packages still holds what was installed there.

The code of an agent runs with the user's rights: it may install into that directory, or drop a `.pth` file
there, whose lines every later interpreter would run. This is no protection from whoever means harm, who has
the user's other files as well; it keeps what one sandbox did out of the next one.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["is_unchanged", "record"]

_RECORD = ".sandkernel-listing"
# Python writes there by itself.
_BYTECODE = "__pycache__"


def record(directory: Path) -> None:
    """Write down what a directory holds."""
    (directory / _RECORD).write_text(_digest(directory))


def is_unchanged(directory: Path) -> bool:
    """Whether a directory holds what was written down: the same names, sizes and times of change.

    Bytecode does not count, and nothing is read but the listing.
    """
    try:
        return (directory / _RECORD).read_text() == _digest(directory)
    except (OSError, ValueError):
        return False


def _digest(directory: Path) -> str:
    lines = []
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(directory / below) as entries:
            for entry in entries:
                if entry.name == _BYTECODE or (not below and entry.name == _RECORD):
                    continue
                name = os.path.join(below, entry.name)  # noqa: PTH118 a `Path` for each file takes longer
                status = entry.stat(follow_symlinks=False)
                is_directory = stat.S_ISDIR(status.st_mode)
                if is_directory:
                    waiting.append(name)
                # A directory changes with its bytecode.
                what = () if is_directory else (status.st_size, status.st_mtime_ns)
                lines.append(repr((name, stat.S_IFMT(status.st_mode), *what)))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
