"""Keeps each message below what its client takes: cuts output into pieces, leaves the rest of a giant out.

    request   Sandkernel-Limit: N        the client takes no message of more than N bytes

What is left out of a message is said in its metadata, `{"sandkernel_omitted": BYTES}`. No giant is parsed: a
quote within a JSON string is escaped, so that looking for a name in quotes finds no part of a text.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterator, List

Parts = List[bytes]

LIMIT = "Sandkernel-Limit"
OMITTED = "sandkernel_omitted"
# Output is sent in pieces of this size. Whatever is smaller, headers included, is of no concern.
PIECE = 4 << 20
# How much is kept of a text in a message that is left out.
BEGINNING = 64 << 10
# What the parts' offsets and the channel's name take in a frame, generously.
OVERHEAD = 1024

STRING = re.compile(rb'\s*:\s*"')
TEXT = re.compile(rb'(?:[^"\\]+|\\u[0-9a-fA-F]{4}|\\[^u])*')
COUNT = re.compile(rb'"execution_count"\s*:\s*(\d{1,15})\b')
HALF = re.compile(rb"\\u[dD][89abAB]")
BACKSLASH = 0x5C


def shorten(parts: Parts, limit: int) -> Iterator[Parts]:
    """Give a message as the client can take it: header, parent header, metadata, content, buffers."""
    size = sum(map(len, parts))
    if size > PIECE:
        kind = json.loads(parts[0]).get("msg_type")
        if kind == "stream":
            yield from split_stream(parts)
            return
        if size + OVERHEAD > limit:
            parts = omit(kind, parts, size)
    yield parts


def split_stream(parts: Parts) -> Iterator[Parts]:
    """Give output in pieces, each a whole message."""
    content = parts[3]
    start = find_string(content, b"text")
    name = content.find(b'"name"')
    end = content.rfind(b'"', 0, name if name > start else len(content))
    if start < 0:
        yield omit("stream", parts, sum(map(len, parts)))
    head = b'{"name": %s, "text": "' % json.dumps(beginning(content, b"name")).encode()
    while 0 <= start < end:
        stop = boundary(content, start, start + PIECE) if start + PIECE < end else end
        yield [*parts[:3], head + content[start:stop] + b'"}']
        start = stop


def boundary(text: bytes, start: int, end: int) -> int:
    """The last place up to `end` to cut a JSON string at: between characters, outside escapes."""
    for _ in range(3):
        if text[end] & 0xC0 == 0x80:
            end -= 1
    for position in range(end - 1, max(start, end - 6) - 1, -1):
        if text[position] == BACKSLASH:
            length = 6 if text[position + 1 : position + 2] == b"u" else 2
            if position + length > end and begins_escape(text, start, position):
                end = position
            break
    # The halves of a surrogate pair stay together.
    if end - 6 > start and HALF.match(text, end - 6) and begins_escape(text, start, end - 6):
        end -= 6
    return end


def begins_escape(text: bytes, start: int, position: int) -> bool:
    """Whether a backslash is no escaped one."""
    before = text[start : position + 1]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def find_string(content: bytes, name: bytes, last: bool = False) -> int:
    """Where the text begins that a member is; -1 where there is none."""
    quoted = b'"' + name + b'"'
    position = content.rfind(quoted) if last else content.find(quoted)
    match = STRING.match(content, position + len(quoted)) if position >= 0 else None
    return match.end() if match else -1


def beginning(content: bytes, name: bytes, last: bool = False) -> str:
    """The beginning of the text that a member is, empty where there is none."""
    start = find_string(content, name, last)
    match = TEXT.match(content, start, start + BEGINNING) if start >= 0 else None
    text = match.group().decode("utf-8", "ignore") if match else ""
    try:
        return str(json.loads('"' + text + '"', strict=False))
    except ValueError:
        return ""


def omit(kind: Any, parts: Parts, size: int) -> Parts:
    """What stands for a message that is too large: how it begins, and how large it was."""
    content = parts[3]
    kept: Dict[str, Any] = {}
    marker = "\n[… %d bytes left out …]\n" % size
    if kind in ("execute_result", "display_data", "update_display_data"):
        kept["data"] = {"text/plain": beginning(content, b"text/plain")}
        kept["transient"] = {"display_id": beginning(content, b"display_id", last=True)}
    elif kind == "stream":
        kept["name"] = beginning(content, b"name")
        kept["text"] = marker
    elif kind in ("error", "execute_reply"):
        names = ("status", "ename", "evalue")
        kept.update((name, beginning(content, name.encode())) for name in names)
        kept["evalue"] += marker
        kept["traceback"] = []
    counts = COUNT.findall(content, 0, BEGINNING) or COUNT.findall(content, max(0, len(content) - BEGINNING))
    if counts:
        kept["execution_count"] = int(counts[-1])
    return [*parts[:2], json.dumps({OMITTED: size}).encode(), json.dumps(kept).encode()]
