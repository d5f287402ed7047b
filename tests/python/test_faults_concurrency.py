"""Threads and tasks that share an executor, and many sessions in one process."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from sandkernel import LocalExecutor, Session
from sandkernel.providers.local import LocalSandbox
from waiting import time_limits, wait_until, write_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandkernel.providers.endpoint import Endpoint

STEPS = 8
LINES = 6
SESSIONS, KERNELS = 64, 4
# Each line in one piece: `print` writes its end by itself, and the other stream may come between.
TALKS = f"""
import sys
for line in range({LINES}):
    sys.stdout.write(f'{{name}} {{{{line}}}}\\n')
    if line % 3 == 0:
        sys.stdout.flush()
    sys.stderr.write(f'{{name}} {{{{line}}}}\\n')
'{{name}}'
"""


def stdout_of(name: str) -> str:
    return "".join(f"{name} {line}\n" for line in range(LINES))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with LocalSandbox() as sandbox:
        yield sandbox.endpoint


def in_threads(*functions: Callable[[], None]) -> None:
    """Run functions at once, and raise what the first of them raises."""
    failures: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 raised below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def check(executor: LocalExecutor, name: str) -> Callable[[], None]:
    def steps() -> None:
        for step in range(STEPS):
            output = executor(TALKS.format(name=f"{name}{step}"))
            lines = output.logs.splitlines(keepends=True)
            assert {line.split()[0] for line in lines} == {f"{name}{step}"}
            assert sorted(lines) == sorted(2 * stdout_of(f"{name}{step}").splitlines(keepends=True))
            assert output.output == repr(f"{name}{step}")

    return steps


async def acheck(executor: LocalExecutor, name: str) -> None:
    for step in range(STEPS):
        output = await executor.arun(TALKS.format(name=f"{name}{step}"))
        assert {line.split()[0] for line in output.logs.splitlines()} == {f"{name}{step}"}
        assert output.output == repr(f"{name}{step}")


def test_two_threads_on_one_executor(executor: LocalExecutor) -> None:
    in_threads(check(executor, "first"), check(executor, "second"))


def test_a_thread_and_tasks_on_one_executor(executor: LocalExecutor) -> None:
    async def tasks() -> None:
        await asyncio.gather(acheck(executor, "task"), acheck(executor, "other"))

    in_threads(check(executor, "thread"), lambda: asyncio.run(tasks()))


def test_threads_are_served_in_the_order_of_their_calls(executor: LocalExecutor) -> None:
    executor("import time; order = []; time.sleep(0)")
    threads = []
    with executor._turns.take():
        # Each one is in the queue before the next one is started.
        for number in range(6):
            code = f"time.sleep({0.02 * (6 - number)}); order.append({number})"
            threads.append(threading.Thread(target=executor, args=(code,)))
            threads[-1].start()
            assert wait_until(lambda waiting=number + 1: len(executor._turns._waiting) == waiting)
    for thread in threads:
        thread.join()
    assert executor("order").output == "[0, 1, 2, 3, 4, 5]"


def test_64_sessions_in_one_process(endpoint: Endpoint) -> None:
    """Half of them in threads; every kernel's output goes to all of its sessions, and each takes its own."""
    owners = [Session.connect(endpoint.url, endpoint.token) for _ in range(KERNELS)]
    threads_before = threading.active_count()

    def connect(number: int) -> dict[str, str]:
        return {"kernel_id": owners[number % KERNELS].kernel_id}

    def use(number: int) -> None:
        with Session.connect(endpoint.url, endpoint.token, timeout=60, **connect(number)) as session:
            execution = session.run(TALKS.format(name=f"s{number}"))
            assert (execution.stdout, execution.text) == (stdout_of(f"s{number}"), repr(f"s{number}"))

    async def ause() -> None:
        sessions = await asyncio.gather(
            *(
                Session.aconnect(endpoint.url, endpoint.token, timeout=60, **connect(number))
                for number in range(SESSIONS // 2)
            )
        )
        # Those that wait are there, and no thread more.
        assert threading.active_count() <= threads_before + SESSIONS // 2 + 1
        executions = await asyncio.gather(
            *(session.arun(TALKS.format(name=f"a{number}")) for number, session in enumerate(sessions))
        )
        for number, execution in enumerate(executions):
            assert (execution.stdout, execution.text) == (stdout_of(f"a{number}"), repr(f"a{number}"))
        await asyncio.gather(*(session.aclose() for session in sessions))

    try:
        in_threads(
            lambda: asyncio.run(ause()),
            *(lambda number=number: use(number) for number in range(SESSIONS // 2)),
        )
    finally:
        for owner in owners:
            owner.close()


def test_a_callback_that_raises_has_the_execution_with_it(endpoint: Endpoint) -> None:
    def on_stdout(text: str) -> None:
        raise LookupError(text)

    async def twin(session: Session) -> None:
        await session.arun("print('told')\n7", on_stdout=on_stdout)

    with Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id, timeout=60) as session:
        for run in (
            lambda: session.run("print('told')\n7", on_stdout=on_stdout),
            lambda: asyncio.run(twin(session)),
        ):
            with pytest.raises(LookupError, match="told") as raised:
                run()
            execution = raised.value.execution  # type: ignore[attr-defined]
            assert (execution.stdout, execution.text) == ("told\n", "7")


def test_a_callback_that_raises_in_an_interrupted_execution(endpoint: Endpoint) -> None:
    """Of two errors the one of the execution is raised: it has the execution with it as well."""

    def on_stdout(text: str) -> None:
        raise LookupError(text)

    with Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id) as session:
        for limit in time_limits():
            with pytest.raises(TimeoutError) as raised:
                session.run(f"{write_line('told')}\nwhile True: pass", timeout=limit, on_stdout=on_stdout)
            execution = raised.value.execution  # type: ignore[attr-defined]
            if execution is not None and execution.stdout:
                break
    assert execution.stdout == "told\n"
