"""The sandbox of the user: its kernel, what that is given, and those that take its place.

No module here knows an agent framework; the adapters of `sandkernel.integrations` stand on `runner`.
"""

from sandkernel.sandbox.kernels import RunOutcome
from sandkernel.sandbox.sandbox import Sandbox

__all__ = ["RunOutcome", "Sandbox"]
