"""Runs the code of agents in real Jupyter kernels.

`Sandbox` runs code in a sandbox on this machine, on Modal or on any Jupyter gateway, for any framework.
For smolagents: `ModalExecutor`, `LocalExecutor` and `GatewayExecutor`, for `CodeAgent(executor=...)`;
`SandboxPool` boots them ahead. Below both: `Session`, one kernel of a gateway.

Nothing is imported before it is used: `import sandkernel` is a matter of milliseconds.
"""

from __future__ import annotations

# What type checkers take for true. `typing` is not imported for it: that alone takes longer than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandkernel._sandkernel import (
        ClearOutput,
        Execution,
        ExecutionError,
        ExecutionStream,
        InputRequest,
        Output,
        Result,
        Skipped,
        __version__,
    )
    from sandkernel.exceptions import (
        AuthError,
        BootError,
        CertificateError,
        ClosedError,
        ConfigurationError,
        ConnectionLost,
        CredentialsError,
        ExecutionTimeout,
        ForkError,
        GatewayError,
        InterruptedExecutionError,
        KernelDied,
        KernelNotFoundError,
        KernelUnresponsive,
        PackageInstallError,
        PayloadError,
        ProtocolError,
        SandboxExpired,
        SandboxFileError,
        SandboxFileExistsError,
        SandboxFileNotFoundError,
        SandboxFileTooLargeError,
        SandboxGone,
        SandboxIsADirectoryError,
        SandboxNotADirectoryError,
        SandboxPermissionError,
        SandkernelError,
        StateLost,
        UnresolvableError,
        UnsupportedError,
        UnsupportedKernelError,
        VariableNotFoundError,
    )
    from sandkernel.files import FileEntry, Files
    from sandkernel.integrations.smolagents import (
        GatewayExecutor,
        KernelExecutor,
        LocalExecutor,
        ModalExecutor,
        RunOutcome,
    )
    from sandkernel.pool import SandboxPool
    from sandkernel.sandbox import Sandbox
    from sandkernel.session import Session

__all__ = [
    "AuthError",
    "BootError",
    "CertificateError",
    "ClearOutput",
    "ClosedError",
    "ConfigurationError",
    "ConnectionLost",
    "CredentialsError",
    "Execution",
    "ExecutionError",
    "ExecutionStream",
    "ExecutionTimeout",
    "FileEntry",
    "Files",
    "ForkError",
    "GatewayError",
    "GatewayExecutor",
    "InputRequest",
    "InterruptedExecutionError",
    "KernelDied",
    "KernelExecutor",
    "KernelNotFoundError",
    "KernelUnresponsive",
    "LocalExecutor",
    "ModalExecutor",
    "Output",
    "PackageInstallError",
    "PayloadError",
    "PayloadLimits",
    "ProtocolError",
    "Result",
    "RunOutcome",
    "Sandbox",
    "SandboxExpired",
    "SandboxFileError",
    "SandboxFileExistsError",
    "SandboxFileNotFoundError",
    "SandboxFileTooLargeError",
    "SandboxGone",
    "SandboxIsADirectoryError",
    "SandboxNotADirectoryError",
    "SandboxPermissionError",
    "SandboxPool",
    "SandkernelError",
    "Session",
    "Skipped",
    "StateLost",
    "UnresolvableError",
    "UnsupportedError",
    "UnsupportedKernelError",
    "VariableNotFoundError",
    "__version__",
]

_MODULES = {
    "sandkernel._sandkernel": (
        "ClearOutput",
        "Execution",
        "ExecutionError",
        "ExecutionStream",
        "InputRequest",
        "Output",
        "Result",
        "Skipped",
        "__version__",
    ),
    # These import smolagents, which takes half a second.
    "sandkernel.integrations.smolagents": (
        "GatewayExecutor",
        "KernelExecutor",
        "LocalExecutor",
        "ModalExecutor",
    ),
    "sandkernel.files": ("FileEntry", "Files"),
    "sandkernel.pool": ("SandboxPool",),
    "sandkernel.serialization": ("PayloadLimits",),
    "sandkernel.sandbox": ("RunOutcome", "Sandbox"),
    "sandkernel.session": ("Session",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    import importlib  # noqa: PLC0415 not needed before

    if name in _MODULE_OF:
        module = _MODULE_OF[name]
    elif name in __all__:
        module = "sandkernel.exceptions"
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
