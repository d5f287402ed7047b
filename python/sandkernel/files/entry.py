"""What is told of a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from sandkernel.exceptions import SandboxFileError
from sandkernel.files import tree

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FIELDS", "FileEntry", "Kind", "found_in"]

Kind: TypeAlias = Literal["file", "directory", "symlink", "other"]

_KINDS = frozenset([tree.FILE, tree.DIRECTORY, tree.SYMLINK, tree.OTHER])
FIELDS = len(tree.Found._fields)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_DIGITS = 19


@dataclass(frozen=True)
class FileEntry:
    """A file or a directory of a sandbox.

    Attributes:
        name: The last part of its path.
        path: The absolute path in the sandbox.
        kind: `"file"`, `"directory"`, `"symlink"` (which is not followed) or `"other"`: a device, a socket.
        size: Bytes; of a directory, what the sandbox's system says.
        modified: When its content last changed, in UTC.
    """

    name: str
    path: str
    kind: Kind
    size: int
    modified: datetime

    @classmethod
    def of(cls, found: tree.Found) -> FileEntry:
        """Return what a sandbox found, as the user is told it."""
        try:
            modified = _EPOCH + timedelta(microseconds=found.modified // 1000)
        except OverflowError:
            modified = _EPOCH
        name = os.path.basename(found.path) or "/"  # noqa: PTH119 a path of the sandbox's
        return cls(name, found.path, cast("Kind", found.kind), found.size, modified)


def found_in(fields: Sequence[bytes]) -> list[tree.Found]:
    """Return what a kernel says that it found.

    Raises:
        SandboxFileError: It is malformed.
    """
    if len(fields) % FIELDS:
        raise SandboxFileError("The kernel's list of files is malformed: it has fields left over")
    return [_found(fields[start : start + FIELDS]) for start in range(0, len(fields), FIELDS)]


def _found(fields: Sequence[bytes]) -> tree.Found:
    relative, path, kind, size, modified, executable, identity = map(os.fsdecode, fields)
    numbers = _is_number(size) and _is_number(modified.removeprefix("-"))
    if kind not in _KINDS or not numbers or not _is_honest(relative, path):
        raise SandboxFileError(f"The kernel's list of files is malformed at {path[:200]!r}")
    return tree.Found(relative, path, kind, int(size), int(modified), executable == "1", identity)


def _is_honest(relative: str, path: str) -> bool:
    """Whether a name leads to nothing but what is below where it was found, on the host too."""
    parts = (relative or path[1:]).split("/")
    above = any(part in {"", ".", ".."} for part in parts) and path != "/"
    return path.startswith("/") and path.endswith(f"/{relative}" if relative else "") and not above


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS
