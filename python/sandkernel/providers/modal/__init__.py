"""Sandboxes on Modal, through Modal's own SDK.

`sdk` is the only module that imports `modal`, and not before a sandbox is asked for.
"""

from sandkernel.providers.modal.sandbox import ModalSandbox

__all__ = ["ModalSandbox"]
