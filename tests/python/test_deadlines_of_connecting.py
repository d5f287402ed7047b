"""Whatever a server sends while a session opens, it opens or fails in time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time

import pytest

from rewriting_proxy import Behaviour, Head, RewritingProxy, answer
from sandkernel import Session
from sandkernel.exceptions import SandkernelError
from waiting import wait_until

CONNECT_TIMEOUT = 2.0
# It is for the gateway, and then for the kernel; the rest is for a machine under load.
IN_TIME = 2 * CONNECT_TIMEOUT + 3.0
SPECS = answer(200, json.dumps({"default": "python3", "kernelspecs": {"python3": {"name": "python3"}}}))
KERNEL = answer(201, json.dumps({"id": "a-b-c", "name": "python3"}))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def forever(writer: asyncio.StreamWriter, first: bytes, then: bytes, pause: float) -> None:
    writer.write(first)
    while not writer.is_closing():
        writer.write(then)
        await writer.drain()
        await asyncio.sleep(pause)


def upgraded(head: Head) -> bytes:
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(((head.get("sec-websocket-key") or "") + guid).encode()).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: v1.kernel.websocket.jupyter.org\r\nSec-WebSocket-Accept: " + accept
    )


PING, PONG, EMPTY, MALFORMED = b"\x89\x00", b"\x8a\x00", b"\x82\x00", b"\x82\x01x"
# A frame of 1 MiB that never ends, and one in endless fragments.
LONG = b"\x82\x7f" + (1 << 20).to_bytes(8, "big")

WEBSOCKETS = {
    "silence": (b"", b"", 0.1),
    "a flood of pings": (None, PING * 8192, 0),
    # What reads them is slower than what writes them: there is always more to read.
    "pongs without a pause": (None, PONG * (1 << 20), 0),
    "pings now and then": (None, PING, 0.05),
    "a flood of pongs": (None, PONG * 8192, 0),
    "fragments": (b"\x02\x00", b"\x00\x00" * 100, 0.01),
    "a frame byte by byte": (LONG, b"x", 0.05),
    "endless headers": (b"HTTP/1.1 101 Any\r\n", b"X-More: y\r\n", 0.001),
    "one header, byte by byte": (b"HTTP/1.1 101 Any\r\nX: ", b"y", 0.05),
    "informational answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.05),
    "a flood of informational answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100, 0),
}


@pytest.mark.parametrize("kind", list(WEBSOCKETS))
def test_a_websocket_that_never_gets_there(kind: str) -> None:
    first, then, pause = WEBSOCKETS[kind]
    in_frames = first is None or first in (LONG, b"\x02\x00")

    async def serve(head: Head, writer: asyncio.StreamWriter) -> bool:
        begun = upgraded(head) + b"\r\n\r\n" + (first or b"") if in_frames else first or b""
        await forever(writer, begun, then, pause)
        return True

    def refuse(head: Head) -> bytes | None:
        if "/channels" in head.path:
            return None
        return SPECS if head.path.endswith("kernelspecs") else KERNEL

    with RewritingProxy(0, Behaviour(refuse=refuse, serve=serve)) as proxy:
        began = time.monotonic()
        try:
            # A kernel that says nothing may be busy: there, its session opens.
            session = Session.connect(proxy.url, "t", connect_timeout=CONNECT_TIMEOUT)
        except SandkernelError:
            assert time.monotonic() - began < IN_TIME
            # The kernel that was created is not left behind.
            assert wait_until(lambda: any(line.startswith("DELETE ") for line in proxy.requests))
            return
        assert time.monotonic() - began < IN_TIME
        assert in_frames
        asked = time.monotonic()
        with pytest.raises(SandkernelError):
            session.run("1", timeout=0.5)
        session.close()
        assert time.monotonic() - asked < 12


ANSWERS = {
    "silence": (b"", b"", 0.1),
    "a body byte by byte": (HEAD + b"Content-Length: 1000000\r\n\r\n{", b" ", 0.05),
    "a body without end": (HEAD + b"\r\n{", b" " * 8192, 0),
    "chunks byte by byte": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 0.05),
    "endless headers": (HEAD, b"X-More: y\r\n", 0.001),
    "one header, byte by byte": (HEAD + b"X: ", b"y", 0.05),
    "informational answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.05),
    "a flood of informational answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100, 0),
}


@pytest.mark.parametrize("stage", ["readiness", "creation", "look-up"])
@pytest.mark.parametrize("kind", list(ANSWERS))
def test_an_answer_that_never_gets_there(kind: str, stage: str) -> None:
    first, then, pause = ANSWERS[kind]

    async def serve(head: Head, writer: asyncio.StreamWriter) -> bool:
        if head.path.endswith("kernelspecs") and stage != "readiness":
            writer.write(SPECS)
            await writer.drain()
        else:
            await forever(writer, first, then, pause)
        return True

    with RewritingProxy(0, Behaviour(serve=serve)) as proxy:
        began = time.monotonic()
        with pytest.raises(SandkernelError):
            Session.connect(
                proxy.url,
                "t",
                connect_timeout=CONNECT_TIMEOUT,
                kernel_id="a-b-c" if stage == "look-up" else None,
            )
        assert time.monotonic() - began < IN_TIME


def test_redirects_are_not_followed_however_many() -> None:
    async def serve(head: Head, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer(307, "", ("Location", head.path + "/more")))
        await writer.drain()
        return True

    with RewritingProxy(0, Behaviour(serve=serve)) as proxy:
        with pytest.raises(SandkernelError, match="redirects are not followed"):
            Session.connect(proxy.url, "t", connect_timeout=CONNECT_TIMEOUT)
        assert len(proxy.requests) == 1
