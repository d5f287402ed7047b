"""What every test of the package gets: a temporary directory, and a look at what it left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from executor_support import executor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["executor", "nothing_left_behind"]

MARK = "SANDKERNEL_TEST"


def wait_until(condition: Callable[[], object], seconds: float = 15.0) -> bool:
    """Whether a condition came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def processes_with(variable: str) -> list[str]:
    """The living processes, beside this one, that have `NAME=value` in their environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            process_id = environment.parent.name
            if process_id != str(os.getpid()) and variable.encode() in environment.read_bytes().split(b"\0"):
                found.append(f"{process_id}: {environment.with_name('cmdline').read_text()}")
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Fail a test that leaves a process, a thread or a temporary directory."""
    identity = uuid.uuid4().hex
    # Short: paths of unix sockets are.
    directory = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    monkeypatch.setenv(MARK, identity)
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    threads = set(threading.enumerate())
    yield directory
    try:
        gc.collect()
        wait_until(lambda: not processes_with(f"{MARK}={identity}"), 5)
        assert processes_with(f"{MARK}={identity}") == []
        wait_until(lambda: set(threading.enumerate()) <= threads, 5)
        assert set(threading.enumerate()) - threads == set()
        assert list(directory.glob("sandkernel-*")) == []
    finally:
        shutil.rmtree(directory, ignore_errors=True)
