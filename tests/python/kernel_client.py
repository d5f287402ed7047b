"""A plain websocket client for one kernel: what the tests of the sandboxes need, and no more."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import websocket

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from sandkernel.providers.endpoint import Endpoint


@dataclass
class Outcome:
    stdout: str = ""
    result: str | None = None
    error: str | None = None


# The usual one is made once for a process, with the proxies that its environment has then.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def request(endpoint: Endpoint, method: str, path: str, token: str | None = None) -> tuple[int, Any]:
    call = urllib.request.Request(
        endpoint.url + path, method=method, headers={"Authorization": f"token {token or endpoint.token}"}
    )
    try:
        with OPENER.open(call, timeout=20) as response:
            body = response.read()
            return response.status, json.loads(body) if body else None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


class KernelClient:
    def __init__(self, endpoint: Endpoint, kernel_id: str | None = None) -> None:
        url = endpoint.url.replace("http", "ws", 1)
        self.socket = websocket.create_connection(
            f"{url}/api/kernels/{kernel_id or endpoint.kernel_id}/channels?session_id={uuid.uuid4().hex}",
            header=[f"Authorization: token {endpoint.token}"],
            timeout=60,
            skip_utf8_validation=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, code: str, ballast: str = "") -> str:
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        return self.send_message("shell", "execute_request", content, {"ballast": ballast})

    def send_message(
        self, channel: str, kind: str, content: dict[str, Any], metadata: dict[str, Any] | None = None
    ) -> str:
        identity = uuid.uuid4().hex
        header = {"msg_id": identity, "msg_type": kind, "username": "", "session": "s"}
        message = {
            "channel": channel,
            "header": {**header, "version": "5.3", "date": ""},
            "parent_header": {},
            "metadata": metadata or {},
            "content": content,
        }
        self.socket.send(json.dumps(message))
        return identity

    def receive(self) -> dict[str, Any]:
        return json.loads(self.socket.recv())  # type: ignore[no-any-return]

    def outcome(self, identity: str) -> Outcome:
        outcome, missing = Outcome(), {"idle", "reply"}
        while missing:
            message = self.receive()
            if message["parent_header"].get("msg_id") != identity:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                outcome.stdout += content["text"]
            elif message["msg_type"] == "execute_result":
                outcome.result = content["data"]["text/plain"]
            elif message["msg_type"] == "error":
                outcome.error = f"{content['ename']}: {content['evalue']}"
            elif message["msg_type"] == "execute_reply":
                missing.discard("reply")
            elif message["msg_type"] == "status":
                missing.discard(content["execution_state"])
        return outcome

    def run(self, code: str) -> Outcome:
        return self.outcome(self.send(code))


def run(endpoint: Endpoint, code: str) -> Outcome:
    with KernelClient(endpoint) as client:
        return client.run(code)
