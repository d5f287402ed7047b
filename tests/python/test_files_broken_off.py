"""Transfers that are broken off, and those that go on."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from files_support import SEVERAL_BLOCKS, half_done, sandbox, session
from sandkernel import ModalExecutor, Session
from sandkernel.exceptions import ClosedError, KernelDied, SandboxFileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandkernel import Files
    from sandkernel.providers.local import LocalSandbox
    from sandkernel.testing import LocalModal

__all__ = ["sandbox", "session"]


class Stop(Exception):  # noqa: N818 no error
    pass


def first(action: Callable[[], object]) -> Callable[[int, int], None]:
    """Does something once, when the first block is there."""
    done: list[bool] = []

    def on_progress(*_: int) -> None:
        if not done:
            done.append(True)
            action()

    return on_progress


def stop() -> None:
    raise Stop


@pytest.fixture
def prepared(session: Session, sandbox: LocalSandbox, tmp_path: Path) -> Files:
    """On both sides a file and a directory that are large, and old ones in the places of new ones."""
    data = os.urandom(SEVERAL_BLOCKS)
    for root in (sandbox.directory, tmp_path):
        (root / "tree").mkdir(exist_ok=True)
        (root / "tree" / "large").write_bytes(data)
        (root / "old").write_text("old")
        (root / "old tree").mkdir(exist_ok=True)
        (root / "old tree" / "large").write_text("old")
    return session.files


TRANSFERS: dict[str, Callable[..., Any]] = {
    "upload": lambda files, here, **options: files.upload(here / "tree" / "large", "old", **options),
    "write": lambda files, _, **options: files.write("old", bytes(SEVERAL_BLOCKS), **options),
    "upload a directory": lambda files, here, **options: files.upload(here / "tree", "old tree", **options),
    "upload a new directory": lambda files, here, **options: files.upload(
        here / "tree", "new/tree", **options
    ),
    "download": lambda files, here, **options: files.download("tree/large", here / "old", **options),
    "download a directory": lambda files, here, **options: files.download(
        "tree", here / "old tree", **options
    ),
    "download a new directory": lambda files, here, **options: files.download(
        "tree", here / "new" / "tree", **options
    ),
    "read": lambda files, _, **options: files.read("tree/large", **options),
}
ASYNC_TRANSFERS: dict[str, Callable[..., Any]] = {
    "upload": lambda files, here, **options: files.aupload(here / "tree" / "large", "old", **options),
    "upload a directory": lambda files, here, **options: files.aupload(here / "tree", "old tree", **options),
    "download": lambda files, here, **options: files.adownload("tree/large", here / "old", **options),
    "download a directory": lambda files, here, **options: files.adownload(
        "tree", here / "old tree", **options
    ),
}


def assert_nothing_was_done(sandbox: LocalSandbox, here: Path) -> None:
    for root in (sandbox.directory, here):
        assert (root / "old").read_text() == "old"
        assert (root / "old tree" / "large").read_text() == "old"
        assert not (root / "new").exists()
    assert half_done(sandbox.directory, here) == []


@pytest.mark.parametrize("name", TRANSFERS)
def test_a_progress_that_raises(name: str, prepared: Files, sandbox: LocalSandbox, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        TRANSFERS[name](prepared, tmp_path, on_progress=first(stop))
    assert_nothing_was_done(sandbox, tmp_path)


@pytest.mark.parametrize("name", ["upload", "download", "upload a directory", "download a directory"])
def test_an_interrupt(name: str, prepared: Files, sandbox: LocalSandbox, tmp_path: Path) -> None:
    # From outside: it comes while something is waited for.
    interrupt = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))
    begin, blocks = first(interrupt.start), []

    def on_progress(*progress: int) -> None:
        if blocks:
            # Before all is there, in any case.
            interrupt.join()
        begin(*progress)
        blocks.append(progress)

    with pytest.raises(KeyboardInterrupt):
        TRANSFERS[name](prepared, tmp_path, on_progress=on_progress)
    interrupt.join()
    assert_nothing_was_done(sandbox, tmp_path)


@pytest.mark.parametrize("name", ASYNC_TRANSFERS)
async def test_a_task_that_is_cancelled(
    name: str, prepared: Files, sandbox: LocalSandbox, tmp_path: Path, session: Session
) -> None:
    life, begun = session.generation, asyncio.Event()
    transfer = ASYNC_TRANSFERS[name](prepared, tmp_path, on_progress=lambda *_: begun.set())
    task = asyncio.create_task(transfer)
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_was_done(sandbox, tmp_path)
    # Nor is the kernel's state lost: it is let finish the block that it is at.
    await session.arun("1")
    assert session.generation == life


# Not from outside: between two blocks it would harm nobody, since the next kernel can go on.
DIES_AT_THE_SECOND_BLOCK = """
import os, signal, _sandkernel_files
def dying(function, calls=[]):
    def call(*arguments):
        calls.append(1)
        if len(calls) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call
