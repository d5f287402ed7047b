"""Lets code use the event loop that it runs in as a program uses its own.

Code of a cell runs inside the kernel's own event loop. So `asyncio.run(main())`, with which every program
begins, is refused there; and `loop.stop()`, or a task that calls `sys.exit()`, ends the kernel. Here

* a loop of its own runs inside the kernel's one, in the same thread, while that stands still as it does for
  any other code: `asyncio.run`, `asyncio.Runner`, `run_until_complete` and `run_forever` of another loop;
* the kernel's own loop goes on inside itself for `run_until_complete` and `run_forever`;
* the kernel's own loop ends by a request to shut down alone, or where code has closed the kernel's sockets.

The kernels of gateways of ours have this from their start on, others by the executor, which sends this file:
so it imports nothing else of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import os
import signal
import sys
import threading
from typing import Any, Callable, Iterator

events: Any = asyncio.events
tasks: Any = asyncio.tasks
HERE = sys._getframe().f_code.co_filename
OF_ASYNCIO = os.path.dirname(asyncio.__file__)


def run_inside() -> None:
    """Have kernels come up with it."""
    kernel: Any = importlib.import_module("ipykernel.kernelbase").Kernel
    start = kernel.start

    def start_with_it(self: Any) -> None:
        start(self)
        install(self)

    kernel.start = start_with_it


def install(kernel: Any) -> None:
    """Let the code of a kernel use its event loop, and other ones inside it."""
    outer = getattr(kernel, "io_loop", None)
    loop = getattr(outer, "asyncio_loop", None)
    if hasattr(kernel, "_sandkernel_event_loop") or not isinstance(loop, asyncio.BaseEventLoop):
        return
    kernel._sandkernel_event_loop = KernelLoop(kernel, outer, loop)
    kernel._sandkernel_event_loop.keep_running()
    loop.call_soon(kernel._sandkernel_event_loop.keep_serving)
    nest(threading.main_thread().ident)


class KernelLoop:
    """The event loop of a kernel."""

    def __init__(self, kernel: Any, outer: Any, loop: Any) -> None:
        self._kernel = kernel
        self._outer = outer
        self._loop = loop
        self._run_once, self._stop, self._close = loop._run_once, loop.stop, outer.close
        owners: Any = [getattr(kernel, name, None) for name in ("iopub_thread", "shell_stream")]
        self._owners: Any = [owner for owner in owners if getattr(owner, "socket", None) is not None]
        self._run_code = getattr(getattr(type(kernel.shell), "run_code", None), "__code__", None)

    def keep_running(self) -> None:
        """Have it run until a request to shut down."""
        if not hasattr(self._kernel, "_shutdown_message"):
            return
        self._loop._run_once, self._loop.stop, self._outer.close = self.run_once, self.stop, self.close

    def keep_serving(self) -> None:
        """Have the task that takes requests, up to ipykernel 6, replaced where it ends."""
        serve = getattr(self._kernel, "dispatch_queue", None)
        for task in asyncio.all_tasks(self._loop):
            if getattr(task.get_coro(), "__name__", "") == getattr(serve, "__name__", None):
                task.add_done_callback(self._serve_again)

    def _serve_again(self, _: Any) -> None:
        # Code that cancels all tasks of its loop means its own.
        if self._kernel._shutdown_message is None and self._loop.is_running():
            self._loop.create_task(self._kernel.dispatch_queue()).add_done_callback(self._serve_again)

    def run_once(self) -> None:
        """Do what is to be done now."""
        try:  # noqa: SIM105 nothing is to be made for each turn
            self._run_once()
        except (SystemExit, KeyboardInterrupt):
            # It has ended a task, or was for code that had just ended.
            pass
        if self._is_cut_off() and self._kernel._shutdown_message is None:
            # Whoever waits for it would wait for ever: the gateway tells of a kernel that has ended.
            os._exit(1)

    def _is_cut_off(self) -> bool:
        """Whether code has closed what the kernel takes requests by, or tells what comes of them."""
        for owner in self._owners:
            socket = owner.socket
            if socket is None or getattr(socket, "closed", False):
                return True
        return False

    def stop(self) -> None:
        """End the code that asks for it; a callback has no code to end."""
        if self._kernel._shutdown_message is not None:
            self._loop._sandkernel_is_ending = True
            self._stop()
        elif getattr(self._loop, "_sandkernel_depth", 0):
            self._stop()
        elif threading.current_thread() is threading.main_thread() and self._is_called_by_a_cell():
            raise SystemExit

    def close(self, *arguments: Any, **options: Any) -> None:
        """Refuse, before anything is undone, what is refused while it runs."""
        if self._loop.is_running():
            raise RuntimeError("Cannot close a running event loop")
        self._close(*arguments, **options)

    def _is_called_by_a_cell(self) -> bool:
        frame: Any = sys._getframe(2)
        while frame is not None and frame.f_code is not events.Handle._run.__code__:
            if frame.f_code is self._run_code:
                return True
            frame = frame.f_back
        return False


def nest(thread: Any) -> None:
    """Have event loops run inside running ones, in a thread.

    Elsewhere they behave as ever.
    """
    base: Any = asyncio.BaseEventLoop
    run_until_complete, run_forever = base.run_until_complete, base.run_forever

    @functools.wraps(run_until_complete)
    def complete_inside(self: Any, future: Any) -> Any:
        return _complete(self, future) if self.is_running() else run_until_complete(self, future)

    @functools.wraps(run_forever)
    def run_inside(self: Any) -> None:
        if self.is_running():
            _go_on(self, lambda: False)
        else:
            run_forever(self)

    asyncio.run = asyncio.runners.run = _nesting(thread, asyncio.run, asyncio.run)
    base.run_until_complete = _nesting(thread, complete_inside, run_until_complete)
    base.run_forever = _nesting(thread, run_inside, run_forever)
    if hasattr(asyncio, "Runner"):
        for name in ("run", "close"):
            method = getattr(asyncio.Runner, name)
            setattr(asyncio.Runner, name, _nesting(thread, method, method))


def _nesting(thread: Any, inside: Any, outside: Any) -> Any:
    """Return what calls one function where a loop runs in this thread already, another one otherwise."""

    @functools.wraps(outside)
    def call(*arguments: Any, **options: Any) -> Any:
        if events._get_running_loop() is None or threading.get_ident() != thread:
            return outside(*arguments, **options)
        try:
            with _standing_still():
                return inside(*arguments, **options)
        except BaseException as error:
            raise error.with_traceback(_from_the_code_on(error.__traceback__))  # noqa: B904 it is the same

    return call


def _from_the_code_on(traceback: Any) -> Any:
    """Leave out how the loop got to the code: nobody reads it, and IPython takes seconds to show it."""
    entry = traceback
    while entry is not None:
        code = entry.tb_frame.f_code
        if code.co_filename != HERE and os.path.dirname(code.co_filename) != OF_ASYNCIO:
            return entry
        entry = entry.tb_next
    return traceback


@contextlib.contextmanager
def _standing_still() -> Iterator[None]:
    """Have the running loop of this thread, and its task, stand still for another one."""
    loop = events._get_running_loop()
    task = asyncio.current_task(loop)
    if task is not None:
        tasks._leave_task(loop, task)
    events._set_running_loop(None)
    try:
        with _interruptible():
            yield
    finally:
        events._set_running_loop(loop)
        if task is not None:
            tasks._enter_task(loop, task)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Have an interrupt raise an error at once.

    In a cell with `await`, ipykernel only tells its loop; from Python 3.11 on, asyncio only cancels a task,
    which may be busy.
    """
    previous = signal.getsignal(signal.SIGINT)
    is_usual = previous is signal.default_int_handler
    if not (is_usual or getattr(previous, "__module__", "").startswith("ipykernel.")):
        # The code has its own.
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, previous)


