"""Files and directories, on whichever side they are.

Runs on the host, and as a text of its own inside the kernel, as the module `_sandkernel_tree`: it knows
nothing of sandkernel, needs the standard library alone, and runs on Python 3.8.

What is written is written beside its target, under another name, and takes the target's place at the end.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE, DIRECTORY, SYMLINK, OTHER = "file", "directory", "symlink", "other"
EXECUTABLE = 0o111


class TooManyFilesError(Exception):
    """A directory holds more than was allowed."""


class Found(NamedTuple):
    """What was found at a path.

    Attributes:
        relative: The path below where the search began, with slashes.
        path: The absolute path.
        kind: `file`, `directory`, `symlink` or `other`.
        size: Bytes.
        modified: Nanoseconds since 1970.
        executable: Whether somebody may execute it.
        identity: What tells a file from another one that has taken its place.
    """

    relative: str
    path: str
    kind: str
    size: int
    modified: int
    executable: bool
    identity: str


class Part(NamedTuple):
    """A part of a file; a directory's name ends with a slash, and it has no bytes.

    Attributes:
        relative: The file's path below the root; empty for the root itself.
        identity: The file's, where it must be the same as before.
        start: The first byte.
        size: The bytes, or fewer where the file ends.
        executable: Whether the file may be executed.
    """

    relative: str
    identity: str | None
    start: int
    size: int
    executable: bool


def find(path: str, *, follow: bool) -> Found:
    """Return what is at a path; of a symbolic link, where `follow` says so, what it leads to."""
    path = os.path.abspath(path)
    return _found("", path, os.stat(path, follow_symlinks=follow))


def walk(top: str, *, recursive: bool, follow: bool, limit: int) -> list[Found]:
    """Return what a directory holds, each directory before what it holds itself.

    Args:
        top: The directory.
        recursive: Whether what its directories hold counts too.
        follow: Whether links are followed. Then what is neither file nor directory is left out, and so are
            links that lead nowhere or to a directory that they are in.
        limit: The most entries.

    Raises:
        TooManyFilesError: There are more.
    """
    top = os.path.abspath(top)
    found: list[Found] = []
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (_identity(os.stat(top)),))]
    while waiting:
        below, ancestors = waiting.pop()
        for name in sorted(os.listdir(_join(top, below))):
            relative = _join(below, name) if below else name
            path = _join(top, relative)
            try:
                each = _found(relative, path, os.stat(path, follow_symlinks=follow))
            except OSError as error:
                # It is gone by now, or a link that leads nowhere.
                if error.errno in (errno.ENOENT, errno.ELOOP):
                    continue
                raise
            if follow and (each.kind == OTHER or each.identity in ancestors):
                continue
            if len(found) == limit:
                raise TooManyFilesError(f"{top} holds more than {limit} files and directories")
            found.append(each)
            if recursive and each.kind == DIRECTORY:
                waiting.append((relative, (*ancestors, each.identity)))
    return found


def read(root: str, parts: Sequence[Part]) -> tuple[list[int], bytes]:
    """Return the bytes of parts of files below a root, all in a row, and how many each part has."""
    lengths, data = [], bytearray()
    for relative, identity, start, size, _ in parts:
        before = len(data)
        if not relative.endswith("/"):
            _read(_join(root, relative), identity, start, size, data)
        lengths.append(len(data) - before)
    return lengths, bytes(data)


def write(root: str, parts: Sequence[Part], lengths: Sequence[int], data: bytes) -> None:
    """Write what `read` returned below another root."""
    rest = memoryview(data)
    for (relative, _, start, _, executable), length in zip(parts, lengths):
        path = _join(root, relative)
        if relative.endswith("/"):
            os.makedirs(path, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            if executable and start == 0:
                _make_executable(path)
            _write(descriptor, rest[:length], start)
        finally:
            os.close(descriptor)
        rest = rest[length:]


def place(target: str, name: str) -> tuple[str, str]:
    """Return where something of that name waits to become the target, and the target's real path."""
    target = os.path.realpath(target)
    parent = os.path.dirname(target)
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    return os.path.join(parent, name), target


def begin(temporary: str, target: str, *, directory: bool) -> None:
    """Make what is to become the target; refuse at once what can't become it."""
    if directory:
        if os.path.lexists(target) and not os.path.isdir(target):
            _refuse(errno.ENOTDIR, target)
        os.makedirs(temporary, exist_ok=True)
    else:
        if os.path.isdir(target):
            _refuse(errno.EISDIR, target)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))


def finish(temporary: str, target: str) -> None:
    """Let what was written take the target's place; a directory that is there already is added to."""
    if not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
    if not os.path.isdir(temporary):
        _replace(temporary, target)
        return
    if not os.path.lexists(target):
        os.rename(temporary, target)
        return
    found = walk(temporary, recursive=True, follow=False, limit=1 << 62)
    # All or nothing, as far as can be known.
    for each in found:
        path = _join(target, each.relative)
        if each.kind == DIRECTORY and os.path.lexists(path) and not _is_directory(path):
            _refuse(errno.ENOTDIR, path)
        if each.kind == FILE and _is_directory(path):
            _refuse(errno.EISDIR, path)
    for each in found:
        path = _join(target, each.relative)
        if each.kind == DIRECTORY:
            os.makedirs(path, exist_ok=True)
        else:
            _replace(each.path, path)
    forget(temporary)


def forget(temporary: str) -> None:
    """Remove what was written and is not wanted any more."""
    if _is_directory(temporary):
        shutil.rmtree(temporary, ignore_errors=True)
    elif os.path.lexists(temporary):
        os.unlink(temporary)


def _join(root: str, relative: str) -> str:
    return os.path.join(root, relative) if relative else root


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _refuse(number: int, path: str) -> NoReturn:
    raise OSError(number, os.strerror(number), path)


def _identity(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


def _found(relative: str, path: str, status: os.stat_result) -> Found:
    mode = status.st_mode
    kind = (
        FILE
        if stat.S_ISREG(mode)
        else DIRECTORY
        if stat.S_ISDIR(mode)
        else SYMLINK
        if stat.S_ISLNK(mode)
        else OTHER
    )
    executable = kind == FILE and bool(mode & EXECUTABLE)
    return Found(relative, path, kind, status.st_size, status.st_mtime_ns, executable, _identity(status))


def _read(path: str, identity: str | None, start: int, size: int, data: bytearray) -> None:
    # Without waiting for what can only be told from a file once it is open.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            _refuse(errno.EISDIR, path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "It is no regular file", path)
        if identity is not None and identity != _identity(status):
            raise OSError(errno.ESTALE, "Another file took its place meanwhile", path)
        while size > 0:
            piece = os.pread(descriptor, size, start)
            if not piece:
                break
            data += piece
            start += len(piece)
            size -= len(piece)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: memoryview, start: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, start)
        data = data[written:]
        start += written


def _make_executable(path: str) -> None:
    # For whoever may read it.
    mode = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(path, mode | (mode & 0o444) >> 2)


def _replace(new: str, old: str) -> None:
    """Put a file in the place of another one, whose permissions it keeps."""
    try:
        mode = stat.S_IMODE(os.stat(old, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        pass
    else:
        executable = os.stat(new).st_mode & EXECUTABLE
        os.chmod(new, mode)
        if executable:
            _make_executable(new)
    os.replace(new, old)
