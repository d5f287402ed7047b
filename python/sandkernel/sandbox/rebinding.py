"""What a kernel tells of names of tools that the agent's code had used for something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandkernel.sandbox import kernel_json

if TYPE_CHECKING:
    from collections.abc import Collection, Container

    from sandkernel._sandkernel import Execution, Result

__all__ = ["MIME", "notice", "notice_of_variables"]

MIME = "application/vnd.sandkernel.tools+json"
_CHARACTERS = 1 << 18


def notice(execution: Execution, known: Container[str]) -> str:
    """Return what the model is to be told of them; empty for nothing.

    Args:
        execution: Says which names the kernel has bound to their tools again. The kernel may be hostile:
        known: Only what is among these is told.
    """
    said = (name for result in execution.results for name in _names(result))
    names = dict.fromkeys(name for name in said if isinstance(name, str) and name in known)
    if not names:
        return ""
    return (
        f"[Note: {_are_tools(names)} again, as before: what the code made of the name is not kept. Give your "
        "variables and functions other names.]"
    )


def _names(result: Result) -> list[object]:
    names = kernel_json.parse(result.json_of(MIME) or "", _CHARACTERS)
    return names if isinstance(names, list) else []


def notice_of_variables(names: Collection[str]) -> str:
    """Return what the model is to be told of variables that have the names of tools; empty for nothing."""
    return f"[Note: {_are_tools(names)}: the variable of that name is not there.]" if names else ""


def _are_tools(names: Collection[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in names)
    return f"{listed} is a tool" if len(names) == 1 else f"{listed} are tools"
