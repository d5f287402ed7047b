"""Fuzzes what reads a kernel's replies: listings, blocks of files, replies to our code, tickets, bundles.

    python tests/python/fuzz_replies.py --seconds 60

Whatever comes is read, or refused with an error of the package's own. An input names what reads it, and then
has what the kernel sends, with `--` on a line between them. What is found is written into
`fuzz/artifacts/replies`; `--input FILE` reads it again.
"""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import atheris

# What branches are taken in these is what the fuzzer goes by.
with atheris.instrument_imports(include=["sandkernel"]):
    from sandkernel import PayloadLimits
    from sandkernel.exceptions import SandkernelError
    from sandkernel.files.entry import FileEntry
    from sandkernel.files.kernel import REPLY_MIME, KernelFiles
    from sandkernel.files.tree import Part
    from sandkernel.plans import Work
    from sandkernel.sandbox import (
        final_answer,
        kernel_json,
        presentation,
        rebinding,
        tool_definitions,
        tracebacks,
    )

from fuzz_support import SEPARATOR, fuzz

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

LIMITS = PayloadLimits(image_pixels=20_000, image_bytes=100_000)
ENTRIES = 50
TEXT_CHARACTERS = 2000
PARTS = [Part("a", "1:1", 0, 10, executable=False), Part("b", "1:2", 0, 20, executable=False)]
SCALAR = "0123456789abcdef" * 2


@dataclass
class Bundle:
    """A result, as the extension gives it: each format a text, or JSON as it came."""

    formats: dict[str, bytes] = field(default_factory=dict)
    buffers: list[bytes] = field(default_factory=list)
    kind: str = "execute_result"

    @property
    def mime_types(self) -> list[str]:
        return list(self.formats)

    def text_of(self, mime_type: str) -> str | None:
        text = self._decoded(mime_type)
        return text if isinstance(text, str) else None

    def json_of(self, mime_type: str) -> str | None:
        text = self._decoded(mime_type)
        return None if text is None or isinstance(text, str) else self.formats[mime_type].decode()

    @property
    def text(self) -> str | None:
        return self.text_of("text/plain")

    @property
    def png(self) -> bytes | None:
        return self._image("image/png")

    @property
    def jpeg(self) -> bytes | None:
        return self._image("image/jpeg")

    def _image(self, mime_type: str) -> bytes | None:
        text = self.text_of(mime_type)
        with contextlib.suppress(ValueError):
            return None if text is None else base64.b64decode(text)
        return None

    def _decoded(self, mime_type: str) -> Any:
        # Rust has let through what is JSON, as deep as every reader takes.
        with contextlib.suppress(ValueError, KeyError, RecursionError):
            return json.loads(self.formats[mime_type])
        return None


def execution(*results: Bundle, error: tuple[str, str] | None = None) -> Any:
    raised = None if error is None else SimpleNamespace(name=error[0], value=error[1], traceback=[error[1]])
    return SimpleNamespace(results=list(results), error=raised, cleared_results=0)


def answer(plan: Generator[Any, Any, Any], reply: Any) -> Any:
    """Carry out a plan to which the kernel has one answer."""
    try:
        step = next(plan)
        for _ in range(20):
            step = plan.send(step.function() if isinstance(step, Work) else reply)
    except StopIteration as stop:
        return stop.value
    return None


def attached(parts: list[bytes]) -> Any:
    return execution(Bundle({REPLY_MIME: b"{}"}, parts))


def raised(parts: list[bytes]) -> Any:
    return execution(error=("FileReply", b":".join(parts).decode(errors="replace")))


def listing(parts: list[bytes]) -> None:
    for reply in (attached(parts), raised(parts)):
        plan = KernelFiles("list", "tree").walk(recursive=True, follow=False, limit=ENTRIES)
        with contextlib.suppress(SandkernelError):
            found = answer(plan, reply)
            assert len(found) <= ENTRIES
            for each in map(FileEntry.of, found):
                assert each.path.startswith("/")


