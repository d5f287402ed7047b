"""Calls of tools that stay on the host.

Runs inside the kernel, as the module `_sandkernel_calls`, on Python 3.8. The host's side is
`sandkernel/sandbox/host_tools.py`.

A call is an `input_request` on the stdin channel of the running cell, and what it returns an `input_reply`.
`input()` itself can have one request under way; here there are as many as threads call, since each reply
says which request it answers. One of the threads that wait reads the socket for all of them, and sends what
the others want to have sent: ZeroMQ's sockets are of one thread at a time.

    request   prompt {"call": "7", "tool": "search", "form": "buffers-1"}; in the buffers the arguments, in
              the form of a final answer
    reply     value {"call": "7", "number": 0, "last": true}; in the buffers a piece of the result, which
              begins with a line, the JSON of the sizes of what follows: a document, and what is beside it
    refusal   value {"call": "7", "refused": true}, where more waits for the host already than it takes
"""

import asyncio
import builtins
import collections
import contextlib
import functools
import inspect
import itertools
import json
import os
import pickle
import signal
import socket
import threading

import _sandkernel_shell
from _sandkernel_decoder import Decoder
from _sandkernel_encoder import FORM, Encoder, UnsendableError
from _sandkernel_shipments import Arrival

# What is sent where whoever runs the code answers no calls.
END_OF_INPUT = "\x04"


class HostTool:
    """Stands for a tool of the host's: calling it calls that one."""

    def __init__(self, name, description="", inputs=None, output_type="any", allow_pickle=False):
        self.name = name
        self.description = self.__doc__ = description
        self.inputs = inputs or {}
        self.output_type = output_type
        self._allow_pickle = allow_pickle

    def __call__(self, *args, **kwargs):
        if calls is None:
            raise RuntimeError("The tool %r is on the host, and this kernel can't call it" % self.name)
        return calls.call(self.name, *encode_arguments(self.name, args, kwargs, self._allow_pickle))

    forward = __call__

    def __repr__(self):
        return "<tool %s of the host>" % self.name


class HostToolError(Exception):
    """An error of a tool of the host's: there it has the class of that name."""

    def __init__(self, message):
        self.message = message

    def __str__(self):
        return self.message


class HostTraceback(Exception):  # noqa: N818 shown as the traceback that it holds
    """Where on the host the error came from."""

    def __str__(self):
        return "\n" + self.args[0]


def encode_arguments(tool, args, kwargs, allow_pickle):
    """Return the form of a call's arguments, and the buffers that hold them."""
    encoder = Encoder(with_buffers=True, snapshot=True)
    encoded = {}
    try:
        for name, value in itertools.chain(enumerate(args), kwargs.items()):
            encoded[name] = encoder.encode(value)
    except (UnsendableError, RecursionError, ValueError) as error:
        if not allow_pickle:
            which = "Argument %d" % (name + 1) if isinstance(name, int) else "The argument %r" % name
            message = "%s of the tool %r can't be sent to the host: %s"
            raise TypeError(message % (which, tool, _reason(error))) from None
        return "pickle", [pickle.dumps([list(args), kwargs])]
    value = [[encoded[index] for index in range(len(args))], {name: encoded[name] for name in kwargs}]
    sizes = [len(buffer) for buffer in encoder.buffers]
    return FORM, [json.dumps({"value": value, "sizes": sizes}).encode()] + encoder.buffers


def _reason(error):
    if not isinstance(error, UnsendableError):
        return "it is nested too deeply, or holds itself"
    if error.reason.startswith("it "):
        return error.reason
    return "%s is %s" % (error.path or "it", error.reason)


def decode_result(document, buffers):
    """Return what a tool returned, or raise what it raised."""
    if "error" in document:
        exception = _exception(document["error"]["type"], document["error"]["message"])
        raise exception from HostTraceback(document["error"]["traceback"])
    value = Decoder(buffers).decode(document["value"])
    # It comes from the host, which trusts the kernel less.
    return pickle.loads(value) if document["form"] == "pickle" else value  # noqa: S301


