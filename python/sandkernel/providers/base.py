"""Where gateways come from: this machine, one that already runs, Modal.

A sandbox is whatever has an `Endpoint` and can be terminated; nothing here is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from sandkernel.providers.endpoint import Endpoint

__all__ = ["Sandbox"]


@runtime_checkable
class Sandbox(Protocol):
    """A place with a kernel gateway in it."""

    @property
    def endpoint(self) -> Endpoint:
        """How to reach its gateway."""

    def terminate(self) -> None:
        """End it, as far as it is ours to end. May be called again, from any thread."""

    # What a sandbox may have besides:
    #   is_new                   whether it was made for this, and nobody's code has run in it before;
    #   install(requirements)    installs packages where its kernels find them;
    #   watch(on_end)            has a function called, in whichever thread, when it has ended;
    #   verdict(execution)       an error that says that it has ended by itself, or `None`: asked when its
    #                            connection broke.
