"""A boot on Modal, constructor to first result: ours, smolagents', and the floor, on the local stand-in.

The floor is one process that does no more than is needed with a stock gateway: it spawns it, asks every 5 ms
whether it serves, creates a kernel, connects and runs `1+1`. All take turns in one run, so that whatever
else the machine does hits all alike. Run with `.venv/bin/python benches/python/boot.py`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import secrets
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import smolagents.remote_executors
import websocket
from smolagents.monitoring import AgentLogger, LogLevel

from sandkernel import ModalExecutor, SandboxPool
from sandkernel.testing import LocalModal

if TYPE_CHECKING:
    from collections.abc import Callable

QUIET = AgentLogger(level=LogLevel.OFF)
CODE = "1+1"
PEER = "smolagents' ModalExecutor"


def floor() -> float:
    """Seconds from the spawn of a stock gateway to the first result."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    token = secrets.token_hex()
    began = time.perf_counter()
    gateway = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "kernelgateway", "--ip=127.0.0.1", f"--port={port}"],
        env={**os.environ, "KG_AUTH_TOKEN": token},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            with suppress(OSError):
                request(port, token, "/api/kernelspecs")
                break
            time.sleep(0.005)
        kernel_id = json.loads(request(port, token, "/api/kernels", b"{}"))["id"]
        header = [f"Authorization: token {token}"]
        channel = websocket.create_connection(
            f"ws://127.0.0.1:{port}/api/kernels/{kernel_id}/channels", header=header, timeout=60
        )
        channel.send(json.dumps(execute_request()))
        while True:
            message = json.loads(channel.recv())
            if message["msg_type"] == "execute_result":
                assert message["content"]["data"]["text/plain"] == "2"
                break
        seconds = time.perf_counter() - began
        channel.close()
        return seconds
    finally:
        gateway.terminate()
        gateway.wait()


def request(port: int, token: str, path: str, data: bytes | None = None) -> bytes:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Authorization": f"token {token}"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        content: bytes = answer.read()
        return content


def execute_request() -> dict[str, Any]:
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "username": "",
        "session": uuid.uuid4().hex,
        "version": "5.3",
    }
    content = {"code": CODE, "silent": False, "store_history": True, "user_expressions": {}}
    return {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}


def boot(kind: Callable[..., Any]) -> float:
    """Seconds from an executor's constructor to its first result."""
    began = time.perf_counter()
    executor = kind([], QUIET)
    try:
        assert executor(CODE).output == "2"
        return time.perf_counter() - began
    finally:
        executor.cleanup()


def measure_boots(runs: int) -> None:
    cases: dict[str, Callable[[], float]] = {
        "floor: stock gateway, polled every 5 ms": floor,
        PEER: lambda: boot(smolagents.remote_executors.ModalExecutor),
        "ours": lambda: boot(ModalExecutor),
    }
    for case in cases.values():
        case()
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(runs):
        for name, case in cases.items():
            taken[name].append(case())
    medians = {name: statistics.median(values) for name, values in taken.items()}
    base = next(iter(medians.values()))
    print(f"| constructor to first result | median (s) | best | worst | of the floor |  ({runs} runs each)")
    print("|---|---|---|---|---|")
    for name, values in taken.items():
        cells = (medians[name], min(values), max(values), medians[name] / base)
        print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    faster = medians[PEER] / medians["ours"]
    print(f"\nours is {faster:.1f} times as fast as smolagents'\n")


def measure_pool(runs: int) -> None:
    with SandboxPool(1, ModalExecutor, check_interval=600) as pool:
        acquired, executions = [], []
        for _ in range(runs):
            while not pool.ready:
                time.sleep(0.01)
            began = time.perf_counter()
            executor = pool.acquire()
            executor(CODE)
            acquired.append(time.perf_counter() - began)
            while not pool.ready:
                time.sleep(0.01)
            for _ in range(5):
                began = time.perf_counter()
                executor(CODE)
                executions.append(time.perf_counter() - began)
            executor.cleanup()
    first, one = statistics.median(acquired), statistics.median(executions)
    print(f"pool: acquire to first result {first * 1000:.1f} ms,", end=" ")
    print(f"one execution {one * 1000:.1f} ms: {first / one:.1f} times that")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    versions = {name: importlib.metadata.version(name) for name in ("smolagents", "modal", "ipykernel")}
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, {versions}\n")
    with LocalModal(environment={"PIP_NO_INDEX": "1"}) as cloud, cloud.activate():
        measure_boots(runs)
        measure_pool(runs)
        cloud.assert_no_running_sandboxes()


if __name__ == "__main__":
    main()