def _exception(name, message):
    """Return an exception whose class has that name, and is caught by the built-in one's."""
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, Exception):
        with contextlib.suppress(TypeError):
            return type(name, (HostToolError, known), {"__module__": "builtins"})(message)
    return type(name, (HostToolError,), {"__module__": "builtins"})(message)


class Call:
    """A call under way."""

    def __init__(self, cell, prompt, buffers):
        self.cell, self.prompt, self.buffers = cell, prompt, buffers
        self.size = sum(map(len, buffers))
        self.sent = self.done = False
        # Of its own: who waits for another call is not woken for this one.
        self._news = threading.Event()
        self._arrival = None
        self._failure = None

    def take(self, number, last, piece):
        """Take a piece of the result."""
        try:
            if number == 0 and self._arrival is None:
                head, _, piece = bytes(piece).partition(b"\n")
                self._arrival = Arrival("", json.loads(head.decode()))
            self._arrival.take(number, piece)
        except Exception:
            self.fail("what the host sent as its result is not whole")
        if last:
            self._end()

    def fail(self, reason):
        """End it without a result."""
        self._failure = reason
        self._end()

    def _end(self):
        self.done = True
        self.wake()

    def wake(self):
        """Have its thread look whether it is done, or is to read for all."""
        self._news.set()

    def wait(self):
        """Wait to be woken."""
        self._news.wait()

    def result(self, tool):
        """Return what came of it."""
        if self._failure is not None:
            raise HostToolError("The tool %r did not answer: %s" % (tool, self._failure))
        document, buffers = self._arrival.buffers[0], self._arrival.buffers[1:]
        return decode_result(json.loads(document.decode()), buffers)


