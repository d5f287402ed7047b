"""Who is told what of an execution while it runs."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from sandkernel import _sandkernel, attendants
from sandkernel.attendants import Attendants
from sandkernel.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import Self

    from sandkernel._sandkernel import Execution, ExecutionStream, InputRequest, Result

__all__ = ["GRACE_SECONDS", "Callbacks", "attend", "attend_in_loop"]

log = logging.getLogger("sandkernel")

# How long what an interrupted execution gives out last is still handed over.
GRACE_SECONDS = 1.0

# What a terminal sends at the end of input: `input()` raises `EOFError`.
END_OF_INPUT = "\x04"


def _end_input(request: InputRequest) -> None:
    request.reply(END_OF_INPUT)


class Callbacks:
    """Hands the events of an execution to whom they concern.

    Args:
        on_stdout: As for `Session.run`.
        on_stderr: As for `Session.run`.
        on_result: As for `Session.run`.
        on_input: As for `Session.run`.
        on_request: As for `Session.run`.
        answer: Called in the place of `on_request`, with a request and with what it calls when the request
            waits no more.
        refuse: Called with a request that is not answered since too much waits already. Default: it gets the
            end of input.
        timeout: The seconds within which the events are handed over, from the first one on; `None` for no
            limit.
    """

    def __init__(
        self,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        on_result: Callable[[Result], object] | None = None,
        on_input: Callable[[InputRequest], str | Awaitable[str]] | None = None,
        on_request: Callable[[InputRequest], object] | None = None,
        *,
        answer: Callable[[InputRequest, Callable[[], object]], object] | None = None,
        refuse: Callable[[InputRequest], object] = _end_input,
        timeout: float | None = None,
    ) -> None:
        if on_input is not None and on_request is not None:
            raise ConfigurationError("there is either on_input or on_request, which take the same requests")
        self._on_stdout = on_stdout
        self._on_stderr = on_stderr
        self._on_result = on_result
        self._on_input = on_input
        self._on_request = on_request
        self._host_answer = answer
        self._refuse = refuse
        self._take: Callable[[InputRequest], bool] | None = None
        self._failure: Exception | None = None
        self._timeout = timeout
        self._end: float | None = None
        self._late = 0
        self._exit = ExitStack()

    def __bool__(self) -> bool:
        return any(
            (
                self._on_stdout,
                self._on_stderr,
                self._on_result,
                self._on_input,
                self._on_request,
                self._host_answer,
            ),
        )

    @property
    def allow_input(self) -> bool:
        """Whether `input()` in the code asks."""
        return self._on_input is not None

    def __enter__(self) -> Self:
        if inspect.iscoroutinefunction(self._on_input):
            tasks: set[asyncio.Task[None]] = set()
            self._exit.callback(lambda: [task.cancel() for task in tasks])

            waiting_bytes = 0

            def take(request: InputRequest) -> bool:
                nonlocal waiting_bytes
                size = attendants.held_by(request)
                if waiting_bytes and waiting_bytes + size > attendants.MAX_WAITING_BYTES:
                    return False

                def forget(task: asyncio.Task[None]) -> None:
                    nonlocal waiting_bytes
                    waiting_bytes -= size
                    tasks.discard(task)

                waiting_bytes += size
                task = asyncio.create_task(self._answer_in_loop(request))
                tasks.add(task)
                task.add_done_callback(forget)
                return True

            self._take = take
        elif self._on_input or self._on_request or self._host_answer:
            threads = Attendants(self._answer)
            self._exit.callback(threads.close)
            self._take = threads.take
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()
        if self._late:
            log.warning(
                "the callbacks were too slow for the timeout of %g s: they were not told %d of the outputs "
                "and results, all of which the Execution has",
                self._timeout,
                self._late,
            )

    def __call__(self, event: object) -> None:
        """Take an event."""
        if isinstance(event, _sandkernel.InputRequest):
            # Also after a failure: the code waits.
            if self._take is not None and not self._take(event):
                self._refuse(event)
            return
        if self._failure is not None:
            return
        if self._timeout is not None and self._is_late(self._timeout):
            self._late += 1
            return
        try:
            if isinstance(event, _sandkernel.Output):
                callback = self._on_stdout if event.stream == "stdout" else self._on_stderr
                if callback is not None:
                    callback(event.text)
            elif isinstance(event, _sandkernel.Result) and self._on_result is not None:
                self._on_result(event)
        except Exception as error:  # noqa: BLE001 raised at the end, when the execution is complete
            self._failure = error

    def _is_late(self, timeout: float) -> bool:
        now = time.monotonic()
        if self._end is None:
            self._end = now + timeout + GRACE_SECONDS
        return now > self._end

    def _answer(self, request: InputRequest, begun: Callable[[], object]) -> None:
        try:
            if self._host_answer is not None:
                self._host_answer(request, begun)
                return
            begun()
            if self._on_request is not None:
                self._on_request(request)
            elif self._on_input is not None:
                request.reply(_typed(self._on_input(request)))
        except Exception as error:  # noqa: BLE001 raised at the end
            self._fail(request, error)

    async def _answer_in_loop(self, request: InputRequest) -> None:
        try:
            typed = self._on_input(request) if self._on_input is not None else ""
            request.reply(_typed(await typed if inspect.isawaitable(typed) else typed))
        except Exception as error:  # noqa: BLE001 raised at the end
            self._fail(request, error)

    def _fail(self, request: InputRequest, error: Exception) -> None:
        if self._failure is None and not isinstance(error, EOFError):
            self._failure = error
        request.reply(END_OF_INPUT)

    def finish(self, stream: ExecutionStream) -> Execution:
        """Return the execution of a stream that has ended.

        Raises:
            Exception: What a callback raised, with the execution as its `.execution`.
        """
        execution = stream.execution
        if execution is None:
            raise AssertionError("a stream that has ended has its execution")
        if self._failure is not None:
            # An exception with slots takes no attribute.
            with suppress(AttributeError):
                setattr(self._failure, "execution", execution)  # noqa: B010 it is not declared
            raise self._failure
        return execution


def attend(stream: ExecutionStream, callbacks: Callbacks) -> Execution:
    """Hand the events of a stream to callbacks; return its execution.

    Raises:
        Exception: What a callback raised; see `Callbacks.finish`.
    """
    with callbacks:
        for event in stream:
            callbacks(event)
    return callbacks.finish(stream)


async def attend_in_loop(stream: ExecutionStream, callbacks: Callbacks) -> Execution:
    """Do what `attend` does, in a task."""
    with callbacks:
        try:
            async for event in stream:
                callbacks(event)
        finally:
            stream.close()
    return callbacks.finish(stream)


def _typed(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"on_input returns the text that was typed, not {type(text).__name__}")
    return text.encode(errors="replace").decode()
