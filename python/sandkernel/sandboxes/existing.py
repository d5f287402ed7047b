"""A gateway that already runs, and that someone else will end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandkernel.sandboxes.endpoint import Endpoint


@dataclass(frozen=True)
class ExistingGateway:
    """A gateway or Jupyter server that runs independently of us.

    Attributes:
        endpoint: How to reach it.
    """

    endpoint: Endpoint

    def terminate(self) -> None:
        """Do nothing: what we did not start is not ours to end."""