_sandkernel_files.{name} = dying(_sandkernel_files.{name})
"""


MOVES_A_BLOCK = {"upload": "receive_parts", "download": "read"}


@pytest.mark.parametrize("name", MOVES_A_BLOCK)
def test_a_kernel_that_dies(
    name: str, prepared: Files, sandbox: LocalSandbox, tmp_path: Path, session: Session
) -> None:
    assert prepared.read("old") == b"old"
    assert session.run(DIES_AT_THE_SECOND_BLOCK.format(name=MOVES_A_BLOCK[name])).error is None
    with pytest.raises(KernelDied):
        TRANSFERS[name](prepared, tmp_path)
    assert_nothing_was_done(sandbox, tmp_path)
    assert session.files.read("old") == b"old"


@pytest.mark.parametrize("name", ["upload", "download"])
def test_a_session_that_is_closed(name: str, prepared: Files, sandbox: LocalSandbox, tmp_path: Path) -> None:
    endpoint = sandbox.endpoint
    other = Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id)
    with pytest.raises(ClosedError):
        TRANSFERS[name](other.files, tmp_path, on_progress=first(other.close))
    assert (tmp_path / "old").read_text() == "old"
    assert half_done(tmp_path) == []
    assert prepared.read("old") == b"old"
    for left in half_done(sandbox.directory):
        left.unlink()


@pytest.mark.parametrize("name", ["download", "download a directory"])
def test_a_disk_of_this_machine_that_is_full(
    name: str, prepared: Files, sandbox: LocalSandbox, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SEVERAL_BLOCKS // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as raised:
            TRANSFERS[name](prepared, tmp_path)
        assert not isinstance(raised.value, SandboxFileError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_nothing_was_done(sandbox, tmp_path)


@pytest.mark.parametrize("name", ["upload", "upload a directory"])
def test_a_disk_of_the_sandbox_that_is_full(
    name: str, prepared: Files, sandbox: LocalSandbox, tmp_path: Path, session: Session
) -> None:
    session.run(
        "import resource; limits = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({SEVERAL_BLOCKS // 2}, limits[1]))"
    )
    try:
        with pytest.raises(SandboxFileError, match="too large"):
            TRANSFERS[name](prepared, tmp_path)
    finally:
        session.run("resource.setrlimit(resource.RLIMIT_FSIZE, limits)")
    assert_nothing_was_done(sandbox, tmp_path)


def test_a_connection_that_breaks_is_taken_up(cloud: LocalModal, tmp_path: Path) -> None:
    data = os.urandom(SEVERAL_BLOCKS)
    (tmp_path / "data").write_bytes(data)
    with ModalExecutor() as executor:
        cuts: list[int] = []

        def cut(*_: int) -> None:
            # One connection is idle now, and the one that takes its place breaks in the middle of a block.
            cuts.append(cloud.sandboxes[0].cut("reset" if len(cuts) % 2 else "close"))
            cloud.faults.cut_after(1 << 20)
            threading.Timer(0.2, cloud.faults.clear).start()

        executor.files.upload(tmp_path / "data", "data", on_progress=cut)
        digest = executor("import hashlib; hashlib.sha256(open('data', 'rb').read()).hexdigest()").output
        assert digest == repr(hashlib.sha256(data).hexdigest())
        executor.files.download("data", tmp_path / "back", on_progress=cut)
        assert (tmp_path / "back").read_bytes() == data
        assert sum(cuts) >= 4
        assert [entry.name for entry in executor.files.list() if entry.name.startswith(".sandkernel-")] == []
