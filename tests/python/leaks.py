"""Finds what is left behind: processes, threads, sockets, files."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator


def _children() -> set[str]:
    found = set()
    for each in psutil.Process().children(recursive=True):
        # It may end meanwhile.
        with contextlib.suppress(psutil.NoSuchProcess):
            found.add(f"process {each.pid} {each.name()}")
    return found


def _threads() -> set[str]:
    # Threads of the modal package's own have names that Python gave them.
    names = (each.name for each in threading.enumerate())
    return {f"thread {name}" for name in names if "sandkernel" in name or "asyncio" in name}


def _sockets() -> set[str]:
    # Without the nameless pairs, by which event loops wake themselves: modal keeps one for good.
    connections = psutil.Process().net_connections("all")
    addresses = [(each.laddr, each.raddr, each.status) for each in connections if each.laddr]
    return {f"socket {local} {remote} {status}" for local, remote, status in addresses}


def _directories(prefix: str) -> set[str]:
    return {f"directory {each}" for each in Path(tempfile.gettempdir()).glob(f"{prefix}*")}


def present(prefix: str) -> set[str]:
    """What there is of this process's now, and of directories whose names begin so."""
    return _children() | _threads() | _sockets() | _directories(prefix)


def left_since(before: set[str], prefix: str, *, within: float = 20.0) -> list[str]:
    """What is there that wasn't, and does not go."""
    deadline = time.monotonic() + within
    while (left := sorted(present(prefix) - before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


@contextlib.contextmanager
def nothing_left(prefix: str, *, within: float = 20.0) -> Iterator[None]:
    """Assert that afterwards there is nothing that wasn't there before."""
    before = present(prefix)
    yield
    left = left_since(before, prefix, within=within)
    assert not left, f"left behind: {left}"