def one_file(parts: list[bytes]) -> None:
    with contextlib.suppress(SandkernelError):
        answer(KernelFiles("stat", "x").find(follow=True), attached(parts))


def block(parts: list[bytes]) -> None:
    with contextlib.suppress(SandkernelError):
        read = answer(KernelFiles("read", "x").read("/", PARTS), attached(parts))
        assert read is None or sum(read[0]) == len(read[1])


def reply(parts: list[bytes]) -> None:
    text = b"".join(parts).decode(errors="replace")
    kernel_json.parse(text, TEXT_CHARACTERS)
    with contextlib.suppress(SandkernelError):
        tool_definitions.failures(execution(error=("Reply", text)), {"a": None, "b": None})  # type: ignore[dict-item]
    tracebacks.render(SimpleNamespace(name=text, value=text, traceback=text.split("--")))  # type: ignore[arg-type]


def ticket(parts: list[bytes]) -> None:
    text = b"".join(parts[:1]).decode(errors="replace")
    given = execution(error=(final_answer.EXCEPTION, text))
    with contextlib.suppress(SandkernelError):
        final_answer.from_error(given)
    known = final_answer.ticket(given)
    if known is None:
        return
    provision = SimpleNamespace(request=lambda code: code)
    piece = execution(error=("Reply", b"".join(parts[1:]).decode(errors="replace")))
    plan: Any = final_answer.fetch(known, provision, {"max_result_bytes": 100_000})  # type: ignore[arg-type]
    with contextlib.suppress(SandkernelError):
        answer(plan, piece)


def bundle(parts: list[bytes]) -> None:
    names, formats = parts[::2], parts[1::2]
    result: Any = Bundle(
        {name.decode(errors="replace"): each for name, each in zip(names, formats, strict=False)}
    )
    for kind in ("execute_result", "display_data"):
        result.kind = kind
        given = execution(result)
        final_answer.output(given, LIMITS, TEXT_CHARACTERS)
        rebinding.notice(given, {"a", "b"})
        with contextlib.suppress(SandkernelError):
            final_answer.from_results(given)
    presentation.rich_text(result, TEXT_CHARACTERS)


READERS: dict[bytes, Callable[[list[bytes]], None]] = {
    b"listing": listing,
    b"file": one_file,
    b"block": block,
    b"reply": reply,
    b"ticket": ticket,
    b"bundle": bundle,
}
FIELDS = b"a\0/tree/a\0file\0007\0001\0001\0001:1"
SEEDS: list[list[bytes]] = [
    [b"listing", FIELDS, b""],
    [b"listing", b"\0".join([FIELDS, FIELDS.replace(b"a", b"b")]), b""],
    [b"listing", base64.b64encode(FIELDS), b"", b""],
    [b"file", FIELDS, b""],
    [b"block", b"3\0002", b"abcde"],
    [b"reply", b'["numpy"]'],
    [b"reply", b'{"a": "no module", "b": 1}'],
    [b"ticket", f"sandkernel:{SCALAR}:6:6".encode(), b"safe:" + base64.b64encode(b'"text"')],
    [b"ticket", b'safe:{"a": 1}'],
    [b"bundle", b"text/plain", b'"x"', b"application/json", b'{"a": [1, 2]}'],
    [b"bundle", b"text/html", b'"<table><tr><td>1</td></tr></table><script>x</script>"'],
    [b"bundle", b"text/markdown", b'"# A"', b"image/svg+xml", b'"<svg/>"', b"text/latex", b'"$x$"'],
    [b"bundle", final_answer.MIME.encode(), b'{"form": "safe"}', rebinding.MIME.encode(), b'["a"]'],
    [b"bundle", b"image/png", b'"iVBORw0KGgo="', b"text/plain", b'"<PIL.Image>"'],
]


def read(data: bytes) -> None:
    """Read one input."""
    name, *parts = data.split(SEPARATOR)
    READERS.get(name, bundle)(parts)


if __name__ == "__main__":
    fuzz("replies", __doc__, read, map(SEPARATOR.join, SEEDS))
