"""One plan for two worlds: what is asked of the kernel, apart from how it is waited for.

A plan is a generator that yields what it needs and is sent the outcome. So each operation of an executor is
written once, and runs in a thread (`drive`) and in a task (`adrive`) alike.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sandkernel import InputRequest
from sandkernel.callbacks import Callbacks
from sandkernel.sandboxes.cancellation import in_thread

if TYPE_CHECKING:
    from sandkernel import Execution, Session

__all__ = ["Outcome", "Plan", "Request", "Work", "adrive", "astream", "drive"]

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """Code to execute.

    Attributes:
        code: The code.
        timeout: The seconds that it may take; `None` for no limit.
        ours: Whether it is our own code, of which history and output counter know nothing.
        generation: The generation of the session's kernel that it is for; `None` for any.
        on_request: Called with what the code asks on the stdin channel, where anything is to be answered; in
            a task, with the `loop` that awaits the code.
        buffers: What is attached to the request.
        callbacks: What else `Session.run` takes: `on_stdout` and the like.
    """

    code: str
    timeout: float | None
    ours: bool = True
    generation: int | None = None
    on_request: Callable[..., object] | None = None
    callbacks: Mapping[str, Any] = field(default_factory=dict)
    buffers: Sequence[bytes | bytearray] = ()


@dataclass(frozen=True)
class Work:
    """A call that waits, on this machine.

    Attributes:
        function: What is called. What it waits for follows `Cancellation.current`.
        brief: Whether it ends in moments, and must have ended before anything else is done: a task that is
            cancelled waits for it.
    """

    function: Callable[[], object]
    brief: bool = False


Plan: TypeAlias = Generator["Request | Work", Any, T]


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
                outcome = (
                    step.function()
                    if isinstance(step, Work)
                    else session.run(step.code, **_options(step), **step.callbacks)
                )
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
                    options = _options(step, asyncio.get_running_loop())
                    callbacks = Callbacks(on_request=options.pop("on_request"), **step.callbacks)
                    stream = session.astream(step.code, **options)
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
    options = _options(step, asyncio.get_running_loop())
    return await session.arun(step.code, **options, **step.callbacks)


def _options(request: Request, loop: asyncio.AbstractEventLoop | None = None) -> dict[str, Any]:
    # For a session, `None` is its own default.
    timeout = math.inf if request.timeout is None else request.timeout
    on_request = request.on_request
    if on_request is not None and loop is not None:
        on_request = functools.partial(on_request, loop=loop)
    return {
        "timeout": timeout,
        "silent": request.ours,
        "store_history": not request.ours,
        "generation": request.generation,
        "on_request": on_request,
        "buffers": request.buffers,
    }
