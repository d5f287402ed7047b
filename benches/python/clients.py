"""The peers: what else one would run code with.

Each is as good as its library lets it be: connections stay open and send without delay, on the same gateway.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import websocket
from jupyter_client.manager import start_new_kernel
from jupyter_kernel_client import JupyterKernelClient

from gateways import request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandkernel.providers.endpoint import Endpoint


@contextmanager
def zmq_client(*, history_on_disk: bool = False) -> Iterator[Callable[[str], None]]:
    """The floor: a kernel of this process's own, and no gateway at all.

    By default the kernel writes no history, as ours do not: it is the client that is compared, not the disk.
    """
    arguments = [] if history_on_disk else ["--HistoryManager.hist_file=:memory:"]
    manager, client = start_new_kernel(stderr=subprocess.DEVNULL, extra_arguments=arguments)

    def run(code: str) -> None:
        """Does what an execution takes and no more: until the reply and the idle status are both there."""
        msg_id = client.execute(code)
        client.get_shell_msg(timeout=60)
        while True:
            message = client.get_iopub_msg(timeout=60)
            idle = message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
            if idle and message["parent_header"].get("msg_id") == msg_id:
                return

    try:
        yield run
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@contextmanager
def kernel(endpoint: Endpoint) -> Iterator[str]:
    """The id of a new kernel."""
    kernel_id = request(endpoint, "POST", "/api/kernels", {})["id"]
    try:
        yield kernel_id
    finally:
        request(endpoint, "DELETE", f"/api/kernels/{kernel_id}")


def channels(endpoint: Endpoint, kernel_id: str) -> str:
    """The address of a kernel's websocket."""
    return f"{endpoint.url.replace('http', 'ws', 1)}/api/kernels/{kernel_id}/channels"


V1 = "v1.kernel.websocket.jupyter.org"


def execute_request(code: str) -> tuple[str, bytes]:
    """The id of a message, and its frame in the v1 subprotocol."""
    msg_id = uuid.uuid4().hex
    header = {
        "msg_id": msg_id,
        "msg_type": "execute_request",
        "username": "",
        "session": msg_id,
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    parts = [b"shell", *(json.dumps(part).encode() for part in (header, {}, {}, content))]
    ends = [8 * (len(parts) + 2)]
    for part in parts:
        ends.append(ends[-1] + len(part))
    return msg_id, struct.pack(f"<{len(ends) + 1}Q", len(ends), *ends) + b"".join(parts)


class Attention:
    """Waits for the end of an execution: looks at headers, and at no more content than that takes."""

    def __init__(self, msg_id: str) -> None:
        self._msg_id = msg_id.encode()
        self._missing = {b'"execute_reply"', b'"idle"'}

    def is_over_after(self, frame: bytes) -> bool:
        (count,) = struct.unpack_from("<Q", frame)
        ends = struct.unpack_from(f"<{count}Q", frame, 8)
        if self._msg_id in frame[ends[2] : ends[3]]:
            header = frame[ends[1] : ends[2]]
            if b'"execute_reply"' in header:
                self._missing.discard(b'"execute_reply"')
            elif b'"status"' in header and b'"idle"' in frame[ends[4] : ends[5]]:
                self._missing.discard(b'"idle"')
        return not self._missing


@contextmanager
def websocket_client(endpoint: Endpoint) -> Iterator[Callable[[str], None]]:
    """The least that websocket-client takes: one connection, no delay; what arrives is thrown away."""
    with kernel(endpoint) as kernel_id:
        client = websocket.create_connection(
            channels(endpoint, kernel_id),
            header=[f"Authorization: token {endpoint.token}"],
            sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            subprotocols=[V1],
            skip_utf8_validation=True,
            timeout=300,
        )

        def run(code: str) -> None:
            msg_id, message = execute_request(code)
            client.send_binary(message)
            attention = Attention(msg_id)
            while not attention.is_over_after(client.recv()):
                pass

        try:
            run("1+1")
            yield run
        finally:
            client.close()


@contextmanager
def kernel_client(endpoint: Endpoint) -> Iterator[Callable[[str], object]]:
    """jupyter-kernel-client from PyPI. A kernel gateway takes its token in this form only."""
    header = {"Authorization": f"token {endpoint.token}"}
    with (
        kernel(endpoint) as kernel_id,
        JupyterKernelClient(
            kernel_id=kernel_id, server_url=endpoint.url, token=None, headers=header
        ) as client,
    ):
        client.execute("pass")
        yield client.execute
