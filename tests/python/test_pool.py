"""A pool of executors, on Modal and on this machine."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from modal_support import program, until
from sandkernel import LocalExecutor, ModalExecutor, SandboxPool
from sandkernel.exceptions import BootError, ClosedError, ConfigurationError

if TYPE_CHECKING:
    from sandkernel.testing import LocalModal


def full(pool: SandboxPool[Any]) -> SandboxPool[Any]:
    until(lambda: pool.ready >= pool._keeper.size)
    return pool


def test_it_hands_out_what_it_booted_and_boots_again(cloud: LocalModal) -> None:
    with SandboxPool(2, lambda: ModalExecutor([], None)) as pool:
        full(pool)
        assert len(cloud.running_sandboxes()) == pool.alive == 2
        booted = {record.id for record in cloud.running_sandboxes()}
        executor = pool.acquire()
        # Nothing is booted for it: what is there is handed out.
        assert executor.sandbox_id in booted
        assert executor("6 * 7").output == "42"
        executor("secret = 1")
        executor.cleanup()
        full(pool)
        assert len(cloud.sandboxes) == 3
        # A used one does not come back.
        with pool.acquire() as other, pytest.raises(Exception, match="NameError"):
            other("secret")
    assert len(cloud.running_sandboxes()) == 0


def test_its_bound_holds(cloud: LocalModal) -> None:
    with SandboxPool(1, ModalExecutor, maximum=2) as pool:
        first, second = pool.acquire(), pool.acquire()
        with pytest.raises(BootError, match=r"within 0\.3 s.*maximum 2"):
            pool.acquire(timeout=0.3)
        assert len(cloud.running_sandboxes()) == 2
        threading.Timer(0.2, first.cleanup).start()
        # What is cleaned up makes room.
        assert pool.acquire()("1").output == "1"
        assert len(cloud.running_sandboxes()) <= 2
        assert second("2").output == "2"


def test_the_dead_are_replaced(cloud: LocalModal) -> None:
    with SandboxPool(1, ModalExecutor, check_interval=600) as pool:
        full(pool)
        cloud.sandboxes[0].kill()
        executor = pool.acquire(timeout=60)
        assert executor("1").output == "1"
        assert executor.sandbox_id != cloud.sandboxes[0].id


def test_the_dead_are_replaced_before_anyone_asks(cloud: LocalModal) -> None:
    with SandboxPool(1, ModalExecutor, check_interval=0.2) as pool:
        full(pool)
        cloud.sandboxes[0].kill()
        until(lambda: len(cloud.sandboxes) == 2 and pool.ready == 1)
        assert pool.acquire()("1").output == "1"


def test_those_about_to_expire_are_replaced(cloud: LocalModal) -> None:
    made: list[ModalExecutor] = []

    def boot() -> ModalExecutor:
        made.append(ModalExecutor(lifetime=100))
        return made[-1]

    with SandboxPool(1, boot, check_interval=0.2) as pool:
        full(pool)
        # Half of the lifetime must be left: it is as if more than that were over.
        sandbox = made[0]._modal
        assert sandbox._expires_at is not None
        sandbox._booted_at -= timedelta(seconds=60)
        sandbox._expires_at -= timedelta(seconds=60)
        until(lambda: cloud.sandboxes[0].state == "ended")
        assert cloud.sandboxes[0].end_reason == "terminated"
        full(pool)
        assert pool.acquire() is made[1]


def test_boots_that_fail(cloud: LocalModal) -> None:
    # Who waits is told of what fails from then on, however often it has failed before.
    cloud.faults.create_fails("RESOURCE_EXHAUSTED", times=None)
    with SandboxPool(1, ModalExecutor) as pool:
        with pytest.raises(BootError, match="out of capacity"):
            pool.acquire()
        cloud.faults.clear()
        # It goes on trying.
        assert pool.acquire(timeout=60)("1").output == "1"


def test_close_ends_all(cloud: LocalModal) -> None:
    pool = SandboxPool(2, ModalExecutor)
    lent = pool.acquire()
    full(pool)
    pool.close()
    assert cloud.running_sandboxes() == []
    pool.close()
    with pytest.raises(ClosedError):
        pool.acquire()
    with pytest.raises(ClosedError):
        lent("1")


def test_close_while_it_boots(cloud: LocalModal) -> None:
    cloud.faults.refuse_connections()
    # It does not wait for what has this long: the test would not end in time.
    pool = SandboxPool(2, lambda: ModalExecutor(boot_timeout=1000))
    until(lambda: len(cloud.sandboxes) == 2)
    pool.close()
    assert cloud.running_sandboxes() == []


def test_a_pool_that_is_collected(cloud: LocalModal) -> None:
    pool = full(SandboxPool(1, ModalExecutor))
    assert len(cloud.running_sandboxes()) == 1
    del pool
    gc.collect()
    until(lambda: not cloud.running_sandboxes())


def test_an_executor_that_is_collected_makes_room(cloud: LocalModal) -> None:
    with SandboxPool(1, ModalExecutor, maximum=1) as pool:
        executor = pool.acquire()
        del executor
        gc.collect()
        assert pool.acquire(timeout=60)("1").output == "1"
    assert len(cloud.sandboxes) >= 2


def test_the_exit_of_the_interpreter(cloud: LocalModal) -> None:
    text = """
        from sandkernel import SandboxPool
        pool = SandboxPool(2)
        print(pool.acquire()("6 * 7").output, flush=True)
    """
    process = program(cloud, text)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "42\n", "")
    assert cloud.running_sandboxes() == []


def test_the_exit_while_a_sandbox_is_created(cloud: LocalModal) -> None:
    """It is undone before the SDK ends its connections, and nothing is printed."""
    cloud.faults.create_takes(2)
    text = """
        import sys
        from sandkernel import SandboxPool
        pool = SandboxPool(2)
        sys.stdin.read()
    """
    process = program(cloud, text, stdin=subprocess.PIPE)
    until(lambda: [call for call in cloud.calls if call.method == "SandboxCreateV2"])
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    assert cloud.running_sandboxes() == []


async def test_async(cloud: LocalModal) -> None:
    async with SandboxPool(2, ModalExecutor, maximum=3) as pool:
        executors = await asyncio.gather(*(pool.aacquire() for _ in range(3)))
        results = await asyncio.gather(*(executor.arun("6 * 7") for executor in executors))
        assert [result.output for result in results] == ["42"] * 3
        waiting = asyncio.create_task(pool.aacquire())
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await executors[0].aclose()
        # Nobody who gave up keeps one.
        await asyncio.to_thread(until, lambda: pool.ready == 1)
        assert pool.alive == 3
    assert cloud.running_sandboxes() == []


def test_on_this_machine() -> None:
    with SandboxPool(1, LocalExecutor) as pool:
        full(pool)
        executor = pool.acquire()
        assert executor("6 * 7").output == "42"
        executor.cleanup()
        assert pool.acquire(timeout=60)("1").output == "1"


@pytest.mark.parametrize(("size", "maximum"), [(0, None), (2, 1)])
def test_sizes_that_cannot_be(size: int, maximum: int | None) -> None:
    with pytest.raises(ConfigurationError):
        SandboxPool(size, LocalExecutor, maximum=maximum)
