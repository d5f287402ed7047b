"""Executors for smolagents: what `CodeAgent(executor=...)` takes.

The only part of the package that imports smolagents.
"""

from sandkernel.executor.base import KernelExecutor
from sandkernel.executor.existing import GatewayExecutor
from sandkernel.executor.kernels import RunOutcome
from sandkernel.executor.local import LocalExecutor
from sandkernel.executor.modal import ModalExecutor

__all__ = ["GatewayExecutor", "KernelExecutor", "LocalExecutor", "ModalExecutor", "RunOutcome"]
