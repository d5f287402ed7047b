"""Carries messages between a client's websocket and a kernel's sockets, for clients of ours.

It does what the stock gateway does, in a third of the time: a socket of the kernel's is read until it is
empty, what belongs together is written together, and nothing waits for another turn of the event loop. So an
execution that takes a moment wakes its client up once, not four times: that the kernel is busy, and with
what, is said with whatever comes next; the reply with the idle status, whichever comes first. Nobody waits
longer than `PATIENCE` for either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from typing import Any, Callable, List, Optional

import zmq
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13
from zmq.eventloop.zmqstream import ZMQStream

from sandkernel.gateway import activity, shortening

Parts = List[bytes]

# What comes before a message of the kernel's: https://jupyter-client.readthedocs.io/en/stable/messaging.html
DELIMITER = b"<IDS|MSG>"
PROTOCOL = "v1.kernel.websocket.jupyter.org"
# A whole message, of bytes or of text: https://www.rfc-editor.org/rfc/rfc6455#section-5.2
BINARY, TEXT = 0x82, 0x81
SHORT, MEDIUM = 126, 1 << 16

# How long a message may wait for one that belongs to it, in seconds.
PATIENCE = 0.01
# How much may wait, in bytes.
WAITING = 64 << 10
# How many messages, and bytes, are read of a socket before others get their turn, such as an interrupt.
TURN = 100
TURN_BYTES = 4 << 20
log = logging.getLogger(__name__)


def frame(parts: List[bytes], opcode: int = BINARY) -> bytes:
    """A message as a websocket's frame, as a server sends it."""
    length = sum(map(len, parts))
    if length < SHORT:
        head = struct.pack("!BB", opcode, length)
    elif length < MEDIUM:
        head = struct.pack("!BBH", opcode, SHORT, length)
    else:
        head = struct.pack("!BBQ", opcode, SHORT + 1, length)
    return b"".join([head, *parts])


def encode(channel: bytes, parts: Parts) -> bytes:
    """A message of the kernel's as a frame, by the protocol `PROTOCOL`."""
    # The channel and the parts follow; there is an offset for the beginning of each, and for the end.
    count = len(parts) + 2
    offsets = [8 * (count + 1)]
    for part in (channel, *parts):
        offsets.append(offsets[-1] + len(part))
    return frame([struct.pack("<%dQ" % (count + 1), count, *offsets), channel, *parts])


def receive(socket: Any) -> Parts:
    """The next message, without asking for each part whether more follow, as `recv_multipart` does.

    Raises:
        zmq.Again: If there is none.
    """
    part = socket.recv(zmq.NOBLOCK, copy=False)
    parts = [part.bytes]
    while part.more:
        part = socket.recv(zmq.NOBLOCK, copy=False)
        parts.append(part.bytes)
    return parts


def check() -> None:
    """Raise where what a relay builds on is not as it knows it."""
    needed = {
        ZMQStream: ("_handle_events", "sending", "closed", "send_multipart"),
        WebSocketProtocol13: ("is_closing",),
        zmq.Frame: ("bytes", "more"),
    }
    for owner, names in needed.items():
        for name in names:
            getattr(owner, name)


