"""Shows the model, in its next message, the images that its code displayed.

smolagents puts `ActionStep.observations_images` into the messages of the next step, and asks no executor for
them. The step is a local variable of the method that calls the executor, `_step_stream`. It is
looked for there: so the images are those of the very agent whose code was run, whichever agents share the
executor, in whichever threads, and however the agent came by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smolagents.memory import ActionStep

from sandkernel.sandbox.final_answer import last_images
from sandkernel.serialization.budget import Budget

if TYPE_CHECKING:
    from types import FrameType

    from sandkernel._sandkernel import Execution
    from sandkernel.serialization import PayloadLimits

__all__ = ["show", "step_of"]

# Of one step: the last ones. Every later message of the run holds them again.
MAX_IMAGES = 4
MAX_SIDE = 2048
# Between the agent's method and the executor there may be wrappers, such as those of a tracer.
_FRAMES = 20
# What can be written as PNG, which the models of smolagents send.
_MODES = frozenset(["1", "L", "LA", "P", "RGB", "RGBA"])


def step_of(frame: FrameType | None) -> ActionStep | None:
    """Return the step of the agent that runs code by the call that a frame belongs to; `None` without one."""
    for _ in range(_FRAMES):
        if frame is None:
            return None
        step = frame.f_locals.get("memory_step")
        if isinstance(step, ActionStep):
            return step
        frame = frame.f_back
    return None


def show(execution: Execution, step: ActionStep, limits: PayloadLimits) -> None:
    """Give a step the images that its code displayed: at most four, none wider or higher than 2,048 pixels.

    Args:
        execution: What the code did.
        step: The step. Images that it has already, such as those of the task, stay.
        limits: What an image of the kernel's may have; one that has more is left out.
    """
    found: list[Any] = []
    for image in last_images(execution, Budget(limits)):
        displayed = _fitting(image)
        if displayed is not None:
            found.append(displayed)
            if len(found) == MAX_IMAGES:
                break
    if found:
        step.observations_images = [*(step.observations_images or ()), *reversed(found)]


def _fitting(found: Any) -> Any | None:  # noqa: ANN401 PIL is optional
    try:
        if found.mode not in _MODES:
            found = found.convert("RGB")
        found.thumbnail((MAX_SIDE, MAX_SIDE))
    except Exception:  # noqa: BLE001 the pixels are the kernel's, and PIL raises whatever comes up
        return None
    return found
