"""Tools that stay on the host, and are called from the kernel.

What asks is the sandbox, which may be hostile: a request is data, bounded and checked, and only what was
given to the executor can be called. `sandkernel/kernel/calls.py` is the kernel's side, and says what travels.
"""

from __future__ import annotations

import json
import pickle
import threading
import traceback
from contextvars import ContextVar
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

from sandkernel.exceptions import PayloadError
from sandkernel.sandbox import coroutines, kernel_json
from sandkernel.sandbox.coroutines import Coroutines
from sandkernel.sandbox.observation import shorten
from sandkernel.sandbox.reservations import Reservations
from sandkernel.serialization import Encoder, PayloadLimits, UnsendableError, decode
from sandkernel.shipment import cuts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import TracebackType

    from sandkernel._sandkernel import InputRequest
    from sandkernel.sandbox.reservations import Reserve

__all__ = ["HostTools", "Invoke"]

# Of an honest request: a name, and a number.
PROMPT_CHARACTERS = 1000
MESSAGE_CHARACTERS = 10_000
FRAMES = 10
# What the arguments of all calls under way take, where they are more than one. One alone has the `limits`.
MAX_ARGUMENT_BYTES = 256 << 20
# Whose frames say nothing.
_MACHINERY = frozenset({__name__, "smolagents.tools", coroutines.__name__, "concurrent.futures._base"})
# How a tool is called.
Invoke: TypeAlias = "Callable[[str, Callable[..., object], list[Any], dict[str, Any]], object]"

# The servers one of whose tools runs in this context: a tool that uses its own sandbox is found.
_answering: ContextVar[tuple[HostTools, ...]] = ContextVar("sandkernel_answering", default=())


