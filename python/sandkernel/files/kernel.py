"""What is asked of the kernel about its files, and what it replies."""

from __future__ import annotations

import base64
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandkernel import kernel_modules
from sandkernel.exceptions import (
    SandboxFileError,
    SandboxFileExistsError,
    SandboxFileNotFoundError,
    SandboxFileTooLargeError,
    SandboxIsADirectoryError,
    SandboxNotADirectoryError,
    SandboxPermissionError,
)
from sandkernel.files.entry import FIELDS, found_in
from sandkernel.plans import Request, Work
from sandkernel.shipment import Shipment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandkernel._sandkernel import Execution, ExecutionError
    from sandkernel.files.tree import Found, Part
    from sandkernel.plans import Plan

__all__ = ["MAX_FILES", "KernelFiles", "new_name"]

REPLY_MIME = "application/vnd.sandkernel.file+json"
# The error that carries a reply where a kernel attaches nothing to its messages.
REPLY_ERROR = "FileReply"
MODULES = ("_sandkernel_shell", "_sandkernel_shipments", "_sandkernel_tree", "_sandkernel_files")
# Each request moves some MiB at most.
TIMEOUT = 120.0
# A reply may be lost where a gateway limits output.
ATTEMPTS = 4
MAX_FILES = 100_000

_ERRORS = {
    "FileNotFoundError": SandboxFileNotFoundError,
    "FileExistsError": SandboxFileExistsError,
    "IsADirectoryError": SandboxIsADirectoryError,
    "NotADirectoryError": SandboxNotADirectoryError,
    "PermissionError": SandboxPermissionError,
    "TooManyFilesError": SandboxFileTooLargeError,
}


def new_name() -> str:
    """Return the name of something that is not there yet in its whole, and that nobody guesses."""
    return f".sandkernel-{secrets.token_hex(16)}"


