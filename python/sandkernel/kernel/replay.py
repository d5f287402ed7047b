"""What the kernel sent for a host's requests, for a host whose connection was cut.

Runs inside the kernel, as the module `_sandkernel_replay`, on Python 3.8, where the gateway keeps no journal.
The host's side is `src/session/replay.rs`.

What was sent with a request of ours as its parent is kept as it was sent, in order, until that session's next
request, and LIMIT bytes of it at most. A host that comes back asks on the control channel, which is answered
while code runs:

    request   {"parent": id of the request, "after": {channel: id of the last message received},
              "sent": [ids of what the host sent]}
    reply     {"missing": [those of the ids that have not come], "overrun": whether part of the record is
              gone, "last": whether it is the last reply}; each buffer is a message, as a frame of the
              websocket

What the host then sends again under the same id is not taken twice.
"""

import collections
import functools
import inspect
import json
import struct
import threading

import _sandkernel_shell

# Of messages, and of ids.
LIMIT = 32 << 20
IDS = 4096
# A reply is no larger, but for a message that is larger by itself.
PIECE_BYTES = 1 << 20
PIECE_MESSAGES = 1000
# What a message takes beside its parts.
OVERHEAD = 500

USERNAME = "sandkernel"
QUESTION = "sandkernel_replay_request"
ANSWER = "sandkernel_replay_reply"
# Not published, but sent to whoever asked.
DIRECT = {"execute_reply": "shell", "input_request": "stdin"}
DELIMITER = b"<IDS|MSG>"


class Kept:
    """A message that was sent."""

    __slots__ = ("buffers", "channel", "parts", "size")

    def __init__(self, channel, parts, buffers):
        self.channel = channel
        self.parts = parts  # header, parent, metadata, content
        self.size = OVERHEAD + sum(map(len, parts)) + sum(memoryview(each).nbytes for each in buffers)
        # One that is too large is forgotten at once.
        kept = buffers if self.size <= LIMIT else ()
        self.buffers = [each if type(each) is bytes else bytes(each) for each in kept]

    def msg_id(self):
        return json.loads(self.parts[0].decode())["msg_id"]

    def frame(self):
        parts = [self.channel.encode()] + self.parts + self.buffers
        ends = [8 * (len(parts) + 2)]
        for part in parts:
            ends.append(ends[-1] + len(part))
        return struct.pack("<%dQ" % (len(ends) + 1), len(ends), *ends) + b"".join(parts)


class Request:
    """What was sent for a request of ours."""

    def __init__(self, session):
        self.session = session
        self.messages = collections.deque()
        self.size = 0
        # By its channel, the last message that is not kept any more.
        self.evicted = {}

    def keep(self, message):
        self.messages.append(message)
        self.size += message.size

    def evict(self):
        message = self.messages.popleft()
        self.size -= message.size
        self.evicted[message.channel] = message.msg_id()

    def after(self, marks):
        """Return what came after the messages of these ids, and whether part of it is gone."""
        found, wanted = set(), []
        for message in reversed(self.messages):
            channel = message.channel
            if channel in found:
                continue
            if marks.get(channel) and message.msg_id() == marks[channel]:
                found.add(channel)
            else:
                wanted.append(message)
        channels = set(self.evicted).union(channel for channel in marks if marks[channel])
        gone = any(self.evicted.get(each) != marks.get(each) for each in channels - found)
        return wanted[::-1], gone


