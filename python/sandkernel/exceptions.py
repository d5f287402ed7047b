"""What goes wrong below the user's code.

An error that the user's code raises is data (`Execution.error`); only an executor turns it into the exception
that its framework expects. What breaks underneath raises one of these::

    SandkernelError
    ├── ConfigurationError (ValueError)   an argument that can't work: a malformed URL, an unknown scheme
    ├── BootError                         a sandbox or a gateway did not become ready
    │   ├── CertificateError              its TLS certificate is not acceptable
    │   ├── UnresolvableError             its host name does not resolve
    │   └── CredentialsError              the provider of the sandbox refuses the credentials
    ├── GatewayError                      the gateway refuses a request, or is no gateway at all
    │   ├── AuthError                     it refuses the token
    │   └── KernelNotFoundError           it knows no kernel of that id
    ├── InterruptedExecutionError         an execution was cut short; `.execution` has what had arrived
    │   ├── ConnectionLost                the connection to the kernel broke
    │   ├── KernelDied                    the kernel's process ended
    │   ├── ExecutionTimeout (TimeoutError)
    │   └── SandboxGone                   the sandbox ended, and all its state is lost
    │       └── SandboxExpired            its lifetime was over
    ├── UnsupportedError                  the sandbox can't do that
    │   └── UnsupportedKernelError        its kernel can't: it runs no Python, or is no ipykernel
    ├── StateLost                         the code was meant for a state that is gone; it was not run
    ├── KernelUnresponsive                the kernel does not run code any more; the code was not run
    ├── ProtocolError                     the peer does not speak the protocol
    ├── PayloadError                      a value that is not taken: too large, too deep, of a refused kind
    ├── VariableNotFoundError (LookupError)   the kernel has no variable of that name
    ├── PackageInstallError               a package can't be installed; `.output` has the installer's words
    ├── SandboxFileError (OSError)        a file of a sandbox can't be had, or written; `.path` says which
    │   ├── SandboxFileNotFoundError (FileNotFoundError)
    │   ├── SandboxFileExistsError (FileExistsError)
    │   ├── SandboxIsADirectoryError (IsADirectoryError)
    │   ├── SandboxNotADirectoryError (NotADirectoryError)
    │   ├── SandboxPermissionError (PermissionError)
    │   └── SandboxFileTooLargeError      more bytes, or more files, than was allowed
    ├── ClosedError                       used after it was closed
    └── ForkError                         used in a process forked off its owner
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

from sandkernel._sandkernel import printable

if TYPE_CHECKING:
    from sandkernel._sandkernel import Execution

__all__ = [
    "AuthError",
    "BootError",
    "CertificateError",
    "ClosedError",
    "ConfigurationError",
    "ConnectionLost",
    "CredentialsError",
    "ExecutionTimeout",
    "ForkError",
    "GatewayError",
    "InterruptedExecutionError",
    "KernelDied",
    "KernelNotFoundError",
    "KernelUnresponsive",
    "PackageInstallError",
    "PayloadError",
    "ProtocolError",
    "SandboxExpired",
    "SandboxFileError",
    "SandboxFileExistsError",
    "SandboxFileNotFoundError",
    "SandboxFileTooLargeError",
    "SandboxGone",
    "SandboxIsADirectoryError",
    "SandboxNotADirectoryError",
    "SandboxPermissionError",
    "SandkernelError",
    "StateLost",
    "UnresolvableError",
    "UnsupportedError",
    "UnsupportedKernelError",
    "VariableNotFoundError",
]


class SandkernelError(Exception):
    """The root of every error that Sandkernel raises.

    Its text is printable: what a kernel or a gateway wrote into it does nothing to a terminal.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(printable(each) if isinstance(each, str) else each for each in arguments))


class ConfigurationError(SandkernelError, ValueError):
    """An argument that can't work, found before anything was started."""


