"""Starts ipykernel in a kernel's process, without what makes each execution wait for nothing.

It runs as `python -c <this text>`, by the interpreter of the kernels, so it imports nothing of ours. Each
part is guarded: with another version of ipykernel a kernel starts too, only slower. What it changes:

- Output is not dropped without a word where a gateway is slower than the code.
- `flush()` of a stream that has nothing to send does not wait for the thread that sends. ipykernel flushes
  both streams twice for each request, by far the longest wait of an execution.
- Requests come to the main thread at once, not by way of a thread that looks which subshell they are for. No
  client of ours asks for subshells.
- Nobody sleeps before the reply. ipykernel does, for clients that do not look for the idle status.
- What does not change is looked at once: a cell is transformed for the question whether it awaits something,
  and not again for its execution; what IPython's methods accept is known; no record is made of a message to
  the log that is below its level.
"""

from __future__ import annotations

import sys

# Where it starts there may be files of the agent's: nothing is imported from there.
sys.path[0] or sys.path.pop(0)

# ruff: noqa: E402 (the line above comes first)
import importlib
import runpy
import threading
from typing import Any

import zmq

# Past 1000 messages that wait for a gateway, ZeroMQ drops output: code that prints and flushes gets there at
# once. It can only be told when the socket is made. (From ipykernel 7 on it is an XPUB.)
MESSAGES_KEPT = 1_000_000


def keep_messages() -> None:
    """Keep what waits for the gateway."""
    make_socket: Any = zmq.Context.socket
    context: Any = zmq.Context

    def make_patient_socket(self: Any, kind: int, *arguments: Any, **options: Any) -> Any:
        socket = make_socket(self, kind, *arguments, **options)
        if kind in (zmq.PUB, zmq.XPUB):
            context.socket = make_socket
            socket.setsockopt(zmq.SNDHWM, MESSAGES_KEPT)
        return socket

    context.socket = make_patient_socket


def flush_what_there_is() -> None:
    """Have a stream wait for the thread that sends only where there is something to send."""
    stream: Any = importlib.import_module("ipykernel.iostream").OutStream
    wait, send = stream.flush, stream._flush

    def flush(self: Any) -> None:
        # In this order: what leaves the buffers does so while `_sending` is set.
        if getattr(self, "_buffers", True) or getattr(self, "_sending", False) or self.echo is not None:
            wait(self)

    def send_noted(self: Any) -> None:
        self._sending = True
        try:
            send(self)
        finally:
            self._sending = False

    stream.flush, stream._flush = flush, send_noted


def take_requests_at_once() -> None:
    """Have the main thread read the shell socket itself, as before ipykernel 7."""
    application: Any = importlib.import_module("ipykernel.kernelapp")
    kernel: Any = importlib.import_module("ipykernel.kernelbase").Kernel

    class NoThread:
        """What is asked for its main thread, and is false, as if there were no thread."""

        def __init__(self, *_: Any, **__: Any) -> None:
            self.parent_thread = threading.current_thread()

        def __bool__(self) -> bool:
            return False

    if hasattr(application, "ShellChannelThread") and hasattr(kernel, "_supports_kernel_subshells"):
        application.ShellChannelThread = NoThread
        kernel._supports_kernel_subshells = False


def reply_at_once() -> None:
    """Do not sleep before the reply."""
    kernel: Any = importlib.import_module("ipykernel.kernelbase").Kernel
    kernel._execute_sleep = 0


def log_what_is_shown() -> None:
    """Have the kernel's log drop what is below its level at once, not where it would be written."""
    application: Any = importlib.import_module("ipykernel.kernelapp").IPKernelApp
    start = application.start

    def start_quietly(self: Any) -> None:
        self.log.setLevel(self.log_level)
        start(self)

    application.start = start_quietly


def look_once_at_signatures() -> None:
    """Look once at what a method accepts, not for each cell."""
    kernel: Any = importlib.import_module("ipykernel.ipkernel")
    look, known = kernel._accepts_parameters, {}

    def look_once(method: Any, names: Any) -> Any:
        function = getattr(method, "__func__", None)
        if function is None:
            # What somebody has put there may be anything.
            return look(method, names)
        key = (function, *names)
        if key not in known:
            known[key] = look(method, names)
        return known[key]

    kernel._accepts_parameters = look_once


def transform_once() -> None:
    """Keep a transformed cell for whoever asks next for the same one."""
    shell: Any = importlib.import_module("IPython.core.interactiveshell").InteractiveShell
    manager: Any = importlib.import_module("IPython.core.inputtransformer2").TransformerManager
    transform = shell.transform_cell

    def transformers(manager: Any, post: Any) -> Any:
        return [*manager.cleanup_transforms, *manager.line_transforms, *manager.token_transformers, *post]

    def transform_and_keep(self: Any, raw_cell: str) -> Any:
        kept, self._kept_cell = getattr(self, "_kept_cell", None), None
        key = (raw_cell, transformers(self.input_transformer_manager, self.input_transformers_post))
        if kept is not None and kept[0] == key:
            return kept[1]
        transformed = transform(self, raw_cell)
        self._kept_cell = (key, transformed)
        return transformed

    # It has what tells that the code may add transformers of its own.
    transformers(manager(), shell.input_transformers_post.default())
    shell.transform_cell = transform_and_keep


TUNINGS = (
    keep_messages,
    flush_what_there_is,
    take_requests_at_once,
    reply_at_once,
    log_what_is_shown,
    look_once_at_signatures,
    transform_once,
)
for tuning in TUNINGS:
    try:
        tuning()
    except Exception as error:
        print("launch: %s does not fit this ipykernel: %r" % (tuning.__name__, error), file=sys.stderr)
runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
