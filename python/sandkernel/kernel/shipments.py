"""What the host sends in pieces, on its way to a function of the kernel.

Runs inside the kernel, as the module `_sandkernel_shipments`, on Python 3.8. `sandkernel/shipment.py` writes
the requests.
"""

import base64
import functools
import json
import linecache
import sys
import zlib

# What is arriving from the host: one thing at a time.
_arrival = None
# The piece that was taken out of the request that is executed.
_piece = None


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


def receive(module, function, name, number, last, compressed, piece):  # noqa: PLR0917 short to write
    """Take a piece of what the host sends; call a function with all of it once the last is there.

    The first piece is the JSON of the sizes of what follows.
    """
    global _arrival
    # IPython keeps the source of each cell for tracebacks: not that of a large document.
    linecache.cache.pop(sys._getframe(1).f_code.co_filename, None)
    if piece is None:
        piece = _take_piece()
    data = base64.b64decode(piece)
    if compressed:
        data = zlib.decompress(data)
    if number == 0:
        # What was left off before is let go.
        head, _, data = data.partition(b"\n")
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


def _take_piece():
    global _piece
    piece, _piece = _piece, None
    return piece


def _lighten_requests(kernel):
    """Take the host's pieces out of its requests before IPython reads their code.

    IPython looks several times through each character of a request: 0.3 s for each MiB. A kernel that is not
    ipykernel's executes the whole of it, which is the same, and slower.
    """
    execute = getattr(kernel, "do_execute", None)
    if execute is None:
        return
    execute = getattr(execute, "_sandkernel_original", execute)

    @functools.wraps(execute)
    def do_execute(code, *arguments, **options):
        global _piece
        if code.startswith(REQUEST):
            start = code.find("'", len(REQUEST)) + 1
            _piece = code[start:-2]
            code = code[: start - 1] + "None)"
        return execute(code, *arguments, **options)

    do_execute._sandkernel_original = execute
    kernel.do_execute = do_execute


# How the requests begin, as the host writes them.
REQUEST = "__import__('_sandkernel_shipments').receive("
_lighten_requests(getattr(get_ipython(), "kernel", None))  # noqa: F821 IPython puts it into builtins
