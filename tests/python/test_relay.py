"""What the gateway sends together, and that nothing waits for what does not come."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from websocket import ABNF
from zmq.eventloop.zmqstream import ZMQStream

from sandkernel.gateway import relay

if TYPE_CHECKING:
    from collections.abc import Coroutine

SESSION = "5e55"


def parent(number: int = 1, session: str = SESSION) -> bytes:
    header = {"msg_id": f"{session}_{number}", "session": session, "msg_type": "execute_request"}
    return json.dumps(header).encode()


def message(topic: str, content: dict[str, Any], request: bytes) -> list[bytes]:
    body = json.dumps(content).encode()
    return [topic.encode(), relay.DELIMITER, b"signature", b'{"msg_type": ""}', request, b"{}", body]


def status(state: str, request: bytes) -> list[bytes]:
    return message("kernel.1.status", {"execution_state": state}, request)


class Writes:
    """Stands where the journal does, and notes what is written at once."""

    def __init__(self) -> None:
        self.written: list[list[bytes]] = []
        self.kernel_manager = SimpleNamespace(execution_state="idle", parent=SimpleNamespace())
        self.key = ("kernel", SESSION)
        self.channels: dict[str, Any] = {}
        self.sessions: dict[tuple[str, str], Any] = {}
        self.limit = 1 << 30
        self.relay = relay.Relay(self)

    def keep_and_write(self, frames: list[bytes]) -> None:
        self.written.append(frames)

    def take(self, channel: str, parts: list[bytes]) -> None:
        self.relay.take(SimpleNamespace(name=channel.encode()), parts)

    @property
    def counts(self) -> list[int]:
        return [len(frames) for frames in self.written]


def begin(writes: Writes, request: bytes) -> None:
    writes.take("iopub", status("busy", request))
    assert writes.kernel_manager.execution_state == "busy"
    writes.take("iopub", message("kernel.1.execute_input", {"code": "x = 1"}, request))


def reply(writes: Writes, request: bytes) -> None:
    writes.take("shell", message("", {"status": "ok"}, request)[1:])


@pytest.mark.parametrize("idle_first", [True, False])
def test_what_an_execution_says_comes_together(*, idle_first: bool) -> None:
    async def execute() -> None:
        writes = Writes()
        for number in (1, 2):
            request = parent(number)
            begin(writes, request)
            assert len(writes.written) == number - 1
            if idle_first:
                writes.take("iopub", status("idle", request))
                reply(writes, request)
            else:
                reply(writes, request)
                writes.take("iopub", status("idle", request))
        assert writes.counts == [4, 4]
        assert writes.kernel_manager.execution_state == "idle"

    run(execute())


def test_output_is_sent_at_once_and_in_order() -> None:
    async def execute() -> None:
        writes, request = Writes(), parent()
        begin(writes, request)
        writes.take("iopub", message("stream.stdout", {"name": "stdout", "text": "a"}, request))
        assert writes.counts == [3]
        writes.take("stdin", message("", {"prompt": "?"}, request)[1:])
        assert writes.counts == [3, 1]
        names = [b'"busy"', b'"code"', b'"text"', b'"prompt"']
        frames = [frame for frames in writes.written for frame in frames]
        assert all(name in frame for name, frame in zip(names, frames, strict=True))

    run(execute())


def test_nothing_waits_for_long_for_what_does_not_come() -> None:
    async def execute() -> None:
        writes, request = Writes(), parent()
        begin(writes, request)
        await until(lambda: writes.counts == [2])
        # An interrupt at an unlucky moment keeps a kernel from replying.
        writes.take("iopub", status("idle", request))
        await until(lambda: writes.counts == [2, 1])
        reply(writes, request)
        assert writes.counts == [2, 1, 1]

    run(execute())


def test_much_does_not_wait() -> None:
    async def execute() -> None:
        writes, request = Writes(), parent()
        code = "#" * relay.WAITING
        writes.take("iopub", message("kernel.1.execute_input", {"code": code}, request))
        assert writes.counts == [1]

    run(execute())


def test_what_another_session_asked_for_is_noted_and_not_sent() -> None:
    async def execute() -> None:
        writes = Writes()
        begin(writes, parent(session="another"))
        await asyncio.sleep(2 * relay.PATIENCE)
        assert writes.written == []

    run(execute())


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"execution_state": 1}', b"busy", b"\xff", b""])
def test_a_status_that_is_none_is_passed_on(content: bytes) -> None:
    async def execute() -> None:
        writes, request = Writes(), parent()
        writes.take("iopub", [*status("busy", request)[:-1], content])
        await until(lambda: writes.counts == [1])

    run(execute())


def test_a_message_that_comes_while_a_stream_is_taken_over_is_read() -> None:
    async def execute() -> None:
        with zmq.Context() as context, context.socket(zmq.PAIR) as kernel, context.socket(zmq.PAIR) as socket:
            kernel.bind("inproc://kernel")
            socket.connect("inproc://kernel")
            stream = ZMQStream(socket)
            stream.channel = "iopub"
            kernel.send_multipart([b"first"])
            asyncio.get_running_loop().call_soon(kernel.send_multipart, [b"second"])
            # It looks at the socket's events in the loop's next turn, just after the second message came.
            stream.on_recv(lambda _: None)
            taken: list[list[bytes]] = []
            channel = relay.Channel(stream, lambda _, parts: taken.append(parts))
            await until(lambda: taken == [[b"first"], [b"second"]])
            for _ in range(2 * relay.TURN):
                kernel.send_multipart([b"more"])
            await until(lambda: len(taken) == 2 * (1 + relay.TURN))
            channel.send([b"back"])
            assert kernel.recv_multipart() == [b"back"]
            stream.close()

    run(execute())


def test_others_get_their_turn_while_much_comes() -> None:
    async def execute() -> None:
        with zmq.Context() as context, context.socket(zmq.PAIR) as kernel, context.socket(zmq.PAIR) as socket:
            kernel.bind("inproc://kernel")
            socket.connect("inproc://kernel")
            for _ in range(5):
                kernel.send_multipart([b"a part", b"x" * relay.TURN_BYTES])
            stream = ZMQStream(socket)
            stream.channel = "iopub"
            stream.on_recv(lambda _: None)
            taken: list[list[bytes]] = []
            relay.Channel(stream, lambda _, parts: taken.append(parts))
            assert len(taken) == 1
            await until(lambda: len(taken) == 5)
            assert all(len(parts) == 2 for parts in taken)
            stream.close()

    run(execute())


@given(st.lists(st.binary(max_size=300), min_size=4, max_size=7), st.sampled_from(["shell", "iopub"]))
def test_a_message_is_encoded_as_the_stock_gateway_does(parts: list[bytes], channel: str) -> None:
    encoded = serialize_msg_to_ws_v1(parts, channel)
    assert relay.encode(channel.encode(), parts) == relay.frame([encoded])
    assert deserialize_msg_from_ws_v1(encoded) == (channel, parts)


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
@pytest.mark.parametrize(
    ("kind", "opcode"), [(relay.BINARY, ABNF.OPCODE_BINARY), (relay.TEXT, ABNF.OPCODE_TEXT)]
)
def test_a_frame_is_one_of_the_websocket_protocol(length: int, kind: int, opcode: int) -> None:
    data = b"x" * length
    assert relay.frame([data], kind) == ABNF(fin=1, opcode=opcode, mask_value=0, data=data).format()


async def until(condition: Any) -> None:
    async def wait() -> None:
        while not condition():  # noqa: ASYNC110 there is nobody to say so
            await asyncio.sleep(relay.PATIENCE)

    await asyncio.wait_for(wait(), 30)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)
