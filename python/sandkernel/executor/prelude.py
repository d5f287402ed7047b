"""Puts the modules that the executor relies on into a kernel."""

from __future__ import annotations

from sandkernel import kernel_modules

__all__ = ["load"]

NAMES = ("_sandkernel_shipments", "_sandkernel_encoder", "_sandkernel_decoder", "_sandkernel")


def load(*, allow_pickle: bool) -> str:
    """Return the code that makes them modules of the kernel, and binds no name."""
    allow = f"setattr(__import__('_sandkernel'), 'allow_pickle', {allow_pickle!r})"
    return f"({kernel_modules.load(*NAMES)}, {allow})"
