"""How a kernel takes requests and replies to them: at once."""

from __future__ import annotations

import importlib
import threading
from typing import Any, Callable, List

import zmq
from zmq.eventloop.zmqstream import ZMQStream

from sandkernel.gateway.kernel_tuning import sending


def take_requests_at_once() -> None:
    """Have the main thread read the shell socket itself, as before ipykernel 7.

    Since then another thread looks which subshell a request is for. No client of ours asks for subshells.
    """
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


def answer_at_once() -> None:
    """Have the shell socket read until it is empty and written to at once, not in turns of the event loop."""
    kernel: Any = importlib.import_module("ipykernel.kernelbase").Kernel
    start, send = kernel.start, sending.prepare()

    def start_at_once(self: Any) -> None:
        start(self)
        if isinstance(self.shell_stream, ZMQStream):
            take_over(self.shell_stream, send)

    kernel.start = start_at_once


def take_over(stream: Any, send: Callable[[Any, List[bytes], int], bool]) -> None:
    """Read and write the socket in the place of what a ZMQStream does with it."""
    send_later = stream.send_multipart

    def send_at_once(message: Any, flags: int = 0, copy: bool = True, **options: Any) -> None:
        is_next = copy and not options and not stream.sending() and sending.is_plain(message)
        if not (is_next and send(stream.socket, message, flags)):
            send_later(message, flags=flags, copy=copy, **options)
        # Once it was written to, the socket does not say again that there is something to read.
        if has_something():
            stream.io_loop.add_callback(read)

    def has_something() -> bool:
        return not stream.closed() and bool(stream.socket.getsockopt(zmq.EVENTS) & zmq.POLLIN)

    def read(*_: Any) -> None:
        if not stream.closed() and stream.sending():
            stream._handle_events(stream.socket, 0)
        while has_something():
            message = stream.socket.recv_multipart(zmq.NOBLOCK, copy=stream._recv_copy)
            stream._run_callback(stream._recv_callback, message)

    stream.send_multipart = send_at_once
    stream.io_loop.remove_handler(stream.socket)
    stream.io_loop.add_handler(stream.socket, read, stream.io_loop.READ)
    stream.io_loop.add_callback(read)


def reply_at_once() -> None:
    """Do not sleep before the reply: ipykernel does, for clients that do not look for the idle status."""
    kernel: Any = importlib.import_module("ipykernel.kernelbase").Kernel
    kernel._execute_sleep = 0


TUNINGS = (take_requests_at_once, answer_at_once, reply_at_once)
