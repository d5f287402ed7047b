"""A message in pieces, as it is sent again after a connection broke: each new one goes on within it.

A piece begins with eight zero bytes, as no message does. Four numbers of eight bytes are its head: that zero,
the message's identity, its length, and where in it the piece belongs. `pieces.rs` is the other end.
"""

from __future__ import annotations

import struct
from typing import Any, Iterator, List, Optional

from sandkernel.gateway import relay

HEAD = struct.Struct("<4Q")
MARK = bytes(8)
# How much of a message is in a piece, and may be carried in vain.
SIZE = 128 << 10
# A websocket's frame: https://www.rfc-editor.org/rfc/rfc6455#section-5.2
LENGTHS = {relay.SHORT: 4, relay.SHORT + 1: 10}


def cut(frames: List[bytes], offset: int) -> Iterator[bytes]:
    """The frames, the large ones in pieces; of the first one, the client has so many bytes.

    The identity says nothing here: what a client gets it gets in order.
    """
    for frame in frames:
        content = memoryview(frame)[LENGTHS.get(frame[1], 2) :]
        if frame[0] == relay.BINARY and len(content) > SIZE:
            for start in range(offset if offset < len(content) else 0, len(content), SIZE):
                head = HEAD.pack(0, 0, len(content), start)
                yield relay.frame([head, bytes(content[start : start + SIZE])])
        else:
            yield frame
        offset = 0


class Assembly:
    """What has come of a message in pieces.

    Attributes:
        identity: That of the message.
    """

    def __init__(self) -> None:
        self.identity = 0
        self.content = bytearray()

    def __len__(self) -> int:
        return len(self.content)

    def take(self, message: Any, limit: int) -> Optional[Any]:
        """The message that is whole now: the one given, unless it is a piece."""
        if not isinstance(message, bytes) or message[:8] != MARK or len(message) <= HEAD.size:
            self.content = bytearray()
            return message
        _, identity, total, offset = HEAD.unpack_from(message)
        if offset == 0:
            self.identity, self.content = identity, bytearray()
        if identity != self.identity or offset != len(self.content) or total > limit:
            self.content = bytearray()
            raise ValueError("a piece of another message")
        self.content += memoryview(message)[HEAD.size :]
        if len(self.content) < total:
            return None
        whole, self.content = bytes(self.content), bytearray()
        return whole
