"""Executors whose sandboxes are booted ahead, and handed out in milliseconds."""

from sandkernel.pool.pool import SandboxPool

__all__ = ["SandboxPool"]