class HostTools:
    """What code in the kernel can call on the host.

    Args:
        invoke: Calls a tool: with its name, the tool, its positional arguments and those by name.
        allow_pickle: Whether values without a safe form travel as pickles.

    Attributes:
        invoke: The same.
        limits: What the arguments of a call may hold.
        threads: The identifiers of the threads that answer a call.
    """

    def __init__(self, invoke: Invoke, *, allow_pickle: bool) -> None:
        self.invoke = invoke
        self._allow_pickle = allow_pickle
        self.limits = PayloadLimits()
        self.threads: set[int] = set()
        self._tools: dict[str, Callable[..., object]] = {}
        self._coroutines = Coroutines()
        self._reservations = Reservations(MAX_ARGUMENT_BYTES)

    def __bool__(self) -> bool:
        return bool(self._tools)

    def give(self, tools: Mapping[str, Callable[..., object]]) -> None:
        """Let these be called, and no others."""
        self._tools = dict(tools)

    def is_answering(self) -> bool:
        """Whether this code runs in a call: then the code in the kernel waits for it."""
        return any(self is each for each in _answering.get())

    def close(self) -> None:
        """Answer no more what has to be awaited."""
        self._coroutines.close()

    def answer(
        self, request: InputRequest, begun: Callable[[], object], loop: asyncio.AbstractEventLoop | None
    ) -> None:
        """Make the call that is asked for, and send back what comes of it; see `plans.Host`."""
        head = _head(request)
        if head is None:
            return
        call, name, form = head
        token = _answering.set((*_answering.get(), self))
        thread = threading.get_ident()
        self.threads.add(thread)
        try:
            with self._reservations.reading(
                lambda reserve: self._arguments(name, form, request, reserve), lambda: request.is_awaited
            ) as arguments:
                begun()
                document, buffers = self._call(name, *arguments, loop)
        except BaseException as error:  # noqa: BLE001 whatever the tool raises is the agent's code's to handle
            document, buffers = {"error": describe(error, self.invoke.__module__)}, ()
        finally:
            self.threads.discard(thread)
            _answering.reset(token)
        for cut in cuts([json.dumps(document).encode(), *buffers]):
            value = json.dumps({"call": call, "number": cut.number, "last": cut.last})
            if not request.reply(value, [bytes(cut.data)]):
                return

    def refuse(self, request: InputRequest) -> None:
        """Reply that too much waits already."""
        head = _head(request)
        if head is not None:
            request.reply(json.dumps({"call": head[0], "refused": True}))

    def _arguments(
        self, name: str, form: str, request: InputRequest, reserve: Reserve
    ) -> tuple[list[Any], dict[str, Any]]:
        self._require(name)
        # The request, and what is parsed of the JSON that its first buffer is.
        reserve(2 * request.size + request.parsed_size)
        given = decode(
            form,
            request.buffers,
            allow_pickle=self._allow_pickle,
            limits=self.limits,
            subject=f"The call of the tool {name!r}",
            root="arguments",
            reserve=reserve,
        )
        args, kwargs = given if isinstance(given, list) and len(given) == 2 else (None, None)  # noqa: PLR2004
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise PayloadError(f"The call of the tool {name!r} is malformed: there are no arguments")
        return args, kwargs

    def _require(self, name: str) -> Callable[..., object]:
        tool = self._tools.get(name)
        if tool is None:
            raise LookupError(f"There is no tool {name!r:.100} on the host for the code to call")
        return tool

    def _call(
        self, name: str, args: list[Any], kwargs: dict[str, Any], loop: asyncio.AbstractEventLoop | None
    ) -> tuple[dict[str, Any], Sequence[Any]]:
        # The keys are texts: they come from JSON, or whoever allows pickles trusts the kernel.
        tool = self._require(name)
        return self._encode(name, self._coroutines.finish(self.invoke(name, tool, args, kwargs), loop))

    def _encode(self, name: str, value: object) -> tuple[dict[str, Any], Sequence[Any]]:
        encoder = Encoder(with_buffers=True)
        try:
            document = {"form": "safe", "value": encoder.encode(value)}
        except (UnsendableError, RecursionError, ValueError) as error:
            if not self._allow_pickle:
                path = getattr(error, "path", "")
                where = f"the result{path} is " if path else ""
                raise TypeError(
                    f"The tool {name!r} returned a value of type {type(value).__name__}, which can't be sent "
                    f"to the kernel: {where}{error!s:.500}"
                ) from error
            encoder = Encoder(with_buffers=True)
            document = {"form": "pickle", "value": encoder.encode(pickle.dumps(value))}
        return document, encoder.buffers


def _head(request: InputRequest) -> tuple[str, str, str] | None:
    """Return the call's name, the tool's, and the form of the arguments; `None` for what is no call."""
    head = kernel_json.parse(request.prompt, PROMPT_CHARACTERS)
    try:
        parts = head["call"], head["tool"], head["form"]
    except (TypeError, KeyError):
        return None
    return parts if all(isinstance(part, str) for part in parts) else None


def describe(error: BaseException, invoker: str) -> Mapping[str, str]:
    """Return what the code is told of an error.

    Args:
        error: The error.
        invoker: The module that called the tool, whose frames say nothing.
    """
    return {
        "type": type(error).__name__,
        "message": shorten(_text(error), MESSAGE_CHARACTERS),
        "traceback": _places(error.__traceback__, _MACHINERY | {invoker}),
    }


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 a class of the user's
        return "(its text can't be had)"


def _places(frames: TracebackType | None, hidden: Collection[str]) -> str:
    """Return the places that a traceback leads through, from the tool on: no folder, no source, no value."""
    places = [
        f"  {PurePath(frame.f_code.co_filename).name}, line {line}, in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(frames)
        if frame.f_globals.get("__name__") not in hidden
    ]
    omitted = len(places) - FRAMES
    if omitted > 0:
        places[:-FRAMES] = [f"  [... frames left out: {omitted} ...]"]
    return "\n".join(["Traceback on the host (most recent call last):", *places])
