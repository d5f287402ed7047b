"""Where the executors were: `sandkernel` and `sandkernel.integrations.smolagents` have them now."""

from sandkernel._moved import forward

_PLACE = "sandkernel.integrations.smolagents"
_NAMES = ("GatewayExecutor", "KernelExecutor", "LocalExecutor", "ModalExecutor", "RunOutcome")

__getattr__ = forward(__name__, {name: (_PLACE, name) for name in _NAMES})
