"""A sandbox that somebody else has and ends."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandkernel.providers.base import Sandbox
    from sandkernel.providers.endpoint import Endpoint

__all__ = ["SharedSandbox"]


class SharedSandbox:
    """A sandbox that somebody else has and ends, for a further kernel in it.

    Args:
        sandbox: The sandbox. What it can do besides, this one can too.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    @property
    def endpoint(self) -> Endpoint:
        """How to reach the gateway; there is no kernel yet."""
        return dataclasses.replace(self._sandbox.endpoint, kernel_id=None)

    def terminate(self) -> None:
        """Do nothing: whoever connects to the gateway creates the kernel, and deletes it."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 what the sandbox has
        if name not in {"install", "verdict"}:
            raise AttributeError(name)
        return getattr(self._sandbox, name)
