"""What every sandbox of a provider can do, and the defaults of what only some can."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from sandkernel.concurrency import bridge
from sandkernel.exceptions import ConfigurationError, UnsupportedError
from sandkernel.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from sandkernel._sandkernel import Execution
    from sandkernel.exceptions import SandboxGone
    from sandkernel.providers.endpoint import Endpoint

__all__ = ["Provider", "as_provider"]


class Provider(ABC):
    """A place with a kernel gateway in it: one sandbox of a provider.

    A subclass has `endpoint` and `terminate`; all else has a default, which says that it can't do that.

    Attributes:
        is_new: Whether the sandbox was made for this, and nobody's code has run in it before. `False` by
            default: what a sandbox says of itself is believed only then.
        owns_kernel: Whether the kernel that `endpoint` names is nobody else's. `True` by default.
        can_install: Whether `install` works; otherwise the kernel installs packages by itself. `False` by
            default.
        knows_its_end: Whether `exit_error` can tell that the sandbox has ended; otherwise its gateway is
            asked. `False` by default.
    """

    is_new: bool = False
    owns_kernel: bool = True
    can_install: bool = False
    knows_its_end: bool = False

    @property
    @abstractmethod
    def endpoint(self) -> Endpoint:
        """How to reach its gateway."""

    @abstractmethod
    def terminate(self) -> None:
        """End it, as far as it is ours to end. May be called again, from any thread."""

    def connect(self, options: Mapping[str, Any]) -> Session:
        """Wait for the gateway, and open a session on its kernel.

        Args:
            options: Further arguments of `Session.connect`; they take precedence over the endpoint's.

        Raises:
            SandkernelError: The session can't be had; see `Session.connect`.
        """
        endpoint = self.endpoint
        arguments = {
            "kernel_id": endpoint.kernel_id,
            "owns_kernel": endpoint.kernel_id is not None and self.owns_kernel,
            "ca_certificates": endpoint.ca_certificates,
            **options,
        }
        # In a thread of its own, where it can be cancelled.
        return bridge.run(lambda: Session.aconnect(endpoint.url, endpoint.token or None, **arguments))

    def install(self, requirements: Sequence[str]) -> None:
        """Install packages where the kernels of this sandbox find them.

        Args:
            requirements: Requirements (PEP 508).

        Raises:
            UnsupportedError: This sandbox can't.
            PackageInstallError: A package can't be installed.
        """
        raise UnsupportedError(
            f"{type(self).__name__} installs no packages: have the kernel install {', '.join(requirements)}"
        )

    def watch(self, on_end: Callable[[], object]) -> None:
        """Have a function called once, in whichever thread, when the sandbox has ended.

        By default nobody is told: the end is noticed when a connection breaks.

        Args:
            on_end: The function.
        """
        del on_end

    def exit_error(self, execution: Execution | None = None) -> SandboxGone | None:
        """Find out whether the sandbox has ended by itself, after its connection broke.

        Args:
            execution: What was under way; `None` where nothing was.

        Returns:
            An error that says so; `None` where the sandbox still runs, was ended here, or can't tell (as by
            default).
        """
        del execution
        return None

    def port_url(self, port: int) -> str:
        """Return the address at which a server in the sandbox is reached from here.

        Args:
            port: Where the server listens in the sandbox.

        Raises:
            UnsupportedError: This sandbox can't tell.
        """
        raise UnsupportedError(
            f"{type(self).__name__} can't tell how port {port} of its sandbox is reached from here: only "
            "whoever runs the gateway knows"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.terminate()


class _Adapted(Provider):
    """A sandbox of a class that does not derive from `Provider`, with what it has of one."""

    def __init__(self, sandbox: Any) -> None:  # noqa: ANN401 any object with an endpoint
        self._sandbox = sandbox
        self.is_new = bool(getattr(sandbox, "is_new", False))
        self.owns_kernel = bool(getattr(sandbox, "owns_kernel", True))
        self.can_install = hasattr(sandbox, "install")
        # Until 0.1 the method was called `verdict`.
        self._exit_error = getattr(sandbox, "exit_error", None) or getattr(sandbox, "verdict", None)
        self.knows_its_end = self._exit_error is not None

    @property
    def endpoint(self) -> Endpoint:
        endpoint: Endpoint = self._sandbox.endpoint
        return endpoint

    def terminate(self) -> None:
        self._sandbox.terminate()

    def install(self, requirements: Sequence[str]) -> None:
        if not self.can_install:
            super().install(requirements)
        self._sandbox.install(requirements)

    def watch(self, on_end: Callable[[], object]) -> None:
        watch = getattr(self._sandbox, "watch", None)
        if watch is not None:
            watch(on_end)

    def exit_error(self, execution: Execution | None = None) -> SandboxGone | None:
        gone: SandboxGone | None = None if self._exit_error is None else self._exit_error(execution)
        return gone

    def port_url(self, port: int) -> str:
        ask = getattr(self._sandbox, "port_url", None)
        return super().port_url(port) if ask is None else str(ask(port))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 whatever the sandbox has besides
        if name == "_sandbox":
            raise AttributeError(name)
        return getattr(self._sandbox, name)

    def __repr__(self) -> str:
        return repr(self._sandbox)


def as_provider(sandbox: object) -> Provider:
    """Return a sandbox as a `Provider`: itself, or what adapts an object that has an endpoint and an end.

    Raises:
        ConfigurationError: It has no `endpoint`, or no `terminate`.
    """
    if isinstance(sandbox, Provider):
        return sandbox
    if not (hasattr(sandbox, "endpoint") and hasattr(sandbox, "terminate")):
        raise ConfigurationError(
            f"A sandbox has an endpoint and a method terminate, and {type(sandbox).__name__} has not: derive "
            "its class from sandkernel.providers.base.Provider"
        )
    return _Adapted(sandbox)
