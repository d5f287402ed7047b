"""Processes of a sandbox: started in a session of their own, ended with all that they started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

# As on Modal, only the most recent part of a long output is kept.
OUTPUT_LIMIT = 16 * 1024 * 1024
CHUNK = 64 * 1024
NOT_FOUND_CODE = 127
NOT_EXECUTABLE_CODE = 126


class Output:
    """What a process wrote to one of its streams; any number of readers may follow it from any offset."""

    def __init__(self) -> None:
        self._start = 0
        self._data = bytearray()
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def data(self) -> bytes:
        """All that is kept."""
        return bytes(self._data)

    def append(self, data: bytes) -> None:
        """Add what the process wrote."""
        self._data += data
        surplus = len(self._data) - OUTPUT_LIMIT
        if surplus > 0:
            del self._data[:surplus]
            self._start += surplus
        self._wake()

    def close(self) -> None:
        """Tell the readers that nothing more follows."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, offset: int = 0) -> AsyncIterator[tuple[int, bytes]]:
        """Yield pieces and their offsets, until the stream ends."""
        while True:
            offset = max(offset, self._start)
            piece = bytes(self._data[offset - self._start : offset - self._start + CHUNK])
            if piece:
                yield offset, piece
                offset += len(piece)
            elif self._closed:
                return
            else:
                await self._changed.wait()


class Process:
    """One process, with its streams.

    Attributes:
        pid: Its process id; `None` if it could not be started.
        returncode: Its exit code, 128 and the signal's number if a signal ended it; `None` while it runs.
    """

    def __init__(self) -> None:
        self.stdout = Output()
        self.stderr = Output()
        self.pid: int | None = None
        self.returncode: int | None = None
        self.exited = asyncio.Event()
        self.bytes_of_stdin = 0
        self.stdin_closed = False
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], directory: Path | str
    ) -> None:
        """Start it; a program that isn't there ends it at once, as it does in a container."""
        # Not to be cancelled: asyncio would lose the pipes that it is just connecting.
        self._starting = asyncio.ensure_future(self._start(arguments, environment, directory))
        await asyncio.shield(self._starting)

    async def settled(self) -> None:
        """Wait until it has been started, if it is being started."""
        if self._starting is not None:
            await self._starting

    async def _start(
        self, arguments: Sequence[str], environment: Mapping[str, str], directory: Path | str
    ) -> None:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *arguments,
                cwd=directory,
                env=dict(environment),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self.stderr.append(f"{arguments[0]}: {error.strerror}\n".encode())
            missing = isinstance(error, FileNotFoundError)
            self._ended(NOT_FOUND_CODE if missing else NOT_EXECUTABLE_CODE)
            self.stdout.close()
            self.stderr.close()
            return
        self.pid = self._process.pid
        self._tasks = [
            asyncio.create_task(_copy(self._process.stdout, self.stdout)),
            asyncio.create_task(_copy(self._process.stderr, self.stderr)),
            asyncio.create_task(self._wait(self._process)),
        ]

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        self._ended(code if code >= 0 else 128 - code)

    def _ended(self, returncode: int) -> None:
        self.returncode = returncode
        self.exited.set()

    async def write(self, data: bytes, *, offset: int, eof: bool) -> None:
        """Write to its standard input, each byte once however often a client sends it.

        Raises:
            BrokenPipeError: The process doesn't read any more.
        """
        stream = self._process.stdin if self._process else None
        fresh = data[max(0, self.bytes_of_stdin - offset) :]
        if self.stdin_closed and not fresh:
            return
        if stream is None or self.stdin_closed or self.exited.is_set():
            raise BrokenPipeError
        if fresh:
            stream.write(fresh)
            await stream.drain()
            self.bytes_of_stdin += len(fresh)
        if eof:
            self.stdin_closed = True
            stream.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill_group(self) -> None:
        """End it and what is still in its session."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def closed(self, timeout: float) -> None:
        """Wait until its output has been read to the end, but not longer for one who holds the pipes."""
        if self._tasks:
            _, pending = await asyncio.wait(self._tasks, timeout=timeout)
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending)
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            # Unlike the streams, the transport has no public name; without this its pipes stay open.
            self._process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001
        self.stdout.close()
        self.stderr.close()


async def _copy(source: asyncio.StreamReader | None, output: Output) -> None:
    if source is None:
        return
    try:
        while data := await source.read(CHUNK):
            output.append(data)
    finally:
        output.close()


def kill_all(marker: tuple[str, str], root: int | None, *, timeout: float = 10.0) -> None:
    """Kill a process, its descendants, and every process that has `marker` in its environment.

    Kernels are started in a session of their own and outlive their gateway: neither the process group nor the
    tree finds all of them, the environment that they inherit does. Blocks until they are gone.
    """
    deadline = time.monotonic() + timeout
    while victims := _find(marker, root):
        for victim in victims:
            with contextlib.suppress(psutil.Error):
                victim.kill()
        # Not `psutil.wait_procs`: it would take the exit code of our own child from asyncio.
        while any(map(_alive, victims)):
            if time.monotonic() > deadline:
                return
            time.sleep(0.001)


def _find(marker: tuple[str, str], root: int | None) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    if root is not None:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(root)
            for each in (process, *process.children(recursive=True)):
                found[each.pid] = each
    found.update((process.pid, process) for process in marked(marker))
    return [process for process in found.values() if _alive(process)]


def marked(marker: tuple[str, str]) -> list[psutil.Process]:
    """Find the living processes that have a variable of that name and value in their environment."""
    name, value = marker
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(name) == value and _alive(process):
                processes.append(process)
    return processes


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
