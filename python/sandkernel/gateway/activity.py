"""Notes whether a kernel is busy, as the gateway's REST interface tells it.

A stock gateway listens to all that each kernel publishes for that, beside every client. Here it reads no more
than it needs; while a relay hears the kernel anyway, the relay notes it, and nobody else listens.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from datetime import datetime, timezone
from typing import Any, List

import zmq

STATUS = b"status"
STATES = ("starting", "busy", "idle")
# As it comes nearly always, it need not be parsed.
USUAL = {b'{"execution_state": "%s"}' % state.encode(): state for state in STATES}
# The requests that make no kernel busy in this sense, as in the stock gateway.
PASSING = (b'"kernel_info_request"', b'"comm_info_request"', b'"shutdown_request"', b'"interrupt_request"')


def install() -> None:
    """Make the gateway read a kernel's statuses only, and only what it needs of them."""
    module: Any = importlib.import_module("jupyter_server.services.kernels.kernelmanager")
    watch = module.MappingKernelManager.start_watching_activity

    def watch_status(self: Any, kernel_id: str) -> None:
        watch(self, kernel_id)
        stream = self._kernels[kernel_id]._activity_stream
        record = stream._recv_callback
        # The first part is the topic, such as `kernel.<id>.status`.
        stream.on_recv(lambda parts: record(parts) if parts[0].endswith(STATUS) else None)

    module.MappingKernelManager.start_watching_activity = watch_status
    # Dates stay the texts that they are on the wire.
    session: Any = importlib.import_module("jupyter_client.session")
    session.extract_dates = lambda header: header


def note(kernel: Any, parts: List[bytes]) -> None:
    """Note a status: header, parent header, metadata, content."""
    state = USUAL.get(parts[3]) or parse(parts[3])
    # Code can say anything on its kernel's sockets: whoever gets it sees what it is.
    if state not in STATES:
        return
    if not any(name in parts[1] for name in PASSING):
        kernel.execution_state = state
        kernel.last_activity = kernel.parent.last_kernel_activity = datetime.now(timezone.utc)
    elif kernel.execution_state == "starting" != state:
        kernel.execution_state = "idle"


def parse(content: bytes) -> Any:
    """What a status says, or nothing."""
    try:
        return json.loads(content)["execution_state"]
    except (ValueError, LookupError, TypeError):
        return None


def listen(kernel: Any, *, everything: bool) -> None:
    """Have the gateway listen to a kernel itself, or leave that to a relay."""
    option = zmq.SUBSCRIBE if everything else zmq.UNSUBSCRIBE
    # A kernel that is gone has no stream any more, or one that is closed.
    with contextlib.suppress(AttributeError, zmq.ZMQError):
        kernel._activity_stream.socket.setsockopt(option, b"")
