"""The program that runs in a gateway's process, as one text: it needs no file of ours where it runs."""

from __future__ import annotations

from pathlib import Path

from sandkernel.gateway import sources

__all__ = ["program"]

PACKAGES = ("sandkernel", "sandkernel.gateway", "sandkernel.gateway.kernel_tuning")
MODULES = (
    "activity",
    "bootstrap",
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
    "processes",
    "relay",
    "removal",
    "restarts",
    "shortening",
    "sources",
    "tuning",
)


def program() -> str:
    """Return the text of the program: the sources of this folder, and what imports them."""
    folder = Path(__file__).parent
    texts = dict.fromkeys(PACKAGES, "")
    for name in MODULES:
        path = folder.joinpath(*name.split(".")).with_suffix(".py")
        texts[f"sandkernel.gateway.{name}"] = path.read_text(encoding="utf-8")
    return sources.program(texts, "from sandkernel.gateway.bootstrap import main\n\nmain()\n")
