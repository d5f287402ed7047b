"""The files of a sandbox, as a user has them."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from sandkernel.exceptions import ConfigurationError
from sandkernel.files import plans
from sandkernel.files.kernel import MAX_FILES

if TYPE_CHECKING:
    import builtins

    from typing_extensions import Buffer

    from sandkernel.files.entry import FileEntry
    from sandkernel.plans import Plan
    from sandkernel.shipment import Progress

__all__ = ["Files"]

T = TypeVar("T")

GIBIBYTE = 1 << 30


class _Drive(Protocol):
    def __call__(self, plan: Plan[T]) -> T: ...


class _AsyncDrive(Protocol):
    async def __call__(self, plan: Plan[T]) -> T: ...


class Files:
    """The files of a sandbox, as the code in its kernel sees them.

    A relative path is relative to the kernel's working directory. Each call waits for what the kernel is
    doing. Nothing is left half done: what is written takes its target's place at the end, in the sandbox and
    on this machine, and a call that fails, is interrupted (Ctrl-C) or is cancelled leaves what was there
    before. A connection that breaks meanwhile is taken up where it was, as for executions. And each call has
    an end: a request has two minutes, and a transfer is given up that takes five minutes longer than it would
    at 16 KiB a second.

    The sandbox is not trusted: no name that it tells leads out of the directory that is downloaded to, and
    what is received is bounded. Whoever may write to its files decides what they hold.

    Each method has an async twin: `aread`, `awrite` and so on.

    Every method raises, beside what it names:

    - `SandboxFileError`, and where it fits one that is also a `FileNotFoundError`, `FileExistsError`,
      `IsADirectoryError`, `NotADirectoryError` or `PermissionError`, where the sandbox refuses;
    - `ConfigurationError` for an argument that can't work;
    - `UnsupportedKernelError` where the kernel does not run Python;
    - what `Session.run` raises where the kernel or the connection fails.
    """

    def __init__(self, drive: _Drive, adrive: _AsyncDrive) -> None:
        self._drive = drive
        self._adrive = adrive

    # Looking.

    def list(
        self, path: str | os.PathLike[str] = ".", *, recursive: bool = False
    ) -> builtins.list[FileEntry]:
        """Return what a directory holds, sorted by path.

        Args:
            path: The directory.
            recursive: Whether what its directories hold counts too. Symbolic links are not followed.

        Raises:
            SandboxFileTooLargeError: It holds more than 100,000 entries: list its directories one by one.
        """
        return self._drive(plans.list_files(_path(path), recursive=recursive))

    async def alist(
        self, path: str | os.PathLike[str] = ".", *, recursive: bool = False
    ) -> builtins.list[FileEntry]:
        """Do what `list` does."""
        return await self._adrive(plans.list_files(_path(path), recursive=recursive))

    def stat(self, path: str | os.PathLike[str]) -> FileEntry:
        """Return what is at a path. A symbolic link is not followed."""
        return self._drive(plans.stat(_path(path)))

    async def astat(self, path: str | os.PathLike[str]) -> FileEntry:
        """Do what `stat` does."""
        return await self._adrive(plans.stat(_path(path)))

    def exists(self, path: str | os.PathLike[str]) -> bool:
        """Return whether a file or a directory is at a path."""
        return self._drive(plans.exists(_path(path)))

    async def aexists(self, path: str | os.PathLike[str]) -> bool:
        """Do what `exists` does."""
        return await self._adrive(plans.exists(_path(path)))

    # Contents.

    def read(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int | None = GIBIBYTE,
        on_progress: Progress | None = None,
    ) -> bytes:
        """Return what a file holds; `download` does not keep it in memory.

        Args:
            path: The file.
            max_bytes: The most bytes to take; `None` for no limit.
            on_progress: Called after each few MiB with the bytes that are here and those of all. What it
                raises breaks the reading off.

        Raises:
            SandboxFileTooLargeError: It holds more than `max_bytes`.
        """
        stream = io.BytesIO()
        self._drive(plans.read_into(_path(path), stream, max_bytes, on_progress))
        return stream.getvalue()

    async def aread(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int | None = GIBIBYTE,
        on_progress: Progress | None = None,
    ) -> bytes:
        """Do what `read` does."""
        stream = io.BytesIO()
        await self._adrive(plans.read_into(_path(path), stream, max_bytes, on_progress))
        return stream.getvalue()

    def write(
        self,
        path: str | os.PathLike[str],
        data: str | Buffer | BinaryIO,
        *,
        on_progress: Progress | None = None,
    ) -> FileEntry:
        """Write a file, and the directories that it is in where they are missing.

        Args:
            path: The file. One that is there is replaced, and its permissions are kept.
            data: Text (in UTF-8), bytes, or a file open for reading bytes, of any size.
            on_progress: Called after each few MiB with the bytes that were sent and those of all, as far as
                that is known. What it raises breaks the writing off.

        Returns:
            What is there now.
        """
        return self._drive(plans.write(_path(path), *_stream(data), on_progress=on_progress))

    async def awrite(
        self,
        path: str | os.PathLike[str],
        data: str | Buffer | BinaryIO,
        *,
        on_progress: Progress | None = None,
    ) -> FileEntry:
        """Do what `write` does."""
        return await self._adrive(plans.write(_path(path), *_stream(data), on_progress=on_progress))

    # To and from this machine's files.

    def upload(
        self,
        source: str | os.PathLike[str],
        path: str | os.PathLike[str],
        *,
        on_progress: Progress | None = None,
    ) -> FileEntry:
        """Copy a file or a directory of this machine to the sandbox.

        Of a directory, all that it holds is copied; what is in the sandbox beside it stays. Symbolic links
        are followed; what is neither file nor directory is left out. Whether a file is executable is kept.

        Args:
            source: The file or the directory here.
            path: What it becomes in the sandbox: not the directory that it is put into.
            on_progress: Called after each few MiB with the bytes that were sent and those of all. What it
                raises breaks the upload off.

        Returns:
            What is there now.

        Raises:
            OSError: The file here can't be read.
        """
        return self._drive(plans.upload(_path(source), _path(path), on_progress=on_progress))

    async def aupload(
        self,
        source: str | os.PathLike[str],
        path: str | os.PathLike[str],
        *,
        on_progress: Progress | None = None,
    ) -> FileEntry:
        """Do what `upload` does."""
        return await self._adrive(plans.upload(_path(source), _path(path), on_progress=on_progress))

    def download(
        self,
        path: str | os.PathLike[str],
        target: str | os.PathLike[str] | BinaryIO,
        *,
        max_bytes: int | None = 16 * GIBIBYTE,
        max_files: int = MAX_FILES,
        on_progress: Progress | None = None,
    ) -> None:
        r"""Copy a file or a directory of the sandbox to this machine.

        Of a directory, all that it holds is copied; what is here beside it stays. Symbolic links are followed
        in the sandbox, and none is made here; what is neither file nor directory is left out. Whether a file
        is executable is kept. A control character in a name, or one that changes the direction of text, is
        written as its number here, as in `bell\x07.txt`.

        Args:
            path: The file or the directory in the sandbox.
            target: What it becomes here: not the directory that it is put into; or, for a file, one that is
                open for writing bytes.
            max_bytes: The most bytes to take; `None` for no limit.
            max_files: The most files and directories that a directory may hold.
            on_progress: Called after each few MiB with the bytes that are here and those of all. What it
                raises breaks the download off.

        Raises:
            SandboxFileTooLargeError: There are more bytes, or more files.
            OSError: The file here can't be written.
        """
        self._drive(_download(path, target, max_bytes, max_files, on_progress))

    async def adownload(
        self,
        path: str | os.PathLike[str],
        target: str | os.PathLike[str] | BinaryIO,
        *,
        max_bytes: int | None = 16 * GIBIBYTE,
        max_files: int = MAX_FILES,
        on_progress: Progress | None = None,
    ) -> None:
        """Do what `download` does."""
        await self._adrive(_download(path, target, max_bytes, max_files, on_progress))

    # Making and removing.

    def make_directory(self, path: str | os.PathLike[str]) -> None:
        """Make a directory, and those that it is in; one that is there already is as good."""
        self._drive(plans.make_directory(_path(path)))

    async def amake_directory(self, path: str | os.PathLike[str]) -> None:
        """Do what `make_directory` does."""
        await self._adrive(plans.make_directory(_path(path)))

    def remove(self, path: str | os.PathLike[str], *, recursive: bool = False) -> None:
        """Remove a file, a symbolic link or a directory.

        Args:
            path: What to remove.
            recursive: Whether a directory may hold something, which is removed too.
        """
        self._drive(plans.remove(_path(path), recursive=recursive))

    async def aremove(self, path: str | os.PathLike[str], *, recursive: bool = False) -> None:
        """Do what `remove` does."""
        await self._adrive(plans.remove(_path(path), recursive=recursive))


def _download(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str] | BinaryIO,
    max_bytes: int | None,
    max_files: int,
    on_progress: Progress | None,
) -> Plan[None]:
    if not isinstance(target, (str, os.PathLike)):
        return plans.read_into(_path(path), _writable(target), max_bytes, on_progress)
    options: dict[str, Any] = {"max_bytes": max_bytes, "max_files": max_files, "on_progress": on_progress}
    return plans.download(_path(path), _path(target), **options)


def _path(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise ConfigurationError(f"a path is a str or an os.PathLike of one, not {type(path).__name__}")
    if not text or "\0" in text:
        raise ConfigurationError(f"the path {text!r:.100} can't be one: it is empty, or holds a NUL")
    return text


def _writable(target: Any) -> BinaryIO:  # noqa: ANN401 whatever the user gave
    if not hasattr(target, "write") or isinstance(target, io.TextIOBase):
        raise ConfigurationError(
            f"the target is a path or a file open for writing bytes, not {type(target).__name__}"
        )
    stream: BinaryIO = target
    return stream


def _stream(data: Any) -> tuple[BinaryIO, int]:  # noqa: ANN401 whatever the user gave
    """Return what data is read from, and its size; 0 where that is not known."""
    if isinstance(data, str):
        try:
            data = data.encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"the text is not valid Unicode: {error}") from None
    if isinstance(data, io.TextIOBase):
        raise ConfigurationError("the file is open for reading text: open it with mode 'rb'")
    try:
        view = memoryview(data).cast("B")
    except TypeError:
        if not hasattr(data, "read"):
            raise ConfigurationError(
                f"data is text, bytes or a file open for reading bytes, not {type(data).__name__}"
            ) from None
        return data, _size(data)
    # Of bytes, this is no copy.
    return io.BytesIO(data if isinstance(data, bytes) else view), len(view)


def _size(stream: BinaryIO) -> int:
    try:
        position = stream.tell()
        size = stream.seek(0, os.SEEK_END) - position
        stream.seek(position)
    except (OSError, AttributeError):
        return 0
    return max(size, 0)
