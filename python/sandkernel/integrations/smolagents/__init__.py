"""Executors for smolagents: what `CodeAgent(executor=...)` takes.

The only part of the package that imports smolagents.
"""

from sandkernel.integrations.smolagents.executor import KernelExecutor
from sandkernel.integrations.smolagents.gateway import GatewayExecutor
from sandkernel.integrations.smolagents.local import LocalExecutor
from sandkernel.integrations.smolagents.modal import ModalExecutor
from sandkernel.sandbox.kernels import RunOutcome

__all__ = ["GatewayExecutor", "KernelExecutor", "LocalExecutor", "ModalExecutor", "RunOutcome"]
