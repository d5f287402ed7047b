"""How a kernel publishes its messages: nothing is dropped without a word, nobody waits for nothing."""

from __future__ import annotations

import importlib
import json
import threading
from typing import Any

import zmq

from sandkernel.gateway.kernel_tuning import sending

# Past 1000 messages that wait for a gateway, ZeroMQ drops output: code that prints and flushes gets there at
# once. It can only be told when the socket is made. (From ipykernel 7 on it is an XPUB.)
MESSAGES_KEPT = 1_000_000


def keep_messages() -> None:
    """Drop no output without a word where a gateway is slower than the code."""
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
    """Have a stream wait for the thread that sends only where there is something to send.

    ipykernel flushes both streams twice for each request, by far the longest wait of an execution.
    """
    stream: Any = importlib.import_module("ipykernel.iostream").OutStream
    wait, send = stream.flush, stream._flush

    def flush(self: Any) -> None:
        # In this order: what leaves the buffers does so while `_sending` is set.
        if getattr(self, "_buffers", True) or getattr(self, "_sending", False) or self.echo is not None:
            wait(self)

    def send_noted(self: Any) -> None:
        publisher = self.pub_thread
        if is_own(publisher) and not getattr(publisher, "_handling", True):
            # A timer called this, at any time: what others have asked the thread to send comes first.
            publisher._handle_event(None)
        self._sending = True
        try:
            send(self)
        finally:
            self._sending = False

    stream.flush, stream._flush = flush, send_noted


def trust_the_thread() -> None:
    """Do not take the thread that sends for ended while it runs.

    Up to Python 3.12 a thread counts as ended once an interrupt has hit who asked whether it lives. From then
    on, two threads would use its socket: https://github.com/python/cpython/issues/89437
    """
    publisher: Any = importlib.import_module("ipykernel.iostream").IOPubThread
    prepare = publisher.__init__

    def prepare_trust(self: Any, *arguments: Any, **options: Any) -> None:
        prepare(self, *arguments, **options)
        ask = self.thread.is_alive

        self.thread.is_alive = lambda: runs(self) or ask()

    publisher.__init__ = prepare_trust


def publish_at_once() -> None:
    """Have who publishes a message send it, not a thread that is woken for it, three times an execution.

    What is large, or comes after what the thread has not sent yet, goes the usual way: the thread sends it.
    """
    publisher: Any = importlib.import_module("ipykernel.iostream").IOPubThread
    send = sending.prepare()
    send_later, send_in_thread = publisher.send_multipart, publisher._really_send

    def send_at_once(self: Any, message: Any, flags: int = 0, copy: bool = True, track: bool = False) -> None:
        if not is_usual(self):
            send_later(self, message, flags, copy, track)
            return
        if copy and sending.is_plain(message):
            with self._turn:
                if is_next(self) and send(self.socket, message, flags):
                    hear_soon(self)
                    return
        if is_own(self):
            # Later, what this thread publishes next would have overtaken it.
            self._really_send(message, flags, copy, track)
        else:
            send_later(self, message, flags, copy, track)

    def send_in_turn(self: Any, *arguments: Any, **options: Any) -> None:
        if is_usual(self):
            with self._turn:
                send_in_thread(self, *arguments, **options)
                hear_soon(self)
        else:
            send_in_thread(self, *arguments, **options)

    take_turns(publisher)
    publisher.send_multipart, publisher._really_send = send_at_once, send_in_turn


def take_turns(publisher: Any) -> None:
    """Have the thread that sends share its socket with others."""
    prepare, handle = publisher.__init__, publisher._handle_event

    def prepare_turns(self: Any, *arguments: Any, **options: Any) -> None:
        self._turn, self._handling = threading.RLock(), False
        prepare(self, *arguments, **options)

    def handle_noted(self: Any, message: Any) -> None:
        self._handling = True
        try:
            handle(self, message)
        finally:
            self._handling = False

    def listen(self: Any) -> None:
        if isinstance(self.socket, zmq.Socket) and self.socket.getsockopt(zmq.TYPE) == zmq.XPUB:
            self.io_loop.add_handler(self.socket, lambda *_: hear(self), self.io_loop.READ)

    publisher.__init__, publisher._handle_event = prepare_turns, handle_noted
    # It is there from ipykernel 7 on.
    if hasattr(publisher, "_setup_xpub_listener"):
        publisher._setup_xpub_listener = listen


def runs(publisher: Any) -> bool:
    """Whether its thread runs, which ends by `stop()` only. A forked child does not have it."""
    # Old versions do not note that it was stopped.
    is_started = publisher.thread.ident is not None and not getattr(publisher, "_stopped", False)
    return is_started and bool(publisher._is_master_process())


def is_usual(publisher: Any) -> bool:
    """Whether it sends on a socket by its thread."""
    return isinstance(publisher.socket, zmq.Socket) and runs(publisher)


def is_next(publisher: Any) -> bool:
    """Whether its thread has done all that it was asked for before: nobody overtakes himself."""
    return is_own(publisher) or not (publisher._events or publisher._handling)


def is_own(publisher: Any) -> bool:
    """Tell whether the code runs in the thread that sends."""
    return threading.get_ident() == publisher.thread.ident  # type: ignore[no-any-return]


def hear_soon(publisher: Any) -> None:
    """Have its thread hear who has subscribed: a socket that was written to does not say so by itself."""
    if publisher.socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
        publisher.io_loop.add_callback(hear, publisher)


def hear(publisher: Any) -> None:
    """Take note of who has subscribed."""
    with publisher._turn:
        while not publisher.closed and publisher.socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            publisher._handle_subscription(publisher.socket.recv_multipart(zmq.NOBLOCK))


def encode_with_one_encoder() -> None:
    """Make the JSON of the kernel's messages as its session does, without a new encoder for each part."""
    application: Any = importlib.import_module("ipykernel.kernelapp").IPKernelApp
    module: Any = importlib.import_module("jupyter_client.session")
    start, pack = application.start, module.json_packer
    encode = json.JSONEncoder(default=module.json_default, ensure_ascii=False, allow_nan=False).encode

    def pack_at_once(value: Any) -> bytes:
        try:
            return encode(value).encode("utf8", "surrogateescape")
        except (TypeError, ValueError):
            return bytes(pack(value))

    def start_with_it(self: Any) -> None:
        # It is another one where the configuration says so, or where there is a faster one.
        if self.session.pack is pack:
            self.session.pack = pack_at_once
        start(self)

    application.start = start_with_it


TUNINGS = (keep_messages, flush_what_there_is, trust_the_thread, publish_at_once, encode_with_one_encoder)
