"""What every test of the package gets: a temporary directory, and a look at what it left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shutil
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from smolagents import FinalAnswerTool

from executor_support import executor
from modal_support import cloud, local_modal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["cloud", "executor", "local_modal", "nothing_left_behind"]

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
    # Not by `glob`, which raises where a process ends meanwhile.
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or process.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(f"{process.name}: {(process / 'cmdline').read_text()}")
    return found


# The thread of Modal's SDK, and the pool of its event loop: they stay for the life of the process.
OF_MODALS_SDK = re.compile(r"asyncio_\d+|Thread-\d+ \(thread_inner\)")


def threads_beside(known: set[threading.Thread]) -> set[threading.Thread]:
    """The threads that are not known, without those that nobody can end."""
    return {
        thread for thread in set(threading.enumerate()) - known if not OF_MODALS_SDK.fullmatch(thread.name)
    }


@pytest.fixture(scope="session", autouse=True)
def base_directory_of_pytest(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have pytest choose it now, not inside the directory of the first test that asks for one."""
    tmp_path_factory.getbasetemp()


@pytest.fixture(autouse=True)
def final_answers_as_smolagents_made_them() -> Iterator[None]:
    """Undo what smolagents' own remote executors do to its method, for the rest of the process."""
    attributes = vars(FinalAnswerTool.forward)
    before = dict(attributes)
    yield
    attributes.clear()
    attributes.update(before)


@pytest.fixture(autouse=True)
def nothing_left_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Fail a test that leaves a process, a thread or a temporary directory."""
    # Made now: otherwise it were in the directory of the first test that asks for it.
    tmp_path_factory.getbasetemp()
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
        wait_until(lambda: threads_beside(threads) == set(), 5)
        assert threads_beside(threads) == set()
        assert [*directory.glob("sandkernel-*"), *directory.glob("jupyter-*")] == []
    finally:
        shutil.rmtree(directory, ignore_errors=True)
