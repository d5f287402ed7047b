"""A gateway of ours and a client that takes long for a message: it can't answer the pings behind it."""

from __future__ import annotations

import json
import struct
import time
from typing import TYPE_CHECKING

import websocket

from kernel_client import request
from sandkernel.providers.endpoint import Endpoint
from test_slow_way import SILENCE, TOKEN, ours

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 6_000_000
# Bytes in a second: the message takes twice as long as a client may stay silent.
RATE = SIZE / (2 * SILENCE)
CLOSE, PING = 8, 9


def execute(code: str) -> str:
    header = {"msg_id": "m", "msg_type": "execute_request", "session": "s", "username": "", "date": ""}
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    message = {
        "header": {**header, "version": "5.3"},
        "parent_header": {},
        "metadata": {},
        "content": content,
    }
    return json.dumps({"channel": "shell", **message})


def opcodes(received: bytes) -> list[int]:
    """The kinds of the frames that were received whole."""
    found, position = [], 0
    while position + 2 <= len(received):
        opcode, length = received[position] & 15, received[position + 1]
        position += 2
        if length >= 126:
            head = 2 if length == 126 else 8
            (length,) = struct.unpack_from("!H" if head == 2 else "!Q", received, position)
            position += head
        position += length
        if position <= len(received):
            found.append(opcode)
    return found


def test_who_takes_a_message_is_not_given_up_for_its_pongs(tmp_path: Path) -> None:
    with ours(tmp_path) as url:
        kernel_id = request(Endpoint(url, TOKEN, ""), "POST", "/api/kernels")[1]["id"]
        connection = websocket.create_connection(
            f"{url.replace('http', 'ws', 1)}/api/kernels/{kernel_id}/channels?session_id=s",
            # It is one whose session the gateway keeps.
            header=[f"Authorization: token {TOKEN}", "Sandkernel-Received: 0"],
            timeout=60,
        )
        try:
            connection.send(execute(f"'x' * {SIZE}"))
            received = bytearray()
            while len(received) < SIZE:
                received += connection.sock.recv(1 << 16)
                time.sleep((1 << 16) / RATE)
            # What waited behind it. A pong is a frame without content: a masked one has four bytes of mask.
            connection.pong(b"")
            until = time.monotonic() + 2
            while time.monotonic() < until and CLOSE not in opcodes(bytes(received)):
                connection.sock.settimeout(0.2)
                try:
                    received += connection.sock.recv(1 << 16)
                except (TimeoutError, websocket.WebSocketTimeoutException):
                    continue
            assert PING in opcodes(bytes(received))
            assert CLOSE not in opcodes(bytes(received))
        finally:
            connection.close()
