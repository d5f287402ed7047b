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
        each = itertools.chain(itertools.repeat(flags | zmq.SNDMORE, len(message) - 1), (flags,))
        sent = map(zmq_send, itertools.repeat(socket.underlying), message, map(len, message), each)
        # ZeroMQ takes the first part where it takes them all.
        return -1 not in list(sent)

    return send


def is_plain(message: List[Any]) -> bool:
    """Whether it has nothing but bytes."""
    return set(map(type, message)) == {bytes}