class Channel:
    """One of the sockets to a kernel, in the place of what a ZMQStream does with it."""

    def __init__(self, stream: Any, take: Callable[[Any, Parts], None]) -> None:
        self.stream = stream
        self.name: bytes = stream.channel.encode()
        self.take = take
        self.send_later = stream.send_multipart
        self.handle_later = stream._handle_events
        # What the stream has put off until now comes to us, too: who asks a socket for its events, and does
        # not read it, leaves what it has until it gets more.
        stream.send_multipart, stream._handle_events = self.send, self.handle
        stream.on_recv(None)
        # Where the stream is closed, it removes whatever handles the events of its socket.
        stream.io_loop.remove_handler(stream.socket)
        stream.io_loop.add_handler(stream.socket, self.handle, stream.io_loop.READ)
        self.read()

    def handle(self, descriptor: Any, events: Any) -> None:
        """Do what the socket is ready for."""
        if not self.stream.closed() and self.stream.sending():
            self.handle_later(descriptor, events)
        self.read()

    def send(self, message: Any, flags: int = 0, copy: bool = True, track: bool = False) -> None:
        """Send a message to the kernel, at once where it takes it."""
        try:
            if self.stream.sending():
                raise zmq.Again
            self.stream.socket.send_multipart(message, flags | zmq.NOBLOCK, copy, track)
        except zmq.Again:
            self.send_later(message, flags, copy, track)
        # The socket does not say again what it said while it was written to.
        self.read()

    def read(self) -> None:
        """Take what the kernel has sent."""
        count = size = 0
        while count < TURN and size < TURN_BYTES:
            if self.stream.closed():
                return
            try:
                message = receive(self.stream.socket)
            except zmq.Again:
                return
            count += 1
            size += sum(map(len, message))
            try:
                self.take(self, message)
            except Exception:
                log.exception("A message of the kernel's was left out")
        self.stream.io_loop.add_callback(self.read)


class Relay:
    """What a client of ours sends to a kernel and gets from it."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.kernel = connection.kernel_manager
        self.session = connection.key[1].encode()
        self.waiting: List[bytes] = []
        self.size = 0
        self.timer: Optional[asyncio.TimerHandle] = None
        # Whose reply or idle status has come without the other.
        self.half: Optional[bytes] = None
        activity.listen(self.kernel, everything=False)
        for stream in connection.channels.values():
            Channel(stream, self.take)

    def take(self, channel: Channel, message: Parts) -> None:
        """Take a message of the kernel's."""
        start = message.index(DELIMITER)
        # The signature is the gateway's to check, which does not, either.
        parts = message[start + 2 :]
        topic = message[0] if channel.name == b"iopub" and start else b""
        is_status = topic.endswith(activity.STATUS)
        if is_status:
            activity.note(self.kernel, parts)
        if not self.is_ours(parts):
            return
        wait = self.may_wait(channel, topic, is_status, parts)
        for shorter in shortening.shorten(parts, self.connection.limit):
            self.send(encode(channel.name, shorter), wait=wait)

    def is_ours(self, parts: Parts) -> bool:
        """Whether no other session asked for it: a kernel tells everybody, and this client would drop it."""
        return parts[1] == b"{}" or self.session in parts[1]

    def may_wait(self, channel: Channel, topic: bytes, is_status: bool, parts: Parts) -> bool:
        """Whether more comes at once, or as good as nothing has happened."""
        if is_status:
            if b'"busy"' in parts[3]:
                return True
            return b'"idle"' in parts[3] and self.is_first_half(parts)
        if channel.name in (b"shell", b"control"):
            return self.is_first_half(parts)
        return topic.endswith(b"execute_input")

    def is_first_half(self, parts: Parts) -> bool:
        """Whether it is the first of what ends a request: the reply and the idle status."""
        request = parts[1]
        is_first = self.half != request
        self.half = request if is_first else None
        return is_first

    def send(self, message: bytes, *, wait: bool = False) -> None:
        """Send a frame to the client, with those that wait, or let it wait."""
        self.waiting.append(message)
        self.size += len(message)
        if not wait or self.size > WAITING:
            self.flush()
        elif self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(PATIENCE, self.flush)

    def flush(self) -> None:
        """Send what waits."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.waiting:
            messages, self.waiting, self.size = self.waiting, [], 0
            self.connection.keep_and_write(messages)

    def end(self) -> None:
        """Leave the kernel to whoever hears it still."""
        self.flush()
        others = (other.relay for other in self.connection.sessions.values())
        if not any(other is not None and other.kernel is self.kernel for other in others):
            activity.listen(self.kernel, everything=True)


def write(handler: Any, messages: List[bytes]) -> None:
    """Write frames to a websocket, all at once; to one that is closed, nothing."""
    websocket = handler.ws_connection
    if websocket is not None and not websocket.is_closing():
        with contextlib.suppress(StreamClosedError):
            websocket.stream.write(messages[0] if len(messages) == 1 else b"".join(messages))
