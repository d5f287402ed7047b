"""What sessions on one kernel get of each other's executions."""

from __future__ import annotations

import json
import struct
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import websocket

from sandkernel import Session
from sandkernel.providers.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandkernel.providers.endpoint import Endpoint

V1 = "v1.kernel.websocket.jupyter.org"
NAME = "5e55" * 8


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with LocalSandbox() as sandbox:
        yield sandbox.endpoint


def asks_for_kernel_info() -> bytes:
    header = {"msg_id": f"{NAME}_1", "msg_type": "kernel_info_request", "username": "", "session": NAME}
    parts = [b"shell", *(json.dumps(part).encode() for part in ({**header, "version": "5.3"}, {}, {}, {}))]
    ends = [8 * (len(parts) + 2)]
    for part in parts:
        ends.append(ends[-1] + len(part))
    return struct.pack(f"<{len(ends) + 1}Q", len(ends), *ends) + b"".join(parts)


@pytest.mark.parametrize("journaled", [True, False])
def test_only_a_client_of_ours_is_spared_what_its_neighbours_asked_for(
    endpoint: Endpoint, *, journaled: bool
) -> None:
    headers = [f"Authorization: token {endpoint.token}"]
    if journaled:
        headers += ["Sandkernel-Received: 0", "Sandkernel-Limit: 100000000"]
    with Session.connect(endpoint.url, endpoint.token) as neighbour:
        url = f"{endpoint.url.replace('http', 'ws', 1)}/api/kernels/{neighbour.kernel_id}/channels"
        client = websocket.create_connection(
            f"{url}?session_id={NAME}", header=headers, subprotocols=[V1], timeout=60
        )
        with closing(client):
            client.send_binary(asks_for_kernel_info())
            while b'"kernel_info_reply"' not in (frame := client.recv()):
                pass
            assert NAME.encode() in frame
            neighbour.run("print('a word to the neighbour')")
            client.send_binary(asks_for_kernel_info().replace(b"_1", b"_2"))
            heard = []
            # What is published comes in order, and a reply at any time between: the last is that it is idle.
            while b'"idle"' not in (frame := client.recv()) or f"{NAME}_2".encode() not in frame:
                heard.append(frame)
    assert any(b"a word to the neighbour" in frame for frame in heard) is not journaled