def interrupt(*_: Any) -> None:
    """End what runs, whatever it is."""
    raise KeyboardInterrupt


interrupt.raises = True  # type: ignore[attr-defined]


def _complete(loop: Any, future: Any) -> Any:
    """Run a loop inside itself until a future is done; return its result."""
    is_new = not asyncio.isfuture(future)
    future = asyncio.ensure_future(future, loop=loop)
    try:
        _go_on(loop, future.done)
    except BaseException:
        if is_new:
            if future.done() and not future.cancelled():
                # It is told by what is raised here.
                future.exception()
            future.cancel()
        raise
    if not future.done():
        raise RuntimeError("Event loop stopped before Future completed.")
    return future.result()


def _go_on(loop: Any, is_done: Callable[[], bool]) -> None:
    """Run a loop inside itself until something is done, or it is stopped."""
    run_once, waiting = type(loop)._run_once, len(loop._ready)
    loop._sandkernel_depth = getattr(loop, "_sandkernel_depth", 0) + 1
    events._set_running_loop(loop)
    try:
        while not (is_done() or loop._stopping):
            run_once(loop)
    finally:
        events._set_running_loop(None)
        loop._sandkernel_depth -= 1
        if not getattr(loop, "_sandkernel_is_ending", False):
            loop._stopping = False
        # Whoever is in the middle of them counts on as many callbacks as there were.
        for _ in range(waiting - len(loop._ready)):
            nothing = events.Handle(bool, (), loop)
            nothing.cancel()
            loop._ready.append(nothing)


TUNINGS = (run_inside,)
