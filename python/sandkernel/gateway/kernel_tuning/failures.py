"""Replies also to a request that the kernel itself fails at.

ipykernel logs an exception in its own handling of an `execute_request`, and sends neither a reply nor, at
times, that it is idle: where code closed or replaced `sys.stdout`, or is nested too deeply to be compiled.
Whoever waits for the reply would wait for ever.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import traceback
from typing import Any, Dict

# What goes through as it is: whoever runs the handler ends it.
PASSING = (asyncio.CancelledError, GeneratorExit)
# How many frames of a traceback are shown, from its end: it may be one of a recursion.
FRAMES = 10
NOTE = "the kernel itself failed at this, not the code; sys.stdout and sys.stderr were put back"


class Original:
    """What a kernel needs to run code, as it was before any code ran."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
        self.owners = [(owner, dict(vars(owner))) for owner in (kernel, kernel.shell)]

    def restore_streams(self) -> None:
        """Put the streams back; what they hold is sent."""
        for name, stream in self.streams.items():
            setattr(sys, name, stream)
            stream.flush()

    def restore_methods(self) -> None:
        """Take away what stands before the methods of the kernel and its shell."""
        for owner, attributes in self.owners:
            for name, value in list(vars(owner).items()):
                is_original = name in attributes and attributes[name] is value
                if not is_original and callable(getattr(type(owner), name, None)):
                    delattr(owner, name)

    async def restore(self) -> bool:
        """Put back what is needed; whether code runs again, with its history and its hooks."""
        self.restore_streams()
        if await self.runs_code():
            return True
        self.restore_methods()
        return await self.runs_code()

    async def runs_code(self) -> bool:
        """Whether code that does nothing runs."""
        try:
            reply = await self.kernel.do_execute(code="pass", silent=False, store_history=True)
        except PASSING:
            raise
        except BaseException:
            self.kernel.log.exception("The kernel does not run code")
            return False
        return bool(reply["status"] == "ok")


def reply_to_failures() -> None:
    """Reply with the exception, and put back what the kernel needs."""
    kernel_class: Any = importlib.import_module("ipykernel.kernelbase").Kernel
    start, execute = kernel_class.start, kernel_class.execute_request
    # By the kernel's id: where it is kept on the kernel itself, code would have it at hand.
    originals: Dict[int, Original] = {}
    process = os.getpid()

    def start_noted(self: Any) -> None:
        start(self)
        originals[id(self)] = Original(self)

    async def execute_and_reply(self: Any, stream: Any, ident: Any, parent: Any) -> None:
        try:
            await execute(self, stream, ident, parent)
        except PASSING:
            raise
        except BaseException as error:
            self.log.exception("The kernel failed at a request")
            content = describe(error)
            # A child that was forked off the kernel has no business with the kernel's sockets.
            if os.getpid() != process or not await originals[id(self)].restore():
                # The gateway starts another process in the place of this one, and says so.
                os._exit(1)
            content["execution_count"] = self.execution_count
            self.session.send(stream, "execute_reply", content, parent, ident=ident)

    kernel_class.start, kernel_class.execute_request = start_noted, execute_and_reply


def describe(error: BaseException) -> Dict[str, Any]:
    """The content of a reply that tells of an exception, which may be the code's own."""
    try:
        text = str(error)
    except Exception:
        text = ""
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-FRAMES)
    except Exception:
        lines = []
    return {
        "status": "error",
        "ename": type(error).__name__,
        "evalue": "%s (%s)" % (text, NOTE) if text else NOTE,
        "traceback": [line.rstrip("\n") for line in lines],
        "user_expressions": {},
        "payload": [],
    }


TUNINGS = (reply_to_failures,)
