"""A stock gateway: what `jupyter kernelgateway` starts, with nothing changed."""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sandkernel.providers.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

POLL_SECONDS = 0.005


def request(endpoint: Endpoint, method: str, path: str, content: object = None) -> Any:
    """An answer of a gateway's REST interface."""
    data = None if content is None else json.dumps(content).encode()
    asked = urllib.request.Request(endpoint.url + path, data, method=method)
    asked.add_header("Authorization", f"token {endpoint.token}")
    context = ssl.create_default_context() if endpoint.url.startswith("https") else None
    with urllib.request.urlopen(asked, timeout=60, context=context) as answer:
        return json.loads(answer.read() or b"null")


@contextmanager
def stock_gateway() -> Iterator[Endpoint]:
    """A gateway that serves, asked every 5 ms whether it does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    endpoint = Endpoint(f"http://127.0.0.1:{port}", secrets.token_hex())
    gateway = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "kernelgateway", "--ip=127.0.0.1", f"--port={port}"],
        env={**os.environ, "KG_AUTH_TOKEN": endpoint.token},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            with suppress(OSError):
                request(endpoint, "GET", "/api/kernelspecs")
                break
            time.sleep(POLL_SECONDS)
        yield endpoint
    finally:
        gateway.terminate()
        gateway.wait()
