"""Lets a client that lost its websocket take up where it was: nothing missing, nothing twice.

The protocol, in headers of the websocket's upgrade:

    request   Sandkernel-Received: N     the client has received N messages in this session, over all its
                                         sockets
              Sandkernel-Partial: B      and the first B bytes of the next one; it takes pieces (`pieces.py`)
    response  Sandkernel-Resumed: M      the gateway has received M messages of it, and sends what comes after
                                         the Nth
              Sandkernel-Partial: I:B    and the first B bytes of the one whose identity is I; it takes pieces
              Sandkernel-Resumed: new    the session begins anew: it was not there, or too much was missed

Since a websocket delivers in order or not at all, the two counts are all that there is to know: nothing on
the wire has to be numbered. A client without the header is served as by the stock gateway.
"""

from __future__ import annotations

import array
import collections
import contextlib
import fcntl
import sys
import termios
import types
from typing import Any, ClassVar, Deque, Dict, List, Optional, Tuple

from jupyter_core.utils import ensure_async
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from tornado.ioloop import IOLoop
from tornado.web import HTTPError

from sandkernel.gateway import pieces, relay, shortening

PARTIAL = "Sandkernel-Partial"
RECEIVED = "Sandkernel-Received"
RESUMED = "Sandkernel-Resumed"
# How much is kept of what was sent last, and what a message counts for beside its length.
LIMIT = 32 << 20
OVERHEAD = 200
# How long a session is kept whose client is away, in seconds. Its kernel is kept longer.
AWAY = 3600.0
NORMAL_CLOSURE = 1000
LONGEST_COUNT = 18


class Journal:
    """What was sent last, as frames, and how much was sent and received in all."""

    def __init__(self) -> None:
        self.messages: Deque[bytes] = collections.deque()
        self.size = 0
        self.sent = 0
        self.received = 0

    def append(self, message: bytes) -> None:
        """Keep a message, and let go of the oldest past the limit."""
        self.messages.append(message)
        self.sent += 1
        self.size += len(message) + OVERHEAD
        while self.size > LIMIT:
            self.size -= len(self.messages.popleft()) + OVERHEAD

    def reaches(self, count: int) -> bool:
        """Whether everything after the first `count` messages is here."""
        return self.sent - len(self.messages) <= count <= self.sent

    def since(self, count: int) -> List[bytes]:
        """The messages after the first `count`."""
        return list(self.messages)[len(self.messages) - (self.sent - count) :]


