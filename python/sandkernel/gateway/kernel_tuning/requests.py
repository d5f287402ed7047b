"""How a kernel takes requests and replies to them: at once."""

from __future__ import annotations

import importlib
import threading
from typing import Any


def take_requests_at_once() -> None:
    """Have the main thread read the shell socket itself, as before ipykernel 7.

    Since then another thread looks which subshell a request is for. No client of ours asks for subshells.
    """
    application: Any = importlib.import_module("ipykernel.kernelapp")
    kernel: Any = importlib.import_module("ipykernel.kernelbase").Kernel

    class NoThread:
        """What is asked for its main thread, and is false, as if there were no thread."""

        def __init__(self, *_: Any, **__: Any) -> None:
            self.parent_thread = threading.current_thread()

        def __bool__(self) -> bool:
            return False

    if hasattr(application, "ShellChannelThread") and hasattr(kernel, "_supports_kernel_subshells"):
        application.ShellChannelThread = NoThread
        kernel._supports_kernel_subshells = False


def reply_at_once() -> None:
    """Do not sleep before the reply: ipykernel does, for clients that do not look for the idle status."""
    kernel: Any = importlib.import_module("ipykernel.kernelbase").Kernel
    kernel._execute_sleep = 0


TUNINGS = (take_requests_at_once, reply_at_once)
