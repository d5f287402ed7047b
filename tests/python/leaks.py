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
    from collections.abc import Callable, Iterator


def _children() -> set[str]:
    return {f"process {each.pid} {each.name()}" for each in psutil.Process().children(recursive=True)}


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


@contextlib.contextmanager
def nothing_left(prefix: str, *, within: float = 5.0) -> Iterator[None]:
    """Assert that afterwards there is nothing that wasn't there before."""
    kinds: tuple[Callable[[], set[str]], ...] = (_children, _threads, _sockets, lambda: _directories(prefix))
    before = [kind() for kind in kinds]
    yield
    deadline = time.monotonic() + within
    while left := [each for kind, old in zip(kinds, before, strict=True) for each in sorted(kind() - old)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.02)
