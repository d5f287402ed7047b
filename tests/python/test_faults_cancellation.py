"""Ctrl-C and cancellation at any moment: who leaves comes away soon, and nothing goes on without them."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from sandkernel import LocalExecutor
from waiting import auntil

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOB = random.Random(1).randbytes(12 << 20)


class SilentIndex:
    """A package index that takes connections and never answers."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._taken: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/simple"
        self.environment = {"UV_DEFAULT_INDEX": url, "PIP_INDEX_URL": url}

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._taken.append(self._listener.accept()[0])
                self.asked.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in (self._listener, *self._taken):
            each.close()


@pytest.fixture
def silent_index() -> Iterator[SilentIndex]:
    index = SilentIndex()
    yield index
    index.close()


def left(directory: Path) -> list[str]:
    """What of ours there is at this moment, without waiting for it to go."""
    return [str(each) for each in (*directory.glob("sandkernel-*"), *installers())]


def installers() -> list[psutil.Process]:
    found = []
    for each in psutil.Process().children(recursive=True):
        # It may end meanwhile.
        with suppress(psutil.NoSuchProcess):
            if each.name() == "uv":
                found.append(each)
    return found


@contextmanager
def ctrl_c_once(event: threading.Event) -> Iterator[None]:
    """Press Ctrl-C after an event, which has to come before the end of what is done."""
    is_over = False

    def press() -> None:
        event.wait()
        if not is_over:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        is_over = True
        event.set()
        pressing.join()


# While it boots.


@pytest.mark.parametrize("seconds", [0, 0.02, 0.1, 0.3, 0.6])
async def test_a_cancelled_creation(seconds: float, nothing_left_behind: Path) -> None:
    task = asyncio.create_task(LocalExecutor.acreate())
    await asyncio.sleep(seconds)
    task.cancel()
    with suppress(asyncio.CancelledError):
        # On a quick machine it was there already.
        (await task).cleanup()
    assert left(nothing_left_behind) == []


async def test_many_cancelled_creations(nothing_left_behind: Path) -> None:
    """More than asyncio's pool has threads: what breaks them off waits for none of them."""
    tasks = [asyncio.create_task(LocalExecutor.acreate()) for _ in range(10)]
    await asyncio.sleep(0.2)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        # Where this loop had no turn for long, it was there already.
        if isinstance(outcome, LocalExecutor):
            outcome.cleanup()
        else:
            assert isinstance(outcome, asyncio.CancelledError)
    assert left(nothing_left_behind) == []


async def test_a_creation_that_is_cancelled_twice(nothing_left_behind: Path) -> None:
    task = asyncio.create_task(LocalExecutor.acreate())
    await auntil(lambda: left(nothing_left_behind))
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left(nothing_left_behind) == []


@pytest.mark.parametrize("seconds", [0.05, 0.3])
def test_ctrl_c_while_it_boots(seconds: float, nothing_left_behind: Path) -> None:
    text = """
        from sandkernel import LocalExecutor
        try:
            print("ready", flush=True)
            while True:
                LocalExecutor().cleanup()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    program = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    time.sleep(seconds)
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=60) == ("interrupted\n", "")
    assert left(nothing_left_behind) == []


# While packages are installed, from an index that never answers.


async def test_a_creation_that_is_cancelled_while_packages_are_installed(
    silent_index: SilentIndex, nothing_left_behind: Path
) -> None:
    options = {"environment": silent_index.environment}
    task = asyncio.create_task(LocalExecutor.acreate(["sandnowhere"], **options))
    await asyncio.to_thread(silent_index.asked.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left(nothing_left_behind) == []


def test_ctrl_c_in_the_constructor_while_packages_are_installed(
    silent_index: SilentIndex, nothing_left_behind: Path
) -> None:
    with ctrl_c_once(silent_index.asked):
        LocalExecutor(["sandnowhere"], environment=silent_index.environment)
    assert left(nothing_left_behind) == []


def test_an_installation_that_is_left(silent_index: SilentIndex) -> None:
    with LocalExecutor(timeout=60, environment=silent_index.environment) as executor:
        with ctrl_c_once(silent_index.asked):
            executor.install_packages(["sandnowhere"])
        assert executor("6 * 7").output == "42"
        silent_index.asked.clear()

        async def cancelled() -> None:
            task = asyncio.create_task(executor.ainstall_packages(["sandnowhere"]))
            await asyncio.to_thread(silent_index.asked.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancelled())
        assert executor("6 * 7").output == "42"
        assert executor.installed_packages == []
        assert installers() == []


# While variables travel.


def test_ctrl_c_while_variables_travel(executor: LocalExecutor) -> None:
    begun, blocks = threading.Event(), []

    def on_progress(sent: int, of: int) -> None:
        begun.set()
        blocks.append(sent)
        if len(blocks) > 1 and sent < of:
            # It comes while something is waited for; before all is there, in any case.
            time.sleep(60)

    with ctrl_c_once(begun):
        executor.send_variables({"blob": BLOB, "other": 1}, on_progress=on_progress)
    assert executor("'blob' in globals(), 'other' in globals()").output == "(False, False)"
    # Nor does the kernel keep the part that it had.
    assert executor("__import__('_sandkernel_shipments')._arrival").output is None
    executor.send_variables({"blob": b"small"})
    assert executor("blob").output == "b'small'"


async def test_cancelled_while_variables_travel(executor: LocalExecutor) -> None:
    begun = asyncio.Event()
    task = asyncio.create_task(executor.asend_variables({"later": BLOB}, on_progress=lambda *_: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await executor.arun("'later' in globals()")).output == "False"