@dataclass(frozen=True)
class KernelFiles:
    """The kernel's files, for one thing that is done with them.

    Attributes:
        doing: What is done, for errors.
        path: What it is done with.
    """

    doing: str
    path: str

    def find(self, *, follow: bool) -> Plan[Found]:
        """Return what is at the path."""
        found = found_in((yield from self._call("find", self.path, follow, most=FIELDS))[0])
        if len(found) != 1:
            raise self.error("the kernel's reply is malformed")
        return found[0]

    def walk(self, *, recursive: bool, follow: bool, limit: int) -> Plan[list[Found]]:
        """Return what the directory holds."""
        fields, _ = yield from self._call("walk", self.path, recursive, follow, limit, most=limit * FIELDS)
        return found_in(fields)

    def read(self, root: str, parts: Sequence[Part]) -> Plan[tuple[list[int], bytes] | None]:
        """Return parts of files; `None` where the reply did not arrive."""
        reply = yield from self._try_call("read", root, [tuple(part) for part in parts], most=len(parts))
        if reply is None:
            return None
        try:
            lengths = [int(field[:20]) for field in reply[0]]
        except ValueError:
            lengths = []
        bounded = len(lengths) == len(parts) and all(
            0 <= length <= part.size for length, part in zip(lengths, parts, strict=True)
        )
        if not bounded or sum(lengths) != len(reply[1]):
            raise self.error("the kernel's reply is malformed")
        return lengths, reply[1]

    def begin(self, name: str, *, directory: bool) -> Plan[tuple[str, str]]:
        """Begin to write; return where, and the target's absolute path."""
        fields, _ = yield from self._call("begin", self.path, name, directory, most=2)
        if len(fields) != len(("temporary", "target")):
            raise self.error("the kernel's reply is malformed")
        return os.fsdecode(fields[0]), os.fsdecode(fields[1])

    def write(self, root: str, parts: Sequence[Part], lengths: Sequence[int], data: bytes) -> Plan[None]:
        """Write parts of files."""
        document = {"root": root, "parts": parts, "lengths": lengths}
        shipment = Shipment("_sandkernel_files", "receive_parts", json.dumps(document).encode(), [data])
        pieces = shipment.pieces()
        # Compressing takes its time.
        while (piece := (yield Work(lambda: next(pieces, None)))) is not None:
            self._check((yield from shipment.send(piece, self._try)))

    def do(self, function: str, *arguments: Any) -> Plan[None]:  # noqa: ANN401 what a literal can be of
        """Call a function that replies nothing."""
        yield from self._ask(_call(function, arguments))

    def forget(self, name: str) -> Plan[None]:
        """Remove what was written so far, as well as can be."""
        with suppress(Exception):
            yield from self.do("forget", self.path, name)

    def _call(self, function: str, *arguments: Any, most: int) -> Plan[tuple[list[bytes], bytes]]:  # noqa: ANN401
        for _ in range(ATTEMPTS):
            reply = yield from self._try_call(function, *arguments, most=most)
            if reply is not None:
                return reply
        raise self.lost()

    def _try_call(
        self,
        function: str,
        *arguments: Any,  # noqa: ANN401
        most: int,
    ) -> Plan[tuple[list[bytes], bytes] | None]:
        """Return the fields of a reply, of which there may be so many at most, and its data."""
        execution = yield from self._ask(_call(function, arguments))
        if execution.error is not None:
            return self._of_error(execution.error, most)
        for result in execution.results:
            if REPLY_MIME in result.mime_types:
                # Each look at them is a copy.
                buffers = result.buffers
                if len(buffers) != len(("fields", "data")):
                    raise self.error("the kernel's reply is malformed")
                return self._fields(buffers[0], most), buffers[1]
        return None

    def _of_error(self, error: ExecutionError, most: int) -> tuple[list[bytes], bytes]:
        try:
            head, data = (base64.b64decode(part, validate=True) for part in error.value.split(":", 2))
        except ValueError:
            raise self.error("the kernel's reply is malformed") from None
        return self._fields(head, most), data

    def _fields(self, head: bytes, most: int) -> list[bytes]:
        # Before they are split: objects take many times the memory of their text.
        if head and head.count(b"\0") >= most:
            reason = f"the kernel's reply is malformed: more than {most} fields"
            raise self.error(reason, SandboxFileTooLargeError)
        return head.split(b"\0") if head else []

    def _ask(self, code: str) -> Plan[Execution]:
        """Execute code of ours, which is not to fail."""
        return self._check((yield from self._try(code)))

    def _try(self, code: str, buffers: Sequence[bytes | bytearray] = ()) -> Plan[Execution]:
        """Execute code of ours, in a kernel that may have none of our modules yet."""
        request = Request(code, TIMEOUT, buffers=buffers)
        execution: Execution = yield request
        if _lacks_modules(execution.error):
            execution = yield Request(kernel_modules.load(*MODULES), TIMEOUT)
            if execution.error is None:
                execution = yield request
        return execution

    def _check(self, execution: Execution) -> Execution:
        if execution.error is not None and execution.error.name != REPLY_ERROR:
            raise self._failure(execution.error)
        return execution

    def _failure(self, error: ExecutionError) -> SandboxFileError:
        kind = _ERRORS.get(error.name)
        text = f"{error.value:.1000}"
        return self.error(text if kind else f"{error.name:.100}: {text}", kind or SandboxFileError)

    def error(self, reason: str, kind: type[SandboxFileError] = SandboxFileError) -> SandboxFileError:
        """Return the error that says why this was not done."""
        return kind(f"Could not {self.doing} {self.path!r:.300} in the sandbox: {reason}", path=self.path)

    def lost(self) -> SandboxFileError:
        """Return the error of replies that don't arrive."""
        return self.error(
            "the kernel's reply did not arrive. The gateway may limit output, or the session's "
            "max_result_bytes is too small"
        )


def _call(function: str, arguments: Sequence[Any]) -> str:
    # `ascii`, so that a name that is no Unicode passes too.
    return f"__import__('_sandkernel_files').{function}({', '.join(map(ascii, arguments))})"


def _lacks_modules(error: ExecutionError | None) -> bool:
    return error is not None and error.name == "ModuleNotFoundError" and "_sandkernel_" in error.value
