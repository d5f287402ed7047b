"""A gateway that already runs, and that someone else will end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandkernel.providers.base import Provider

if TYPE_CHECKING:
    from sandkernel.providers.endpoint import Endpoint

__all__ = ["ExistingGateway"]


class ExistingGateway(Provider):
    """A gateway or Jupyter server that runs independently of us.

    Args:
        endpoint: How to reach it.
    """

    owns_kernel = False

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    @property
    def endpoint(self) -> Endpoint:
        """How to reach it."""
        return self._endpoint

    def terminate(self) -> None:
        """Do nothing: what we did not start is not ours to end."""

    def __repr__(self) -> str:
        return f"<ExistingGateway {self._endpoint!r}>"
