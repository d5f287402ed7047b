"""What the host sends in pieces, on its way to a function of the kernel.

Runs inside the kernel, as the module `_sandkernel_shipments`, on Python 3.8. `sandkernel/shipment.py` writes
the requests.
"""

import base64
import json
import linecache
import sys
import zlib

import _sandkernel_shell

# What is arriving from the host: one thing at a time.
_arrival = None


class NoAttachmentError(LookupError):
    """A request came without what was attached to it."""


class Arrival:
    """What comes from the host in pieces: a document, and the buffers beside it."""

    def __init__(self, name, sizes):
        self.name = name
        self.buffers = [bytearray(size) for size in sizes]
        self._number = 0  # of the piece that is to come
        self._buffer = 0
        self._start = 0

    def take(self, number, piece):
        """Take the piece of a number; one that is there already is not taken again."""
        if number < self._number:
            return
        if number > self._number:
            raise LookupError("A piece of what the host sent is missing")
        view = memoryview(piece)
        while view:
            buffer = self.buffers[self._buffer]
            size = min(len(buffer) - self._start, len(view))
            buffer[self._start : self._start + size] = view[:size]
            view = view[size:]
            self._start += size
            if self._start == len(buffer):
                self._buffer += 1
                self._start = 0
        self._number += 1


def receive(module, function, name, number, last, compressed, text=None):  # noqa: PLR0917 short to write
    """Take a piece of what the host sends; call a function with all of it once the last is there.

    The first piece begins with the JSON of the sizes of what follows. A piece is attached to the request, and
    comes again as a text where the kernel does not tell what is attached.
    """
    global _arrival
    # IPython keeps the source of each cell for tracebacks: not that of a large document.
    linecache.cache.pop(sys._getframe(1).f_code.co_filename, None)
    data = _attachment() if text is None else base64.b64decode(text)
    if compressed:
        data = zlib.decompress(data)
    if number == 0:
        # What was left off before is let go.
        head, _, data = bytes(data).partition(b"\n")
        _arrival = Arrival(name, json.loads(head.decode()))
    elif _arrival is None or _arrival.name != name:
        raise LookupError("The beginning of what the host sent is not here any more")
    _arrival.take(number, data)
    if last:
        buffers, _arrival = _arrival.buffers, None
        getattr(sys.modules[module], function)(json.loads(buffers[0].decode()), buffers[1:])


def discard(name):
    """Let go of what has arrived so far."""
    global _arrival
    if _arrival is not None and _arrival.name == name:
        _arrival = None


def _attachment():
    """Return what is attached to the request that is executed."""
    kernel = _sandkernel_shell.kernel
    find = getattr(kernel, "get_parent", None)
    # Before release 6, ipykernel has one parent only.
    request = getattr(kernel, "_parent_header", None) if find is None else find("shell")
    buffers = request.get("buffers") if isinstance(request, dict) else None
    if not buffers:
        raise NoAttachmentError("This kernel does not tell its code what is attached to a request")
    return buffers[0]
