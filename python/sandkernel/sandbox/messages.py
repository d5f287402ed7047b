"""What a model is told when the kernel did not come to the end of its code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandkernel.exceptions import ExecutionTimeout, InterruptedExecutionError, KernelDied

if TYPE_CHECKING:
    from sandkernel._sandkernel import Execution

__all__ = [
    "NOTICE",
    "NOTICE_OF_REBOOT",
    "explain",
    "explain_unfetched",
    "explain_unprepared",
    "is_state_lost",
]

STATE_LOST = (
    "all variables, imports and functions that earlier steps defined are gone, and must be defined again if "
    "needed (the tools are still available)"
)
NOTICE_OF_REBOOT = (
    "[Note: the sandbox had ended, and a new one has taken its place since the last step: all files that "
    f"earlier steps wrote and {STATE_LOST}.]"
)
NOTICE = f"[Note: the kernel was restarted since the last step: {STATE_LOST}.]"


def is_state_lost(error: InterruptedExecutionError) -> bool:
    """Whether an error says that the kernel's state is gone."""
    return isinstance(error, KernelDied) or (isinstance(error, ExecutionTimeout) and error.restarted is True)


def explain(error: InterruptedExecutionError, limit: float | None, notice: str) -> InterruptedExecutionError:
    """Return the error in words that help a model.

    Args:
        error: What ended the execution.
        limit: The seconds that it was allowed; `None` for no limit.
        notice: What the model was to be told before this; empty for nothing.
    """
    prefix = f"{notice}\n" if notice and not is_state_lost(error) else ""
    if isinstance(error, ExecutionTimeout):
        if error.execution is None:
            message = f"{prefix}The code was not run: the sandbox did not answer within {limit:g} s."
            return ExecutionTimeout(f"{message} Try again later.", restarted=error.restarted)
        message = f"{prefix}The code was stopped: it ran longer than its time limit of {limit:g} s"
        if error.restarted:
            message += f" and did not react to an interrupt, so the kernel was restarted: {STATE_LOST}."
        elif error.restarted is None:
            message += ", and the sandbox does not answer: it may still run. Try again later."
        else:
            message += ". Variables, imports and functions are kept."
        return ExecutionTimeout(message, error.execution, restarted=error.restarted)
    if isinstance(error, KernelDied):
        message = (
            "The kernel died while it ran the code (out of memory, a crash in a library, or the code "
            f"ended the process): {STATE_LOST}."
        )
        return KernelDied(message, error.execution)
    return error


def explain_unprepared(error: ExecutionTimeout, limit: float | None) -> ExecutionTimeout:
    """Return the error of a step whose time was over before its code was asked for.

    Args:
        error: What was raised.
        limit: The seconds that the step was allowed; `None` for no limit.
    """
    within = "in time" if limit is None else f"within the time limit of {limit:g} s"
    message = f"The code was not run: the kernel could not be given what the code needs {within}."
    if error.restarted:
        message += f" It was restarted: {STATE_LOST}."
    return ExecutionTimeout(f"{message} Try again later.", restarted=error.restarted)


def explain_unfetched(error: ExecutionTimeout, execution: Execution) -> ExecutionTimeout:
    """Return the error of a step whose final answer did not arrive in time.

    Args:
        error: What was raised.
        execution: That of the code, which has ended.
    """
    return ExecutionTimeout(
        "The code ended, but its final answer did not arrive in time: give it again, or a smaller one.",
        execution,
        restarted=error.restarted,
    )
