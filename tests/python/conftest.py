"""What every test of the package gets: a temporary directory, and a look at what it left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shutil
import signal
import tempfile
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from smolagents import FinalAnswerTool

from executor_support import executor
from modal_support import cloud, local_modal
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cloud", "executor", "local_modal", "nothing_left_behind", "wait_until"]

MARK = "SANDKERNEL_TEST"


# The same examples in each run, and no clock: `make fuzz` looks for others.
hypothesis.settings.register_profile(
    "suite",
    database=None,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")
# It would be in the directory that it is used from.
hypothesis.configuration.set_hypothesis_home_dir(Path(__file__).parents[2] / ".hypothesis")


def pytest_configure() -> None:
    """Take Ctrl-C: a shell has what it starts in the background ignore it, and the programs of tests too."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """Have more workers than cores: for half of its time a test waits, for a process or for a timeout."""
    return 2 * (os.cpu_count() or 1)


# The files that take longest. A file is for one worker: all others would wait for one that begins last.
LONG = (
    "test_slow_way.py",
    "test_modal_smolagents.py",
    "test_faults_reboot.py",
    "test_serialization_kernel.py",
    "test_modal_lifecycle.py",
    "test_local_packages.py",
    "test_faults_replay.py",
    "test_other_servers.py",
    "test_executor_deadlines.py",
    "test_pool.py",
    "test_kernel_failures.py",
    "test_deadlines_of_connecting.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """Keep what the modules of all tests hold out of the garbage collection after each test."""
    gc.collect()
    gc.freeze()


def processes_with(*variables: str) -> list[str]:
    """The living processes, beside this one, that have one of `NAME=value` in their environment."""
    wanted = {variable.encode() for variable in variables}
    found = []
    # Not by `glob`, which raises where a process ends meanwhile.
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or process.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            if not wanted.isdisjoint((process / "environ").read_bytes().split(b"\0")):
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
def working_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run in a directory that no other process has; what outlives a test makes its directories beside it.

    A file of a relative path is written there, by this process or by a gateway that inherits its directory.
    """
    # Chosen now, not inside the directory of the first test that asks for one.
    tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        # Short: paths of unix sockets are.
        directory = Path(tempfile.mkdtemp(prefix="s-", dir="/tmp"))
        patch.setenv("TMPDIR", str(directory))
        patch.setattr(tempfile, "tempdir", None)
        (directory / "work").mkdir()
        patch.chdir(directory / "work")
        yield directory / "work"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def final_answers_as_smolagents_made_them() -> Iterator[None]:
    """Undo what smolagents' own remote executors do to its method, for the rest of the process."""
    attributes = vars(FinalAnswerTool.forward)
    before = dict(attributes)
    yield
    attributes.clear()
    attributes.update(before)


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch, working_directory: Path) -> Iterator[Path]:
    """Fail a test that leaves a process, a thread, a temporary directory or a file of a relative path."""
    identity = uuid.uuid4().hex
    # Short: paths of unix sockets are.
    directory = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    monkeypatch.setenv(MARK, identity)
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    # The first is not among what local sandboxes are given.
    marks = (f"{MARK}={identity}", f"TMPDIR={directory}")
    threads = set(threading.enumerate())
    yield directory
    try:
        gc.collect()
        wait_until(lambda: not processes_with(*marks), 20)
        assert processes_with(*marks) == []
        wait_until(lambda: threads_beside(threads) == set(), 20)
        assert threads_beside(threads) == set()
        assert [*directory.glob("sandkernel-*"), *directory.glob("jupyter-*")] == []
        left = sorted(path.name for path in working_directory.iterdir())
        assert left == [], "the test, or a gateway that it started, wrote to a relative path"
    finally:
        # Not the directory itself: gateways of the file's other tests run in it.
        for left_behind in working_directory.iterdir():
            shutil.rmtree(left_behind) if left_behind.is_dir() else left_behind.unlink()
        shutil.rmtree(directory, ignore_errors=True)