class JournalingConnection(ZMQChannelsWebsocketConnection):
    """A connection to a kernel that outlives its websocket, where its client asked for that."""

    # By kernel id and session id: those that can be taken up, whether or not they have a websocket.
    sessions: ClassVar[Dict[Tuple[str, str], Any]] = {}

    journal: Optional[Journal] = None
    key: Tuple[str, str] = ("", "")
    # Whether it has channels to the kernel, and whether the kernel is known to be heard on them.
    opened = False
    ready = False
    # What the client has sent before that.
    early: List[Any]
    # What has come of a message of the client, in pieces.
    assembly: pieces.Assembly
    # Carries the messages of the kernel, once it is heard, to a client that speaks the newer protocol.
    relay: Optional[relay.Relay] = None
    # The largest message that its client takes, in bytes.
    limit = sys.maxsize
    # Ends it, where its client is away for too long.
    away: Any = None
    # What it has agreed on with its client, whose websocket does not tell any more once it is closed.
    agreed: Optional[str] = None

    @property
    def subprotocol(self) -> Any:
        """The protocol of the messages to and from the client; `None` is the older one."""
        return super().subprotocol if self.journal is None else self.agreed

    @property
    def write_message(self) -> Any:
        """What sends a message to the client."""
        return self.websocket_handler.write_message if self.journal is None else self.send

    def send(self, message: Any, binary: bool = False) -> None:
        """Send the client what the gateway itself has to say."""
        content = message if isinstance(message, bytes) else message.encode()
        whole = relay.frame([content], relay.BINARY if binary else relay.TEXT)
        if self.relay is None:
            self.keep_and_write([whole])
        else:
            self.relay.send(whole)

    def keep_and_write(self, messages: List[bytes]) -> None:
        """Send frames to the client, now or when it comes back."""
        if self.journal is not None:
            for message in messages:
                self.journal.append(message)
        if self.away is None:
            relay.write(self.websocket_handler, messages)

    def begin(self, key: Tuple[str, str]) -> None:
        """Keep a journal from now on, in the place of whatever has that key."""
        if key in self.sessions:
            self.sessions[key].end()
        self.journal = Journal()
        self.early = []
        self.assembly = pieces.Assembly()
        self.key = key
        self.sessions[key] = self
        self.leave()

    def open(self) -> None:
        """Connect to the kernel, which may still be starting: the client need not wait for that, nor stay."""
        self.opened = True
        connected = self.connect()
        if connected is None:
            self.give_up()
        else:
            connected.add_done_callback(self.get_ready)

    def get_ready(self, connected: Any) -> None:
        """Hand over what came early; a kernel that has said nothing for a minute gets it, too."""
        if not connected.cancelled():
            connected.exception()
        if self.subprotocol == relay.PROTOCOL:
            self.relay = relay.Relay(self)
        self.ready = True
        early, self.early = self.early, []
        for message in early:
            self.handle_incoming_message(message)

    def receive(self, message: Any) -> None:
        """Count a message of the client, and hand it over once the kernel is heard."""
        if self.journal is not None:
            message = self.assembly.take(message, self.websocket_handler.max_message_size)
            if message is None:
                return
            self.journal.received += 1
        if self.ready:
            self.handle_incoming_message(message)
        elif self.early and sum(map(len, self.early)) + len(message) > LIMIT:
            self.give_up()
        else:
            self.early.append(message)

    def leave(self) -> None:
        """Keep what comes for a client that is away."""
        self.come_back()
        self.away = IOLoop.current().call_later(AWAY, self.end)

    def come_back(self) -> None:
        """Send what comes at once."""
        if self.away is not None:
            IOLoop.current().remove_timeout(self.away)
            self.away = None

    def take_over(self, handler: Any) -> None:
        """Go on with another websocket. Until that is open, what comes is kept."""
        former, self.websocket_handler = self.websocket_handler, handler
        self._open_sessions[self.session_key] = handler
        self.leave()
        former.close()

    def end(self) -> None:
        """End the session: its client does not come back."""
        self.come_back()
        if self.sessions.get(self.key) is self:
            del self.sessions[self.key]
        if self.relay is not None:
            self.relay.end()
            self.relay = None
        # Where it was never opened, the gateway does not find it among those that are.
        with contextlib.suppress(KeyError):
            self.disconnect()  # type: ignore[no-untyped-call]

    def give_up(self) -> None:
        """End the session, and let the client know."""
        self.end()
        self.websocket_handler.close()


# The gateway has no types.
handler_class: Any = KernelWebsocketHandler
# Its methods, before ours are put in their place.
original = types.SimpleNamespace()


def attached(handler: Any) -> bool:
    """Whether a websocket is still the one of its connection."""
    connection = getattr(handler, "connection", None)
    return connection is not None and connection.websocket_handler is handler


def number(handler: Any, header: str) -> Optional[int]:
    """The number that a header of the request has."""
    value = handler.request.headers.get(header, "")
    return int(value) if value.isdigit() and len(value) <= LONGEST_COUNT else None


async def pre_get(self: Any) -> None:
    """Find the session that the client asks for, or make one."""
    self.resumed_after = None
    received = number(self, RECEIVED)
    if received is None:
        await original.pre_get(self)
        return
    key = (self.kernel_id, self.get_argument("session_id", ""))
    kept = JournalingConnection.sessions.get(key)
    if kept is None or not can_resume(kept, self, received):
        await original.pre_get(self)
        self.connection.begin(key)
        self.connection.limit = number(self, shortening.LIMIT) or sys.maxsize
        self.resumed_after = 0
        self.set_header(RESUMED, "new")
        return
    # The original does not only make a connection, it also asks whether the user may have one.
    allowed = self.authorizer.is_authorized(self, self.current_user, "execute", "kernels")
    if not await ensure_async(allowed):
        raise HTTPError(403)
    self.connection = kept
    self.resumed_after = received
    kept.take_over(self)
    self.set_header(RESUMED, str(kept.journal.received))
    self.set_header(PARTIAL, "%d:%d" % (kept.assembly.identity, len(kept.assembly)))


