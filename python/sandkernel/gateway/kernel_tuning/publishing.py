"""How a kernel publishes its messages: nothing is dropped without a word, nobody waits for nothing."""

from __future__ import annotations

import importlib
from typing import Any

import zmq

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
        self._sending = True
        try:
            send(self)
        finally:
            self._sending = False

    stream.flush, stream._flush = flush, send_noted


TUNINGS = (keep_messages, flush_what_there_is)
