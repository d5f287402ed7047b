"""Has code that exits end itself, not the kernel.

IPython takes `exit()` for a wish of the user's to leave: the kernel ends a moment later, under the code that
comes next. `sys.exit()` ends the code alone. Here the other ways do the same. A process that was forked off
the kernel's does end: otherwise it would go on as a second kernel, on the sockets of the first.

The kernels of gateways of ours have this from their start on, others by the executor, which sends this file:
so it imports nothing else of ours.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any


def exit_alone() -> None:
    """Have kernels come up with it."""
    kernel: Any = importlib.import_module("ipykernel.kernelbase").Kernel
    start = kernel.start

    def start_staying(self: Any) -> None:
        start(self)
        install(self)

    kernel.start = start_staying


def install(kernel: Any) -> None:
    """Have `exit()` and its like end the code that calls them, and a forked child end where its code does."""
    shell: Any = getattr(kernel, "shell", None)
    if hasattr(kernel, "_sandkernel_exits") or not hasattr(shell, "ask_exit"):
        return
    kernel._sandkernel_exits = True

    # The class's: the names `exit` and `quit` are bound to an object of it in several places.
    exiter = getattr(shell, "exiter", None)
    if exiter is not None:
        type(exiter).__call__ = leave
    shell.ask_exit = lambda: leave(None)
    loop = getattr(getattr(kernel, "io_loop", None), "asyncio_loop", None)
    if hasattr(os, "register_at_fork") and hasattr(loop, "_run_once"):
        os.register_at_fork(after_in_child=lambda: end_with_its_code(shell, loop))


def leave(_: Any, code: Any = None, **__: Any) -> None:
    """End the code that runs, as `sys.exit()` does. The kernel stays."""
    sys.exit(code)


def end_with_its_code(shell: Any, loop: Any) -> None:
    """Have this process, a forked child, end where its code ends: it is not to serve the kernel's sockets."""

    def show_and_end(*_: Any, **__: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, SystemExit):
            traceback.print_exc()
            end(1)
        elif error.code is None or isinstance(error.code, int):
            end(error.code or 0)
        else:
            sys.stderr.write("%s\n" % (error.code,))
            end(1)

    trigger = shell.events.trigger

    def end_or_trigger(event: str, *arguments: Any, **options: Any) -> None:
        if event == "post_execute":
            end()
        trigger(event, *arguments, **options)

    # Where IPython goes on after an error of a cell's code, `SystemExit` among them, or after its end; and
    # where the loop does.
    shell.showtraceback, shell.events.trigger, loop._run_once = show_and_end, end_or_trigger, end


def end(status: int = 0) -> None:
    """End this process at once: what is done at a kernel's exit is not its own to do."""
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(status & 0xFF)


TUNINGS = (exit_alone,)
