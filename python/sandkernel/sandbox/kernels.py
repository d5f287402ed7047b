"""Further kernels in an executor's sandbox."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from smolagents.utils import AgentExecutionError

from sandkernel import arguments
from sandkernel.exceptions import ClosedError, ConfigurationError, SandkernelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from smolagents.local_python_executor import CodeOutput

    from sandkernel._sandkernel import Execution
    from sandkernel.integrations.smolagents.executor import KernelExecutor

__all__ = ["Kernels", "RunOutcome", "check", "run_many"]

E = TypeVar("E", bound="KernelExecutor")

# Many that start at once get into each other's way: their ports collide, and none is ready soon.
STARTS_AT_ONCE = 4


@dataclass(frozen=True)
class RunOutcome:
    """What came of one of the pieces of code that `run_many` ran.

    Attributes:
        code: The code.
        output: What `KernelExecutor.run_code_raise_errors` returns; `None` where that raises.
        error: What it raises: an `AgentExecutionError` of the code, or a `SandkernelError`; `None` where it
            returns.
        execution: The whole execution; `None` where there was none.
    """

    code: str
    output: CodeOutput | None
    error: Exception | None
    execution: Execution | None

    def result(self) -> CodeOutput:
        """Return the output, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.output


class Kernels:
    """The further kernels of one executor: they start a few at a time, and end with it."""

    def __init__(self) -> None:
        self._open: WeakSet[KernelExecutor] = WeakSet()
        self._lock = threading.Lock()
        self._starting = threading.BoundedSemaphore(STARTS_AT_ONCE)
        self._closed = threading.Event()

    def start(self, construct: Callable[[], E]) -> E:
        """Start a kernel, in turn."""
        with self._starting:
            if not self._closed.is_set():
                kernel = construct()
                with self._lock:
                    if not self._closed.is_set():
                        self._open.add(kernel)
                        return kernel
                kernel.cleanup()
        raise ClosedError("The executor was closed while a kernel was started: create a new one")

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            self._closed.set()
            kernels = list(self._open)
        # At once: each says goodbye to the gateway.
        threads = [threading.Thread(target=kernel.cleanup) for kernel in kernels]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


async def run_many(
    codes: Sequence[str],
    new_kernel: Callable[[], Awaitable[KernelExecutor]],
    run: Callable[[KernelExecutor, str], Awaitable[CodeOutput]],
    max_kernels: int,
) -> list[RunOutcome]:
    """Run each piece of code in a kernel of its own, and return what came of them in their order."""
    room = asyncio.Semaphore(max_kernels)

    async def run_one(code: str) -> RunOutcome:
        async with room:
            kernel = None
            try:
                async with await new_kernel() as kernel:
                    output = await run(kernel, code)
                    return RunOutcome(code, output, None, kernel.last_execution)
            except (AgentExecutionError, SandkernelError) as error:
                return RunOutcome(code, None, error, None if kernel is None else kernel.last_execution)

    tasks = [asyncio.create_task(run_one(code)) for code in codes]
    try:
        return await asyncio.gather(*tasks)
    except asyncio.CancelledError:
        # They are cancelled with it. Once more would break off what undoes their beginnings.
        raise
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
    finally:
        await asyncio.gather(*tasks, return_exceptions=True)


def check(codes: Sequence[str], max_kernels: int) -> list[str]:
    """Refuse at once what can't be run, and return the pieces of code.

    Raises:
        ConfigurationError: An argument can't work.
    """
    codes = arguments.texts(codes, "codes")
    if not isinstance(max_kernels, int) or max_kernels < 1:
        raise ConfigurationError(f"max_kernels is an int of at least 1, not {max_kernels!r:.60}")
    return codes
