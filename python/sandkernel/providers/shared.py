"""A sandbox that somebody else has and ends."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sandkernel.providers.base import Provider

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandkernel._sandkernel import Execution
    from sandkernel.exceptions import SandboxGone
    from sandkernel.providers.endpoint import Endpoint

__all__ = ["SharedSandbox"]


class SharedSandbox(Provider):
    """A sandbox that somebody else has and ends, for a further kernel in it.

    Args:
        sandbox: The sandbox. It installs packages, tells of its end and of its ports for this one too.
    """

    def __init__(self, sandbox: Provider) -> None:
        self._sandbox = sandbox
        self.can_install = sandbox.can_install
        self.knows_its_end = sandbox.knows_its_end

    @property
    def endpoint(self) -> Endpoint:
        """How to reach the gateway; there is no kernel yet."""
        return dataclasses.replace(self._sandbox.endpoint, kernel_id=None)

    def terminate(self) -> None:
        """Do nothing: whoever connects to the gateway creates the kernel, and deletes it."""

    def install(self, requirements: Sequence[str]) -> None:
        """Install packages in the sandbox; see `Provider.install`."""
        self._sandbox.install(requirements)

    def exit_error(self, execution: Execution | None = None) -> SandboxGone | None:
        """Find out whether the sandbox has ended; see `Provider.exit_error`."""
        return self._sandbox.exit_error(execution)

    def port_url(self, port: int) -> str:
        """Return the address of a server in the sandbox; see `Provider.port_url`."""
        return self._sandbox.port_url(port)
