"""Further kernels in a sandbox."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from sandkernel import arguments
from sandkernel.exceptions import ClosedError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from sandkernel._sandkernel import Execution

__all__ = ["Closable", "Kernels", "RunOutcome", "check", "run_many"]

T = TypeVar("T")

# Many that start at once get into each other's way: their ports collide, and none is ready soon.
STARTS_AT_ONCE = 4


class Closable(Protocol):
    """What has a kernel: a `Sandbox`, or an executor."""

    @property
    def last_execution(self) -> Execution | None:
        """The whole last execution of the user's code."""

    def close(self) -> None:
        """Delete the kernel."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


K = TypeVar("K", bound=Closable)


@dataclass(frozen=True)
class RunOutcome(Generic[T]):
    """What came of one of the pieces of code that `run_many` ran.

    Attributes:
        code: The code.
        output: What running it returns: an `Execution` of a `Sandbox`, a `CodeOutput` of an executor; `None`
            where that raises.
        error: What it raises: a `SandkernelError`, and of an executor also an `AgentExecutionError` of the
            code; `None` where it returns.
        execution: The whole execution; `None` where there was none.
    """

    code: str
    output: T | None
    error: Exception | None
    execution: Execution | None

    def result(self) -> T:
        """Return the output, or raise the error."""
        if self.error is not None:
            raise self.error
        output: Any = self.output
        return output  # type: ignore[no-any-return]


class Kernels:
    """The further kernels of one sandbox: they start a few at a time, and end with it."""

    def __init__(self) -> None:
        self._open: WeakSet[Any] = WeakSet()
        self._lock = threading.Lock()
        self._starting = threading.BoundedSemaphore(STARTS_AT_ONCE)
        self._closed = threading.Event()

    def start(self, construct: Callable[[], K]) -> K:
        """Start a kernel, in turn."""
        with self._starting:
            if not self._closed.is_set():
                kernel = construct()
                with self._lock:
                    if not self._closed.is_set():
                        self._open.add(kernel)
                        return kernel
                kernel.close()
        raise ClosedError("The sandbox was closed while a kernel was started: create a new one")

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            self._closed.set()
            kernels = list(self._open)
        # At once: each says goodbye to the gateway.
        threads = [threading.Thread(target=kernel.close) for kernel in kernels]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


async def run_many(
    codes: Sequence[str],
    new_kernel: Callable[[], Awaitable[K]],
    run: Callable[[K, str], Awaitable[T]],
    max_kernels: int,
    errors: tuple[type[Exception], ...],
) -> list[RunOutcome[T]]:
    """Run each piece of code in a kernel of its own, and return what came of them in their order.

    Args:
        codes: The pieces of code.
        new_kernel: Starts a kernel.
        run: Runs code in one.
        max_kernels: How many there are at once.
        errors: What is an outcome of a piece of code, and ends no other.
    """
    room = asyncio.Semaphore(max_kernels)

    async def run_one(code: str) -> RunOutcome[T]:
        async with room:
            kernel = None
            try:
                async with await new_kernel() as kernel:
                    output = await run(kernel, code)
                    return RunOutcome(code, output, None, kernel.last_execution)
            except errors as error:
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
