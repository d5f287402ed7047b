"""Files on their way from one side to the other, some MiB at a time."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from sandkernel._sandkernel import printable_name
from sandkernel.exceptions import SandboxFileTooLargeError
from sandkernel.files import tree
from sandkernel.files.tree import Part
from sandkernel.plans import Deadline, Work
from sandkernel.shipment import PIECE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandkernel.files.kernel import KernelFiles
    from sandkernel.plans import Plan
    from sandkernel.shipment import Progress

__all__ = ["HostStream", "HostTree", "KernelTree", "Sink", "Source", "host_name", "parts_of", "transfer"]

# With the names of the files beside it, it makes one request.
BLOCK_BYTES = PIECE_BYTES - (512 << 10)
LEAST_BLOCK_BYTES = 64 << 10
NAMES_BYTES = 64 << 10
NAME_OVERHEAD = 64
# A transfer is given up that is slower than this, and so much time beside.
LEAST_BYTES_PER_SECOND = 16 << 10
TRANSFER_SECONDS = 300.0
# A file may hold more than its size says: those of /proc do.
PROBE_BYTES = 4 << 10


class Source(Protocol):
    """Where files come from."""

    def read(self, parts: Sequence[Part]) -> Plan[tuple[list[int], bytes] | None]:
        """Return parts, all in a row, and their lengths; `None` where they got lost on the way."""


class Sink(Protocol):
    """Where files go to."""

    def write(self, parts: Sequence[Part], lengths: Sequence[int], data: bytes) -> Plan[None]:
        """Write parts, of which each follows on what was written of its file before."""


@dataclass(frozen=True)
class KernelTree:
    """Files of the sandbox, below a root."""

    files: KernelFiles
    root: str

    def read(self, parts: Sequence[Part]) -> Plan[tuple[list[int], bytes] | None]:
        """Ask the kernel for them."""
        return (yield from self.files.read(self.root, parts))

    def write(self, parts: Sequence[Part], lengths: Sequence[int], data: bytes) -> Plan[None]:
        """Send them to the kernel."""
        yield from self.files.write(self.root, parts, lengths, data)


@dataclass(frozen=True)
class HostTree:
    """Files of this machine, below a root."""

    root: str

    def read(self, parts: Sequence[Part]) -> Plan[tuple[list[int], bytes] | None]:
        """Read them from the disk."""
        read: tuple[list[int], bytes] = yield Work(lambda: tree.read(self.root, parts), brief=True)
        return read

    def write(self, parts: Sequence[Part], lengths: Sequence[int], data: bytes) -> Plan[None]:
        """Write them to the disk, under names that control no terminal."""
        named = [part._replace(relative=host_name(part.relative)) for part in parts]
        yield Work(lambda: tree.write(self.root, named, lengths, data), brief=True)


@dataclass(frozen=True)
class HostStream:
    """One file, which an open binary file of this machine gives or takes."""

    stream: BinaryIO

    def read(self, parts: Sequence[Part]) -> Plan[tuple[list[int], bytes] | None]:
        """Read on."""
        data: bytes = yield Work(lambda: self._read(sum(part.size for part in parts)), brief=True)
        return [len(data)], data

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (piece := self.stream.read(size - len(data))):
            data += piece
        return bytes(data)

    def write(self, parts: Sequence[Part], lengths: Sequence[int], data: bytes) -> Plan[None]:  # noqa: ARG002
        """Write on."""
        yield Work(lambda: self._write(data), brief=True)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            # A raw file may take less than all of it.
            rest = rest[self.stream.write(rest) :]


def host_name(name: str) -> str:
    """Return a path of the sandbox's as it is named on this machine."""
    return os.fsdecode(printable_name(os.fsencode(name)))


def parts_of(found: Sequence[tree.Found]) -> list[Part]:
    """Return the whole of what was found, in one part for each file and directory."""
    return [
        Part(f"{each.relative}/", None, 0, 0, executable=False)
        if each.kind == tree.DIRECTORY
        else Part(each.relative, each.identity, 0, each.size, each.executable)
        for each in found
    ]


class _Queue:
    """Which parts of which files come next."""

    def __init__(self, files: Sequence[Part]) -> None:
        # Of each file what is left of it; of size 0 where that is not known.
        self._waiting = deque(files)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def next(self, block: int) -> list[Part]:
        """Return parts that make about a block."""
        parts: list[Part] = []
        room, names = block, NAMES_BYTES
        for rest in self._waiting:
            if rest.relative.endswith("/"):
                size = 0
            elif room <= 0:
                break
            else:
                size = min(rest.size or (block if rest.start else PROBE_BYTES), room)
            parts.append(rest._replace(size=size))
            room -= size
            names -= len(rest.relative) + NAME_OVERHEAD
            if names < 0:
                break
        return parts

    def advance(self, parts: Sequence[Part], lengths: Sequence[int]) -> None:
        """Take out what was carried over."""
        unfinished = []
        for part, length in zip(parts, lengths, strict=True):
            rest = self._waiting.popleft()
            known = rest.size > 0
            # A file that gives less than it was asked for has ended.
            if length == part.size > 0 and rest.size != length:
                left = rest.size - length if known else 0
                unfinished.append(rest._replace(start=rest.start + length, size=left))
        self._waiting.extendleft(reversed(unfinished))


def transfer(
    files: KernelFiles,
    source: Source,
    sink: Sink,
    parts: Sequence[Part],
    *,
    limit: int | None,
    on_progress: Progress | None,
) -> Plan[None]:
    """Carry files over.

    Args:
        files: For whom it is done.
        source: Where they come from.
        sink: Where they go to.
        parts: Each file whole. One of size 0 is read to its end, whatever that says.
        limit: The most bytes of all.
        on_progress: Called after each block with the bytes that were carried over, and with those of all.
    """
    queue, done, block = _Queue(parts), 0, BLOCK_BYTES
    total = sum(part.size for part in parts)
    deadline = Deadline(TRANSFER_SECONDS)
    while queue:
        if deadline.remaining <= 0:
            raise files.error(f"it is too slow: {done} bytes were carried over until now")
        if limit is not None and max(done, total) > limit:
            reason = f"it has {max(done, total)} bytes, and max_bytes allows {limit}"
            raise files.error(reason, SandboxFileTooLargeError)
        wanted = queue.next(block)
        read = yield from source.read(wanted)
        if read is None:
            if block <= LEAST_BLOCK_BYTES:
                raise files.lost()
            # The gateway, or the session, may take no message of that size.
            block //= 2
            continue
        lengths, data = read
        yield from sink.write(wanted, lengths, data)
        queue.advance(wanted, lengths)
        done += len(data)
        deadline.extend(len(data) / LEAST_BYTES_PER_SECOND)
        if on_progress is not None:
            on_progress(done, max(done, total))
