"""Files of an executor's sandbox."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from executor_support import running_gateway
from files_support import SEVERAL_BLOCKS
from sandkernel import GatewayExecutor, ModalExecutor, Session
from sandkernel.exceptions import ClosedError, SandboxGone
from sandkernel.providers.local import LocalSandbox
from waiting import wait_for_file, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandkernel import LocalExecutor


def test_the_code_and_the_host_see_the_same_files(executor: LocalExecutor, tmp_path: Path) -> None:
    executor.files.write("numbers.csv", "1\n2\n3\n")
    code = "total = sum(map(int, open('numbers.csv')))\nopen('total.txt', 'w').write(str(total))"
    executor(code)
    executor.files.download("total.txt", tmp_path / "total.txt")
    assert (tmp_path / "total.txt").read_text() == "6"


def test_files_wait_for_their_turn(executor: LocalExecutor, tmp_path: Path) -> None:
    """And executions for theirs: what was asked for first is done first."""
    wait = f"{wait_for_file(tmp_path / 'go')}before = os.path.exists('turn')"
    blocks: list[tuple[int, int]] = []

    def put() -> None:
        executor.files.write("turn", os.urandom(SEVERAL_BLOCKS), on_progress=lambda *of: blocks.append(of))

    def queued() -> int:
        return len(executor._turns._waiting) + (executor._turns._turn is not None)

    threads: list[threading.Thread] = []
    last = "after = os.path.getsize('turn')"
    for target in (lambda: executor(wait), put, lambda: executor(last)):
        threads.append(threading.Thread(target=target))
        threads[-1].start()
        assert wait_until(lambda: queued() == len(threads))
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join()
    assert len(blocks) == 3
    assert executor("before, after").output == f"(False, {SEVERAL_BLOCKS})"


async def test_a_task_may_wait_too(executor: LocalExecutor) -> None:
    await asyncio.gather(
        executor.arun("import time; time.sleep(0.1); made = 1"), executor.files.awrite("task", "x")
    )
    assert (await executor.files.aread("task")) == b"x"
    assert (await executor.arun("made")).output == "1"


def test_a_closed_executor(local: LocalSandbox) -> None:
    endpoint = local.endpoint
    with GatewayExecutor(url=endpoint.url, token=endpoint.token) as executor:
        files = executor.files
    with pytest.raises(ClosedError):
        files.list()


@pytest.fixture(scope="module")
def local() -> Iterator[LocalSandbox]:
    with LocalSandbox() as sandbox:
        yield sandbox


def test_a_session_that_takes_little(local: LocalSandbox) -> None:
    endpoint, data = local.endpoint, os.urandom(SEVERAL_BLOCKS)
    options = {"kernel_id": endpoint.kernel_id, "max_result_bytes": 300_000}
    with Session.connect(endpoint.url, endpoint.token, **options) as session:  # type: ignore[arg-type]
        session.files.write("data", data)
        assert session.files.read("data") == data


def test_a_gateway_with_output_limits(tmp_path: Path) -> None:
    data = os.urandom(SEVERAL_BLOCKS)
    with running_gateway() as gateway, GatewayExecutor(url=gateway.url, token=gateway.token) as executor:
        # The gateway's own directory is this one's.
        executor(f"import os; os.chdir({str(tmp_path)!r})")
        executor.files.write("data", data)
        executor.files.download("data", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == data
        # And the output of the code comes as before.
        assert executor("print('x' * 100_000); 'value'").output == "'value'"
        assert executor.last_execution is not None
        assert len(executor.last_execution.stdout) == 100_001


@pytest.mark.usefixtures("cloud")
def test_a_sandbox_that_is_gone() -> None:
    with ModalExecutor() as executor:
        executor.files.write("x", "1")
        executor.sandbox.terminate()
        with pytest.raises(SandboxGone):
            executor.files.read("x")
