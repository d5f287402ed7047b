"""Sends a message of several parts as a whole, whatever signals come meanwhile.

pyzmq has signals handled for each part, and what handles them may raise, as an interrupt does, or an alarm of
the code's: of the message then a part is sent, which becomes the beginning of the next one. That is why
ipykernel has a thread that sends. Here libzmq is called by what does not look for signals, for all parts in
one go.
"""

from __future__ import annotations

import ctypes
import itertools
from typing import Any, Callable, List

import zmq

# What libzmq returns for a part that it has taken is anything but this.
IS_SENT = (-1).__ne__
# How often the rest of a message is tried. One signal stops it once.
ATTEMPTS = 100


def prepare() -> Callable[[Any, List[bytes], int], bool]:
    """What sends a message without waiting, and returns whether it could: all of it, or nothing.

    Raises:
        AttributeError: If pyzmq does not have libzmq as we know it.
        OSError: As above.
    """
    backend: Any = zmq.backend.Socket
    # What pyzmq's extension module is linked with is found by way of it, or is part of it.
    module = __import__(backend.__module__, fromlist=["__file__"])
    # It keeps the interpreter's lock: nothing waits in there.
    zmq_send = ctypes.PyDLL(module.__file__).zmq_send
    zmq_send.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
    zmq_send.restype = ctypes.c_int

    def send(socket: Any, message: List[bytes], flags: int) -> bool:
        flags |= zmq.NOBLOCK
        each = [flags | zmq.SNDMORE] * (len(message) - 1) + [flags]
        handle = itertools.repeat(socket.underlying)
        sent: List[int] = []
        raised = None
        for _ in range(ATTEMPTS):
            parts, flags_of_parts = message[len(sent) :], each[len(sent) :]
            sending = map(zmq_send, handle, parts, map(len, parts), flags_of_parts)
            try:
                # What is sent is in the list also where a signal is handled just after.
                sent.extend(itertools.takewhile(IS_SENT, sending))
            except BaseException as error:
                raised = raised or error
            # ZeroMQ takes all parts where it takes the first one, but stops at a signal.
            if not sent or len(sent) == len(message):
                break
        if raised is not None:
            raise raised
        return len(sent) == len(message)

    return send


def send_whole() -> None:
    """Have everything that sends several parts fail before the first one, or not at all.

    A large part is not copied but shared, for which pyzmq starts a thread once. Where no thread can be
    started, that fails in the midst of the message.
    """
    socket: Any = zmq.Socket
    send_multipart = socket.send_multipart

    def send_made(
        self: Any, msg_parts: Any, flags: int = 0, copy: bool = True, track: bool = False, **options: Any
    ) -> Any:
        parts = msg_parts if copy else [shared(self, part, track) for part in msg_parts]
        return send_multipart(self, parts, flags, copy, track, **options)

    socket.send_multipart = send_made


def shared(socket: Any, part: Any, track: bool) -> Any:
    """Return a part ready to be sent: nothing can fail any more."""
    if isinstance(part, zmq.Frame):
        return part
    size = memoryview(part).nbytes
    if track or size >= (socket.copy_threshold or 0):
        try:
            return zmq.Frame(part, track=track, copy=False)
        except RuntimeError:
            pass
    return zmq.Frame(part, track=track, copy=True)


def is_plain(message: List[Any]) -> bool:
    """Whether it has nothing but bytes."""
    return set(map(type, message)) == {bytes}


TUNINGS = (send_whole,)