class BootError(SandkernelError):
    """A sandbox or a gateway did not become ready.

    Attributes:
        output: The last output of the gateway's process, where it is one of ours; otherwise empty.
    """

    def __init__(self, message: str, *, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class CertificateError(BootError):
    """The TLS certificate of the gateway is not acceptable."""


class UnresolvableError(BootError):
    """The host name of the gateway does not resolve."""


class CredentialsError(BootError):
    """The provider of the sandbox refuses the credentials: missing, wrong, or not allowed to do this."""


class GatewayError(SandkernelError):
    """The gateway refuses a request, or what answers is no gateway."""


class AuthError(GatewayError):
    """The gateway refuses the token."""


class KernelNotFoundError(GatewayError):
    """The gateway knows no kernel of that id."""


class InterruptedExecutionError(SandkernelError):
    """An execution was cut short.

    Attributes:
        execution: What had arrived of it; `None` where no execution was under way.
    """

    def __init__(self, message: str, execution: Execution | None = None) -> None:
        super().__init__(message)
        self.execution = execution


class ConnectionLost(InterruptedExecutionError):  # noqa: N818 the name is public API
    """The connection to the kernel broke."""


class KernelDied(InterruptedExecutionError):  # noqa: N818 the name is public API
    """The kernel's process ended; its state is gone."""


class ExecutionTimeout(InterruptedExecutionError, TimeoutError):  # noqa: N818 the name is public API
    """An execution took longer than its timeout.

    Attributes:
        execution: What had arrived of it; `None` where the kernel could not be asked in time to run it.
        restarted: Whether the kernel ignored the interrupt and was restarted, which loses its state. `None`:
            not known yet, since the gateway did not answer. The next execution waits until the code has
            ended; `Session.generation` tells then.
    """

    def __init__(
        self, message: str, execution: Execution | None = None, *, restarted: bool | None = False
    ) -> None:
        super().__init__(message, execution)
        self.restarted = restarted


class SandboxGone(InterruptedExecutionError):  # noqa: N818 the name is public API
    """The sandbox ended, and with it the kernel and all its state."""


class SandboxExpired(SandboxGone):
    """The lifetime of the sandbox was over."""


class StateLost(SandkernelError):  # noqa: N818 named as its neighbours
    """The kernel was restarted since, and its state is gone; the code that was meant for it was not run."""


class KernelUnresponsive(SandkernelError):  # noqa: N818 named as its neighbours
    """The kernel is there, but does not run code any more; the code was not run.

    After an execution whose end the kernel did not tell, it has to show within 10 seconds, in three attempts,
    that it still runs code. One that is the session's own is restarted where it does not. This is raised
    where it is only shared; `Session.restart` restarts it all the same.
    """


class UnsupportedError(SandkernelError):
    """The sandbox, or its kernel, can't do what was asked."""


class UnsupportedKernelError(UnsupportedError):
    """The kernel can't do what was asked: it runs another language than Python, or is no ipykernel.

    Attributes:
        language: The language of the kernel, as it says itself; `None` where it does not.
    """

    def __init__(self, message: str, *, language: str | None = None) -> None:
        super().__init__(message)
        self.language = language


class ProtocolError(SandkernelError):
    """The peer does not speak the kernel messaging protocol."""


class PayloadError(SandkernelError):
    """A value that is not taken: too large, too deep, or of a kind that is refused."""


class VariableNotFoundError(SandkernelError, LookupError):
    """The kernel has no variable of that name."""


class PackageInstallError(SandkernelError):
    """A package could not be installed.

    Attributes:
        output: What the installer printed.
    """

    def __init__(self, message: str, *, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class SandboxFileError(SandkernelError, OSError):
    """A file of a sandbox can't be read, written, listed or removed.

    Attributes:
        path: The path in the sandbox.
    """

    _number: ClassVar[int] = errno.EIO

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.errno = self._number
        self.path = path


class SandboxFileNotFoundError(SandboxFileError, FileNotFoundError):
    """There is nothing of that name in the sandbox."""

    _number = errno.ENOENT


class SandboxFileExistsError(SandboxFileError, FileExistsError):
    """Something of that name is there already."""

    _number = errno.EEXIST


class SandboxIsADirectoryError(SandboxFileError, IsADirectoryError):
    """A file was expected, and a directory is there."""

    _number = errno.EISDIR


class SandboxNotADirectoryError(SandboxFileError, NotADirectoryError):
    """A directory was expected, and something else is there."""

    _number = errno.ENOTDIR


class SandboxPermissionError(SandboxFileError, PermissionError):
    """The sandbox's own permissions forbid it."""

    _number = errno.EACCES


class SandboxFileTooLargeError(SandboxFileError):
    """There are more bytes, or more files, than was allowed."""

    _number = errno.EFBIG


class ClosedError(SandkernelError):
    """Used after it was closed."""


class ForkError(SandkernelError):
    """Used in a process that was forked off its owner.

    A connection can't be shared across `fork`: open a new session in the child.
    """
