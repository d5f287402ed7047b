"""A gateway that already runs, and that someone else will end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from sandkernel.providers.endpoint import Endpoint


@dataclass(frozen=True)
class ExistingGateway:
    """A gateway or Jupyter server that runs independently of us.

    Attributes:
        endpoint: How to reach it.
        owns_kernel: Whether the kernel of the endpoint is the executor's alone.
    """

    owns_kernel: ClassVar[bool] = False

    endpoint: Endpoint

    def terminate(self) -> None:
        """Do nothing: what we did not start is not ours to end."""