class Calls:
    """The calls of a kernel.

    Attributes:
        most_under_way: The bytes that the arguments of the calls under way take at most, unless there is but
            one: others wait here, since the host refuses what is beyond its own bound.
    """

    most_under_way = 64 << 20

    def __init__(self, kernel):
        self._kernel = kernel
        self._process_id = os.getpid()
        self._numbers = itertools.count(1)
        # Guards what follows. The code may call a tool where it handles a signal, in the midst of this.
        self._lock = threading.RLock()
        # Whom to ask: the identity and the request of the cell that runs; `None` where none does.
        self._cell = None
        self._under_way = {}
        self._outgoing = collections.deque()
        # The bytes of those that were sent and are not done.
        self._sent_bytes = 0
        # The call whose thread reads; `None` where nobody does.
        self._reader = None
        # Wakes who reads.
        self._bell, self._rung = socket.socketpair()
        self._bell.setblocking(False)
        self._rung.setblocking(False)
        import zmq

        self._zmq = zmq
        self._poller = zmq.Poller()
        self._poller.register(kernel.stdin_socket, zmq.POLLIN)
        self._poller.register(self._rung, zmq.POLLIN)
        self._watch_cells()

    def _watch_cells(self):
        execute_request = self._kernel.shell_handlers["execute_request"]

        @functools.wraps(execute_request)
        async def watched(stream, identity, parent):
            self._cell = (identity, parent)
            try:
                done = execute_request(stream, identity, parent)
                if inspect.isawaitable(done):
                    await done
            finally:
                self._end()

        self._kernel.shell_handlers["execute_request"] = watched

    def call(self, tool, form, buffers):
        """Call a tool of the host's."""
        if os.getpid() != self._process_id:
            raise RuntimeError("The tool %r can be called in the kernel's own process only" % tool)
        name = str(next(self._numbers))
        prompt = json.dumps({"call": name, "tool": tool, "form": form})
        with self._lock:
            if self._cell is None:
                raise RuntimeError("The tool %r can be called only while code of a step runs" % tool)
            call = self._under_way[name] = Call(self._cell, prompt, buffers)
            self._outgoing.append(call)
            if self._reader is not None:
                self._ring()
        try:
            with interruptible():
                self._wait(call)
        finally:
            with self._lock:
                self._under_way.pop(name, None)
                self._forget(call)
        return call.result(tool)

    def _forget(self, call):
        """Send what a call asks no more; what it has sent makes room for others."""
        call.buffers = ()
        if call.sent:
            self._sent_bytes -= call.size
            call.sent = False
            if self._outgoing and self._reader is not None:
                self._ring()
        elif call in self._outgoing:
            self._outgoing.remove(call)

    def _wait(self, call):
        try:
            while not call.done:
                with self._lock:
                    if self._reader is None:
                        self._reader = call
                if self._reader is call:
                    self._serve(call)
                else:
                    call.wait()
        finally:
            with self._lock:
                if self._reader is call:
                    others = (
                        other for other in self._under_way.values() if not other.done and other is not call
                    )
                    self._reader = next(others, None)
                    if self._reader is not None:
                        self._reader.wake()

    def _serve(self, call):
        """Send and read for all, until one call is done."""
        while not call.done:
            self._send()
            self._poller.poll()
            with contextlib.suppress(BlockingIOError):
                self._rung.recv(4096)
            self._receive()

    def _send(self):
        while True:
            with self._lock:
                if not self._outgoing:
                    return
                call = self._outgoing[0]
                if self._sent_bytes and self._sent_bytes + call.size > self.most_under_way:
                    return
                self._outgoing.popleft()
                call.sent = True
                self._sent_bytes += call.size
                (identity, parent), prompt, buffers = call.cell, call.prompt, call.buffers
            self._kernel.session.send(
                self._kernel.stdin_socket,
                "input_request",
                {"prompt": prompt, "password": False},
                parent=parent,
                ident=identity,
                buffers=buffers,
            )

    def _receive(self):
        socket = self._kernel.stdin_socket
        while socket.getsockopt(self._zmq.EVENTS) & self._zmq.POLLIN:
            try:
                _, reply = self._kernel.session.recv(socket, self._zmq.NOBLOCK)
            except ValueError:
                continue  # not signed by the gateway
            if reply is None:
                return
            value = reply["content"].get("value")
            with self._lock:
                if value == END_OF_INPUT:
                    self._fail_all("nobody is there to answer")
                    continue
                try:
                    head = json.loads(value)
                    call = self._under_way[head["call"]]
                except (TypeError, ValueError, KeyError):
                    continue  # nobody waits for it any more
                if head.get("refused"):
                    call.fail("too much waits for the host already")
                else:
                    call.take(head["number"], head["last"], reply["buffers"][0])
                if call.done:
                    self._forget(call)

    def _end(self):
        """Note that the cell has ended."""
        with self._lock:
            self._cell = None
            self._outgoing.clear()
            if self._under_way:
                self._fail_all("the code that called it has ended")
                self._ring()

    def _fail_all(self, reason):
        for call in self._under_way.values():
            call.fail(reason)

    def _ring(self):
        with contextlib.suppress(BlockingIOError):
            self._bell.send(b"\0")


@contextlib.contextmanager
def interruptible():
    """Have an interrupt end the waiting.

    In a cell with `await`, ipykernel's handler of the signal only tells the event loop, which stands still
    while a tool is waited for. There the interrupt cancels the task, as ipykernel has it.
    """
    previous = signal.getsignal(signal.SIGINT)
    if (
        threading.current_thread() is not threading.main_thread()
        or previous is signal.default_int_handler
        or getattr(previous, "raises", False)
        or not callable(previous)
    ):
        yield
        return

    def interrupt(number, frame):
        previous(number, frame)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise asyncio.CancelledError from None
    finally:
        signal.signal(signal.SIGINT, previous)


def _of_kernel(kernel):
    # One for all who send this module to the same kernel.
    if not hasattr(kernel, "_sandkernel_calls"):
        kernel._sandkernel_calls = Calls(kernel)
    return kernel._sandkernel_calls


# The socket that they take is ipykernel's.
calls = None if _sandkernel_shell.kernel is None else _of_kernel(_sandkernel_shell.kernel)
