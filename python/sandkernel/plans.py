"""One plan for two worlds: what is asked of the kernel, apart from how it is waited for.

A plan is a generator that yields what it needs and is sent the outcome. So each operation of an executor is
written once, and runs in a thread (`drive`) and in a task (`adrive`) alike.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import math
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from sandkernel._sandkernel import InputRequest
from sandkernel.callbacks import Callbacks, attend, attend_in_loop
from sandkernel.concurrency.cancellation import in_thread
from sandkernel.exceptions import ExecutionTimeout

if TYPE_CHECKING:
    from sandkernel._sandkernel import Execution
    from sandkernel.session import Session

__all__ = ["Deadline", "Outcome", "Plan", "Request", "Work", "adrive", "astream", "drive", "stream", "within"]

T = TypeVar("T")


class Host(Protocol):
    """Answers what code asks on the stdin channel while it runs."""

    def answer(
        self, request: InputRequest, begun: Callable[[], object], loop: asyncio.AbstractEventLoop | None
    ) -> object:
        """Answer a request, in a thread of its own.

        Args:
            request: The request.
            begun: Called when what the request holds is counted as that of one which is answered. Until then
                it counts as one that waits.
            loop: The event loop that awaits the code; `None` where none does.
        """

    def refuse(self, request: InputRequest) -> object:
        """Reply at once that too much waits already for this request to be answered."""


@dataclass(frozen=True)
class Request:
    """Code to execute.

    Attributes:
        code: The code.
        timeout: The seconds that it may take; `None` for no limit.
        ours: Whether it is our own code, of which history and output counter know nothing.
        generation: The generation of the session's kernel that it is for; `None` for any.
        host: Answers what the code asks on the stdin channel; `None` where nothing is to be answered.
        buffers: What is attached to the request.
        callbacks: What else `Session.run` takes: `on_stdout` and the like.
        counted: Whether its time is part of the time limit of what is done: not so what repairs a sandbox.
    """

    code: str
    timeout: float | None
    ours: bool = True
    generation: int | None = None
    host: Host | None = None
    callbacks: Mapping[str, Any] = field(default_factory=dict)
    buffers: Sequence[bytes | bytearray] = ()
    counted: bool = True


@dataclass(frozen=True)
class Work:
    """A call that waits, on this machine. Its time is part of no time limit.

    Attributes:
        function: What is called. What it waits for follows `Cancellation.current`.
        brief: Whether it ends in moments, and must have ended before anything else is done: a task that is
            cancelled waits for it.
    """

    function: Callable[[], object]
    brief: bool = False


Plan: TypeAlias = Generator["Request | Work", Any, T]


class Deadline:
    """When all of what is done for a caller has to have ended.

    Args:
        limit: The seconds from now on.

    Attributes:
        limit: The same.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._end = time.monotonic() + limit

    @property
    def remaining(self) -> float:
        """The seconds that are left; 0 or less where it has passed."""
        return self._end - time.monotonic()

    def extend(self, seconds: float) -> None:
        """Put it off."""
        self._end += seconds

    def check(self) -> float:
        """Return the seconds that are left.

        Raises:
            ExecutionTimeout: It has.
        """
        remaining = self.remaining
        if remaining <= 0:
            raise ExecutionTimeout(f"It took longer than {self.limit:g} s")
        return remaining


def within(deadline: Deadline, plan: Plan[T]) -> Plan[T]:
    """Carry out a plan whose requests together have to end in time.

    Each gets what is left, where that is less than its own timeout, and none is begun when nothing is left:
    then `ExecutionTimeout` is raised in the plan.
    """
    try:
        step = next(plan)
        while True:
            try:
                outcome = yield from _attempt_within(deadline, step)
            except BaseException as error:  # noqa: BLE001, PERF203 the plan decides
                step = plan.throw(error)
            else:
                step = plan.send(outcome)
    except StopIteration as stop:
        value: T = stop.value
        return value


def _attempt_within(deadline: Deadline, step: Request | Work) -> Plan[Any]:
    if isinstance(step, Request) and step.counted:
        remaining = deadline.check()
        if step.timeout is None or step.timeout > remaining:
            step = dataclasses.replace(step, timeout=remaining)
        return (yield step)
    began = time.monotonic()
    try:
        return (yield step)
    finally:
        deadline.extend(time.monotonic() - began)