class Record:
    """What a kernel sent for requests of ours."""

    def __init__(self, kernel):
        self._kernel = kernel
        # Guards what follows against the control thread, and the thread that publishes.
        self._lock = threading.Lock()
        self._requests = collections.OrderedDict()
        # Those of before: a thread that outlives its code goes on publishing.
        self._past = collections.OrderedDict()
        self._parent = self._request = None
        # What the main thread sent, which an interrupt may hit at any place: no lock is taken there.
        self._direct = collections.deque()
        # The ids of what came from the host.
        self._seen = collections.OrderedDict()

    def install(self):
        """Have the kernel keep it; raises where this is no kernel as we know them."""
        kernel = self._kernel
        session, publisher = kernel.session, kernel.iopub_thread
        if session.pack({}) != b"{}":
            raise TypeError("the kernel's messages are not JSON")
        publish = self._publishing(publisher._really_send)
        send, receive = self._sending(session.send), self._receiving(session.recv)
        execute = self._executing(kernel.shell_handlers["execute_request"])
        # All or nothing.
        kernel.control_handlers[QUESTION] = self._answer
        publisher._really_send = publish
        session.send, session.recv = send, receive
        kernel.shell_handlers["execute_request"] = execute

    def _publishing(self, really_send):
        @functools.wraps(really_send)
        def publish(message, *args, **kwargs):
            # Before it is sent: who asks meanwhile is told twice rather than not at all.
            self._publishes(message)
            return really_send(message, *args, **kwargs)

        return publish

    def _sending(self, send):
        make = self._kernel.session.msg

        @functools.wraps(send)
        def send_directly(  # noqa: PLR0917 as it is called
            stream, msg_or_type, content=None, parent=None, ident=None, buffers=None, **options
        ):
            if isinstance(msg_or_type, str) and msg_or_type in DIRECT:
                channel = DIRECT[msg_or_type]
                # The only other things that go into a message.
                parts = {name: options.pop(name, None) for name in ("header", "metadata")}
                msg_or_type = make(msg_or_type, content, parent, **parts)
                if msg_or_type["parent_header"].get("username") == USERNAME:
                    self._direct.append((channel, msg_or_type, buffers))
            return send(stream, msg_or_type, content, parent, ident, buffers, **options)

        return send_directly

    def _receiving(self, receive):
        stdin = self._kernel.stdin_socket

        @functools.wraps(receive)
        def receive_once(socket, *args, **kwargs):
            idents, message = receive(socket, *args, **kwargs)
            if message is not None and socket is stdin and not self._is_new(message):
                return None, None
            return idents, message

        return receive_once

    def _executing(self, execute_request):
        @functools.wraps(execute_request)
        async def execute_once(stream, ident, parent):
            if self._is_new(parent):
                done = execute_request(stream, ident, parent)
                if inspect.isawaitable(done):
                    await done

        return execute_once

    def _is_new(self, message):
        """Note what came from a host of ours; whether it is the first time."""
        header = message["header"]
        if header.get("username") != USERNAME:
            return True
        if header["msg_id"] in self._seen:
            return False
        self._seen[header["msg_id"]] = None
        while len(self._seen) > IDS:
            self._seen.popitem(last=False)
        return True

    def _publishes(self, message):
        try:
            start = message.index(DELIMITER) + 2
            parts = [each if type(each) is bytes else bytes(each) for each in message[start : start + 4]]
            with self._lock:
                if parts[1] != self._parent:
                    self._request = self._find(json.loads(parts[1].decode()))
                    self._parent = parts[1]
                if self._request is not None:
                    self._keep(self._request, "iopub", parts, message[start + 4 :])
        except Exception:
            # A message of a form that we do not know is nobody's loss but ours.
            self._parent = None

    def _find(self, header):
        """Return the request of a header, the parent of something; `None` where it is not kept."""
        if header.get("username") != USERNAME or header.get("msg_type") != "execute_request":
            return None
        msg_id, session = header["msg_id"], header["session"]
        if msg_id not in self._requests and msg_id not in self._past:
            # Who asks for the next has all of the one before.
            for each in [each for each in self._requests if self._requests[each].session == session]:
                del self._requests[each]
                self._past[each] = None
            while len(self._past) > IDS:
                self._past.popitem(last=False)
            self._requests[msg_id] = Request(session)
        return self._requests.get(msg_id)

    def _keep(self, request, channel, parts, buffers):
        request.keep(Kept(channel, parts, buffers))
        excess = sum(each.size for each in self._requests.values()) - LIMIT
        while excess > 0:
            oldest = next(each for each in self._requests.values() if each.messages)
            excess -= oldest.messages[0].size
            oldest.evict()

    def _keep_direct(self):
        pack = self._kernel.session.pack
        while self._direct:
            channel, message, buffers = self._direct.popleft()
            names = ("header", "parent_header", "metadata", "content")
            request = self._find(message["parent_header"])
            if request is not None:
                self._keep(request, channel, [pack(message[name]) for name in names], buffers or ())

    def _answer(self, stream, ident, message):
        question = message["content"]
        parent = question["parent"]
        with self._lock:
            self._keep_direct()
            request = self._requests.get(parent)
            if request is None:
                messages, overrun = [], parent in self._past
            else:
                messages, overrun = request.after(question["after"])
            # One that the kernel refused to begin has come, too.
            came = () if request is None else (parent,)
            missing = [each for each in question["sent"] if each not in self._seen and each not in came]
        pieces = [[]] if overrun else _pieces(messages)
        for number, piece in enumerate(pieces, 1):
            self._kernel.session.send(
                stream,
                ANSWER,
                {"missing": missing, "overrun": overrun, "last": number == len(pieces)},
                parent=message,
                ident=ident,
                buffers=[each.frame() for each in piece],
            )


def _pieces(messages):
    pieces, size = [[]], 0
    for message in messages:
        if pieces[-1] and (size + message.size > PIECE_BYTES or len(pieces[-1]) == PIECE_MESSAGES):
            pieces.append([])
            size = 0
        pieces[-1].append(message)
        size += message.size
    return pieces


def start():
    """Begin to keep what is sent; return "on", or why this kernel can't: for one, "no ipykernel"."""
    kernel = _sandkernel_shell.kernel
    if kernel is None:
        return "no ipykernel"
    # One for all who send this module to the same kernel.
    if getattr(kernel, "_sandkernel_replay", None) is None:
        record = Record(kernel)
        try:
            record.install()
        except (AttributeError, KeyError, TypeError) as error:
            return "%s: %s" % (type(error).__name__, error)
        kernel._sandkernel_replay = record
    return "on"
