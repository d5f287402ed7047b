"""Sandboxes on this machine."""

from sandkernel.providers.local.sandbox import LocalSandbox

__all__ = ["LocalSandbox"]