def can_resume(kept: Any, handler: Any, received: int) -> bool:
    """Whether a session can go on as if nothing had happened."""
    manager = handler.kernel_manager.get_kernel(handler.kernel_id)
    return kept.kernel_manager is manager and kept.journal.reaches(received)


async def open_websocket(self: Any, kernel_id: str) -> None:
    """Connect to the kernel, if that was not done yet, and send what the client has missed."""
    if self.connection.journal is None:
        await original.open(self, kernel_id)
        return
    self.set_nodelay(True)
    # Begins to ping, and does not connect to the kernel.
    super(handler_class, self).open()
    if not attached(self):
        self.close()
        return
    self.connection.agreed = self.selected_subprotocol
    if not self.connection.opened:
        self.connection.open()
    self.connection.come_back()
    missed = self.connection.journal.since(self.resumed_after)
    partial = number(self, PARTIAL)
    if missed and partial is not None:
        missed = list(pieces.cut(missed, partial))
    if missed:
        relay.write(self, missed)


def on_message(self: Any, message: Any) -> None:
    """Take a message of the client; one on a websocket that was replaced has been sent again."""
    if not attached(self):
        return
    if self.connection.journal is None:
        original.on_message(self, message)
    else:
        self.connection.receive(message)


def send_ping(self: Any) -> None:
    """Ping the client. One that sends a large message is there, and so is one that takes one.

    What it answers waits behind the message, or it has not got the ping yet.
    """
    former, self.progress = getattr(self, "progress", None), progress(self)
    if former is not None and self.progress != former:
        self.last_pong = IOLoop.current().time()
    original.send_ping(self)


def progress(handler: Any) -> Tuple[int, int]:
    """The bytes that came of a message that is not whole yet, and those that the client has taken."""
    stream: Any = getattr(handler.ws_connection, "stream", None)
    unsent = array.array("i", [0])
    with contextlib.suppress(Exception):
        # The system's own part, unsent or without a receipt: `tcp(7)` has it as SIOCOUTQ.
        fcntl.ioctl(stream.fileno(), termios.TIOCOUTQ, unsent)
    written = getattr(stream, "_total_write_done_index", 0)
    return getattr(stream, "_read_buffer_size", 0), written - unsent[0]


def on_close(self: Any) -> None:
    """Keep the session, unless the client has said goodbye."""
    connection = getattr(self, "connection", None)
    if connection is None or connection.journal is None:
        original.on_close(self)
    elif attached(self):
        known = connection.sessions.get(connection.key) is connection
        if known and self.close_code != NORMAL_CLOSURE:
            connection.leave()
        else:
            connection.end()


def tell_of_restarts(manager: Any) -> None:
    """Tell every session of a kernel when one of them has it restarted, as when it has died."""
    restart = manager.restart_kernel

    async def restart_and_tell(kernel_id: str, *arguments: Any, **options: Any) -> Any:
        for (of_kernel, _), connection in list(JournalingConnection.sessions.items()):
            if of_kernel == kernel_id:
                connection.on_kernel_restarted()
        return await ensure_async(restart(kernel_id, *arguments, **options))

    manager.restart_kernel = restart_and_tell


def install(web_application: Any) -> None:
    """Make a gateway keep journals."""
    # First: where it fails, the gateway is left as it is.
    relay.check()
    tell_of_restarts(web_application.settings["kernel_manager"])
    web_application.settings["kernel_websocket_connection_class"] = JournalingConnection
    ours = {
        "pre_get": pre_get,
        "open": open_websocket,
        "on_message": on_message,
        "send_ping": send_ping,
        "on_close": on_close,
    }
    for name, method in ours.items():
        setattr(original, name, getattr(handler_class, name))
        setattr(handler_class, name, method)
