"""Puts the modules that the executor relies on into a kernel."""

from __future__ import annotations

from sandkernel import kernel_modules

__all__ = ["load"]

# The modules up to the prelude itself: those after it are for others.
NAMES = list(kernel_modules.MODULES)[: list(kernel_modules.MODULES).index("_sandkernel") + 1]


def load(*, allow_pickle: bool) -> str:
    """Return the code that makes them modules of the kernel, and binds no name."""
    allow = f"setattr(__import__('_sandkernel'), 'allow_pickle', {allow_pickle!r})"
    return f"({kernel_modules.load(*NAMES)}, {allow})"
