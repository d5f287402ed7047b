"""Tells over REST how often a kernel's process was replaced.

Code in a kernel can publish, in the gateway's name, that its kernel is being restarted: what the gateway
itself says is the model of the kernel, under `FIELD`.
"""

from __future__ import annotations

import importlib
from typing import Any

from jupyter_core.utils import ensure_async

FIELD = "sandkernel_restarts"
# Of a kernel's manager.
COUNT = "_sandkernel_restarts"


def note(kernel: Any) -> None:
    """Note that a kernel's process is replaced, or would be."""
    setattr(kernel, COUNT, getattr(kernel, COUNT, 0) + 1)


def install(manager: Any) -> None:
    """Have the models of a manager's kernels tell how often they were restarted.

    Whoever is told of a restart finds it counted: what tells sessions of it is installed before.
    """
    restarter: Any = importlib.import_module("jupyter_client.restarter").KernelRestarter
    fire, describe, restart = restarter._fire_callbacks, manager.kernel_model, manager.restart_kernel

    def note_and_fire(self: Any, event: str) -> None:
        note(self.kernel_manager)
        fire(self, event)

    def describe_with_restarts(kernel_id: str) -> dict[str, Any]:
        model: dict[str, Any] = describe(kernel_id)
        model[FIELD] = getattr(manager.get_kernel(kernel_id), COUNT, 0)
        return model

    async def note_and_restart(kernel_id: str, *arguments: Any, **options: Any) -> Any:
        if kernel_id in manager:
            note(manager.get_kernel(kernel_id))
        return await ensure_async(restart(kernel_id, *arguments, **options))

    restarter._fire_callbacks = note_and_fire
    manager.kernel_model, manager.restart_kernel = describe_with_restarts, note_and_restart
