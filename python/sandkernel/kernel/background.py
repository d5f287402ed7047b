"""What the threads of the code print while no step runs: kept, and shown with the next step.

Runs inside the kernel, as the module `_sandkernel_background`, on Python 3.8. What a thread prints belongs to
the request that ipykernel finds for it, the one that started the thread or the last one. When that is over,
its client does not listen to it any more.

Only requests of executors are looked at: what other clients of a kernel started is theirs.
"""

import collections
import functools
import importlib
import inspect
import os
import sys
import threading

# Of what is kept for an executor, in characters: the newest.
MOST_KEPT = 1 << 20
# Texts up to this size are joined: many small ones would take much more than their characters.
JOINED = 1 << 13
# Executors, the newest, whose output is kept.
MOST_SESSIONS = 32
LEFT_OUT = "[... %d characters left out that were printed between two steps ...]\n"


class Kept:
    """The end of what was printed, in order, and how much was before it."""

    def __init__(self):
        self._texts = collections.deque()
        self._size = 0
        self._left_out = 0

    def add(self, stream, text):
        """Keep a text of a stream."""
        if self._texts and self._texts[-1][0] == stream and len(self._texts[-1][1]) < JOINED:
            text_before = self._texts.pop()[1]
            self._size -= len(text_before)
            text = text_before + text
        self._texts.append((stream, text))
        self._size += len(text)
        while self._size > MOST_KEPT:
            stream, oldest = self._texts.popleft()
            end = oldest[min(self._size - MOST_KEPT, len(oldest)) :]
            self._size -= len(oldest) - len(end)
            self._left_out += len(oldest) - len(end)
            if end:
                self._texts.appendleft((stream, end))

    def texts(self):
        """Return each text after its stream's name."""
        note = [("stdout", LEFT_OUT % self._left_out)] if self._left_out else []
        return note + list(self._texts)


class Background:
    """The output of a kernel's background threads."""

    def __init__(self, kernel):
        self._kernel = kernel
        self._process_id = os.getpid()
        # By the sessions of executors.
        self._kept = {}
        self._streams = []
        # The header of the request that runs, where it is a step's, or where it is none's.
        self._step = self._other = None
        # That of the last step, of whichever session.
        self._last = None
        # Held while what is printed is sent: a step does not end in the midst of it.
        self._lock = threading.RLock()
        self._watch_steps()
        self._watch_streams()

    def include(self, request):
        """Look after what the requests of a session start, too."""
        with self._lock:
            self._kept.setdefault(request["header"]["session"], Kept())
            while len(self._kept) > MOST_SESSIONS:
                del self._kept[next(iter(self._kept))]

    def _watch_steps(self):
        execute_request = self._kernel.shell_handlers["execute_request"]

        @functools.wraps(execute_request)
        async def watched(stream, identity, parent):
            if parent["content"].get("silent"):
                with self._lock:
                    self._other = parent["header"]
            else:
                self._begin_step(parent)
            try:
                done = execute_request(stream, identity, parent)
                if inspect.isawaitable(done):
                    await done
            finally:
                with self._lock:
                    self._step = self._other = None

        self._kernel.shell_handlers["execute_request"] = watched

    def _begin_step(self, request):
        header = request["header"]
        with self._lock:
            self._step = self._last = header
            kept = self._kept.get(header["session"])
            texts = kept.texts() if kept is not None else ()
            if texts:
                self._kept[header["session"]] = Kept()
            for stream, text in texts:
                self._kernel.session.send(
                    self._kernel.iopub_socket,
                    "stream",
                    {"name": stream, "text": text},
                    parent=request,
                    ident=b"stream." + stream.encode(),
                )

    def _watch_streams(self):
        stream = importlib.import_module("ipykernel.iostream").OutStream
        self._streams = [each for each in (sys.stdout, sys.stderr) if isinstance(each, stream)]
        flush_buffers = stream._flush_buffers

        @functools.wraps(flush_buffers)
        def watched(of):
            if os.getpid() != self._process_id:
                yield from flush_buffers(of)
                return
            with self._lock:
                for header, text in flush_buffers(of):
                    wanted = self._place(of.name, header, text)
                    if wanted is not None:
                        yield wanted, text

        stream._flush_buffers = watched
        for each in self._streams:
            # From ipykernel 7 on, what a thread prints is the last request's, whatever that is.
            if hasattr(each, "_parent_header_global") and hasattr(each, "_parent_header"):
                each.set_parent = self._setter_of(each)

    def _setter_of(self, stream):
        """Return what gives a stream its request: one that is no step gets what it prints itself."""
        set_parent = stream.set_parent

        def set_own_parent(parent):
            content = parent.get("content") if isinstance(parent, dict) else None
            if self._last is None or not isinstance(content, dict) or not content.get("silent"):
                set_parent(parent)
                return
            # Not for a moment may it be that of all threads.
            stream._parent_header.set(parent["header"])
            stream._parent_header_global = self._last

        return set_own_parent

    def _place(self, stream, header, text):
        """Return the header of the request to show a text with; `None` where it is kept."""
        kept = self._kept.get(header.get("session"))
        if kept is None:
            return header
        if self._step is not None and self._step["session"] == header["session"]:
            return self._step
        if self._other is not None and self._other["msg_id"] == header["msg_id"]:
            return header
        kept.add(stream, text)
        return None


def install(kernel):
    """Keep for the session of this request what is printed between its steps."""
    find = getattr(kernel, "get_parent", None)
    # Before release 6, ipykernel has one parent only.
    request = getattr(kernel, "_parent_header", None) if find is None else find("shell")
    if not isinstance(request, dict) or "session" not in request.get("header", ()):
        return
    if not hasattr(kernel, "_sandkernel_background"):
        iostream = importlib.import_module("ipykernel.iostream")
        if not hasattr(iostream.OutStream, "_flush_buffers"):
            return
        kernel._sandkernel_background = Background(kernel)
    kernel._sandkernel_background.include(request)
