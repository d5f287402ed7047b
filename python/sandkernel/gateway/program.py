"""The program that runs in a gateway's process, as one text: it needs no file of ours where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sandkernel.gateway import sources

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["program"]

PACKAGES = ("sandkernel", "sandkernel.gateway", "sandkernel.gateway.kernel_tuning")
MODULES = (
    "activity",
    "bootstrap",
    "confinement",
    "deaths",
    "imports",
    "journal",
    "kernel_tuning.event_loop",
    "kernel_tuning.execution",
    "kernel_tuning.exits",
    "kernel_tuning.failures",
    "kernel_tuning.publishing",
    "kernel_tuning.requests",
    "kernel_tuning.sending",
    "kernel_tuning.start",
    "kernels",
    "launch",
    "pieces",
    "processes",
    "relay",
    "removal",
    "restarts",
    "shortening",
    "sources",
    "supervision",
    "tuning",
)


def program(written: Callable[[str], str] = str) -> str:
    """Return the text of the program: the sources of this folder, and what imports them.

    Args:
        written: Changes the text of each module, without a change of what the module does.
    """
    folder = Path(__file__).parent
    texts = dict.fromkeys(PACKAGES, "")
    for name in MODULES:
        path = folder.joinpath(*name.split(".")).with_suffix(".py")
        texts[f"sandkernel.gateway.{name}"] = written(path.read_text(encoding="utf-8"))
    return sources.program(texts, "from sandkernel.gateway.bootstrap import main\n\nmain()\n")
