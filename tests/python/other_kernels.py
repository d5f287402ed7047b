"""Kernels that are no ipykernel, or run no Python, for gateways that tests start."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from executor_support import StockGateway, running_gateway, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

# There are wheels of xeus-python for some machines only.
HAS_XEUS = importlib.util.find_spec("xpython") is not None
# Those that run Python, and are no ipykernel.
PYTHONS = ["plain", *(["xeus", "xeus-raw"] if HAS_XEUS else [])]


def _specification(language: str, *command: str) -> str:
    argv = [sys.executable, *command, "-f", "{connection_file}"]
    return json.dumps({"argv": argv, "display_name": command[-1], "language": language})


@contextmanager
def with_other_kernels(server: str) -> Iterator[StockGateway]:
    """A stock kernel gateway (`gateway`) or Jupyter server (`server`) that knows these kernels."""
    specifications = {
        "bash": _specification("bash", "-m", "bash_kernel"),
        "plain": _specification("python", str(Path(__file__).with_name("plain_kernel.py"))),
    }
    if HAS_XEUS:
        specifications["xeus"] = _specification("python", "-m", "xpython_launcher")
        specifications["xeus-raw"] = _specification("python", "-m", "xpython_launcher", "--raw")
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        for name, specification in specifications.items():
            path = Path(directory, "kernels", name, "kernel.json")
            path.parent.mkdir(parents=True)
            path.write_text(specification, encoding="utf-8")
        patch.setenv("JUPYTER_PATH", directory)
        with running_server() if server == "server" else running_gateway() as gateway:
            yield gateway
