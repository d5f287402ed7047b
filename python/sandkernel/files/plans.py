"""What can be done with files, as plans."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from sandkernel.exceptions import SandboxFileNotFoundError, SandboxNotADirectoryError
from sandkernel.files import tree
from sandkernel.files.entry import FileEntry
from sandkernel.files.kernel import MAX_FILES, KernelFiles, new_name
from sandkernel.files.transfer import HostStream, HostTree, KernelTree, host_name, parts_of, transfer
from sandkernel.files.tree import Part
from sandkernel.plans import Work

if TYPE_CHECKING:
    from sandkernel.files.transfer import Source
    from sandkernel.plans import Plan
    from sandkernel.shipment import Progress

__all__ = [
    "download",
    "exists",
    "list_files",
    "make_directory",
    "read_into",
    "remove",
    "stat",
    "upload",
    "write",
]


def stat(path: str) -> Plan[FileEntry]:
    """Return what is at a path."""
    return FileEntry.of((yield from KernelFiles("look at", path).find(follow=False)))


def exists(path: str) -> Plan[bool]:
    """Return whether something is at a path."""
    try:
        yield from KernelFiles("look at", path).find(follow=True)
    except (SandboxFileNotFoundError, SandboxNotADirectoryError):
        return False
    return True


def list_files(path: str, *, recursive: bool) -> Plan[list[FileEntry]]:
    """Return what a directory holds."""
    found = yield from KernelFiles("list", path).walk(recursive=recursive, follow=False, limit=MAX_FILES)
    return sorted(map(FileEntry.of, found), key=lambda entry: entry.path)


def make_directory(path: str) -> Plan[None]:
    """Make a directory, and those that it is in."""
    yield from KernelFiles("make the directory", path).do("make_directory", path)


def remove(path: str, *, recursive: bool) -> Plan[None]:
    """Remove a file or a directory."""
    yield from KernelFiles("remove", path).do("remove", path, recursive)


def read_into(path: str, stream: BinaryIO, limit: int | None, on_progress: Progress | None) -> Plan[None]:
    """Write what a file of the sandbox holds to a stream."""
    files = KernelFiles("read", path)
    found = yield from files.find(follow=True)
    part = Part("", found.identity, 0, found.size if found.kind == tree.FILE else 0, executable=False)
    yield from transfer(
        files, KernelTree(files, found.path), HostStream(stream), [part], limit=limit, on_progress=on_progress
    )


def download(
    path: str, target: str, *, max_bytes: int | None, max_files: int, on_progress: Progress | None
) -> Plan[None]:
    """Carry a file, or a directory with all that it holds, to this machine."""
    files = KernelFiles("download", path)
    found = yield from files.find(follow=True)
    directory = found.kind == tree.DIRECTORY
    if directory:
        below = yield from files.walk(recursive=True, follow=True, limit=max_files)
        parts = parts_of(below)
        _require_different_names(files, parts)
    else:
        size = found.size if found.kind == tree.FILE else 0
        parts = [Part("", found.identity, 0, size, found.executable)]
    temporary, place = yield Work(lambda: tree.place(target, new_name()), brief=True)
    try:
        yield Work(lambda: tree.begin(temporary, place, directory=directory), brief=True)
        yield from transfer(
            files,
            KernelTree(files, found.path),
            HostTree(temporary),
            parts,
            limit=max_bytes,
            on_progress=on_progress,
        )
        yield Work(lambda: tree.finish(temporary, place), brief=True)
    except GeneratorExit:
        tree.forget(temporary)
        raise
    except BaseException:
        yield Work(lambda: tree.forget(temporary), brief=True)
        raise


def _require_different_names(files: KernelFiles, parts: list[Part]) -> None:
    """Raise where two files would have one name on this machine."""
    names: dict[str, str] = {}
    for part in parts:
        name = host_name(part.relative)
        if names.setdefault(name, part.relative) != part.relative:
            raise files.error(
                f"{names[name]!r:.200} and {part.relative!r:.200} would both be {name!r:.200} here, where no "
                "name has control characters: download them one by one"
            )


def upload(source: str, path: str, *, on_progress: Progress | None) -> Plan[FileEntry]:
    """Carry a file of this machine, or a directory with all that it holds, to the sandbox."""
    found: tree.Found = yield Work(lambda: tree.find(source, follow=True))
    if found.kind == tree.DIRECTORY:
        below = yield Work(lambda: tree.walk(found.path, recursive=True, follow=True, limit=1 << 62))
        parts, directory = parts_of(below), True
    else:
        parts, directory = parts_of([found]), False
    return (yield from _put(path, HostTree(found.path), parts, directory=directory, on_progress=on_progress))


def write(path: str, stream: BinaryIO, size: int, *, on_progress: Progress | None) -> Plan[FileEntry]:
    """Write what a stream holds to a file of the sandbox."""
    part = Part("", None, 0, size, executable=False)
    return (yield from _put(path, HostStream(stream), [part], directory=False, on_progress=on_progress))


def _put(
    path: str, source: Source, parts: list[Part], *, directory: bool, on_progress: Progress | None
) -> Plan[FileEntry]:
    files, name = KernelFiles("write", path), new_name()
    try:
        temporary, target = yield from files.begin(name, directory=directory)
        yield from transfer(
            files, source, KernelTree(files, temporary), parts, limit=None, on_progress=on_progress
        )
        yield from files.do("finish", temporary, target)
    except GeneratorExit:
        raise
    except BaseException:
        # Not what went wrong while that was undone.
        with suppress(Exception):
            yield from files.do("forget", path, name)
        raise
    return FileEntry.of((yield from KernelFiles("look at", target).find(follow=True)))