@dataclass(frozen=True)
class Outcome:
    """What a streamed plan returned."""

    value: Any


def drive(plan: Plan[T], session: Session) -> T:
    """Carry out a plan in this thread."""
    try:
        step = next(plan)
        while True:
            try:
                outcome = step.function() if isinstance(step, Work) else _run(step, session)
            except BaseException as error:  # noqa: BLE001, PERF203 the plan decides
                step = plan.throw(error)
            else:
                step = plan.send(outcome)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def adrive(plan: Plan[T], session: Session) -> T:
    """Carry out a plan in this task."""
    try:
        step = next(plan)
        while True:
            try:
                outcome = await _attempt(step, session)
            except BaseException as error:  # noqa: BLE001, PERF203 the plan decides
                step = plan.throw(error)
            else:
                step = plan.send(outcome)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def astream(plan: Plan[Any], session: Session) -> AsyncGenerator[Any, None]:
    """Carry out a plan in this task, and yield the events of code that is not ours; at last, an `Outcome`."""
    try:
        step = next(plan)
        while True:
            try:
                if isinstance(step, Request) and not step.ours:
                    callbacks = _callbacks(step, asyncio.get_running_loop())
                    stream = session.astream(step.code, **_options(step))
                    with callbacks:
                        try:
                            async for event in stream:
                                callbacks(event)
                                if not isinstance(event, InputRequest):
                                    yield event
                        finally:
                            # Whoever stops listening stops the code.
                            stream.close()
                    outcome: object = stream.execution
                else:
                    outcome = await _attempt(step, session)
            except GeneratorExit:  # noqa: PERF203
                plan.close()
                raise
            except BaseException as error:  # noqa: BLE001 the plan decides
                step = plan.throw(error)
            else:
                step = plan.send(outcome)
    except StopIteration as stop:
        outcome = Outcome(stop.value)
    yield outcome


def stream(plan: Plan[Any], session: Session) -> Generator[Any, None, None]:
    """Carry out a plan in this thread, and yield the events of code that is not ours; then an `Outcome`."""
    try:
        step = next(plan)
        while True:
            try:
                if isinstance(step, Request) and not step.ours:
                    callbacks = _callbacks(step)
                    events = session.stream(step.code, **_options(step))
                    with callbacks, closing(events):
                        # Whoever stops listening stops the code.
                        for event in events:
                            callbacks(event)
                            if not isinstance(event, InputRequest):
                                yield event
                    outcome: object = events.execution
                else:
                    outcome = step.function() if isinstance(step, Work) else _run(step, session)
            except GeneratorExit:  # noqa: PERF203
                plan.close()
                raise
            except BaseException as error:  # noqa: BLE001 the plan decides
                step = plan.throw(error)
            else:
                step = plan.send(outcome)
    except StopIteration as stop:
        outcome = Outcome(stop.value)
    yield outcome


def _run(request: Request, session: Session) -> Execution:
    callbacks = _callbacks(request)
    if not callbacks:
        return session.run(request.code, **_options(request))
    return attend(session.stream(request.code, **_options(request)), callbacks)


async def _attempt(step: Request | Work, session: Session) -> Execution | object:
    if isinstance(step, Work):
        if not step.brief:
            return await in_thread(step.function)
        work = asyncio.ensure_future(asyncio.to_thread(step.function))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work})
            raise
    callbacks = _callbacks(step, asyncio.get_running_loop())
    if not callbacks:
        return await session.arun(step.code, **_options(step))
    return await attend_in_loop(session.astream(step.code, **_options(step)), callbacks)


def _callbacks(request: Request, loop: asyncio.AbstractEventLoop | None = None) -> Callbacks:
    host = request.host
    if host is None:
        return Callbacks(**request.callbacks)
    answer = functools.partial(host.answer, loop=loop)
    return Callbacks(answer=answer, refuse=host.refuse, **request.callbacks)


def _options(request: Request) -> dict[str, Any]:
    # For a session, `None` is its own default.
    timeout = math.inf if request.timeout is None else request.timeout
    return {
        "timeout": timeout,
        "silent": request.ours,
        "store_history": not request.ours,
        "generation": request.generation,
        "buffers": request.buffers,
    }
