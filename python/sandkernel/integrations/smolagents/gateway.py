"""An executor on a gateway that already runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

from sandkernel.integrations.smolagents.executor import KernelExecutor
from sandkernel.providers.endpoint import Endpoint
from sandkernel.providers.gateway import ExistingGateway

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sandkernel.integrations.smolagents.placement import Places
    from sandkernel.serialization import PayloadLimits
    from sandkernel.session import Authorization

__all__ = ["GatewayExecutor"]


class GatewayExecutor(KernelExecutor):
    """Runs an agent's code in a kernel of a kernel gateway or Jupyter server that already runs.

    Args:
        additional_imports: Packages to install, by the names under which they are imported, or as
            requirements. What the kernel can't import yet goes into its own environment, with its uv or pip.
        logger: A logger of smolagents; `None` for silence.
        allow_pickle: Whether values without a safe form travel as pickles; see `KernelExecutor`.
        url: The gateway's address, `http://` or `https://`. The token does not belong into it.
        token: The gateway's token, if it asks for one. It travels in a header, and stands in no log and no
            saved agent.
        authorization: How the token travels: "token", "bearer" or "query"; see `Session.connect`.
        kernel_id: A kernel to share, which `cleanup()` leaves running; by default one is started and deleted.
        kernel_name: The kind of kernel to start; the gateway's default if `None`.
        ca_certificates: A file of certificates to trust in addition, in PEM.
        connect_timeout: The seconds that the gateway may take to become ready.
        timeout: The seconds that an execution may take; `None` for no limit.
        max_logs_length: The characters of an execution's output that the model is shown.
        payload_limits: What a final answer, and the arguments of a call of a tool on the host, may hold; see
            `PayloadLimits`.
        tools: Where the tools run; see `KernelExecutor`.
        environment: Environment variables of the kernel; see `KernelExecutor`. A kernel that is shared keeps
            them.
        auto_reboot: Whether the next call starts a new kernel where the gateway or the kernel was found gone,
            as soon as the gateway is there again, `connect_timeout` at most; see `KernelExecutor`.
        session_options: What else `Session.connect` takes, for example `max_output_bytes`, or
            `allow_plain_http` for a gateway beyond the local network without `https://`.
        show_images: Whether the model sees the images that its code displays; see `KernelExecutor`.

    Raises:
        ConfigurationError: The address is malformed, or the token would travel unencrypted.
        BootError: The gateway can't be reached in time.
        AuthError: It refuses the token.
        KernelNotFoundError: It has no kernel of this id.
        PackageInstallError: A package can't be installed.
    """

    executor_type: ClassVar[str] = "sandkernel.GatewayExecutor"

    def __init__(
        self,
        additional_imports: Sequence[str] = (),
        logger: Any = None,  # noqa: ANN401 smolagents takes several
        allow_pickle: bool = False,  # noqa: FBT001, FBT002 smolagents' signature
        *,
        url: str,
        token: str | None = None,
        authorization: Authorization = "token",
        kernel_id: str | None = None,
        kernel_name: str | None = None,
        ca_certificates: str | None = None,
        connect_timeout: float = 60.0,
        timeout: float | None = None,
        max_logs_length: int = 20_000,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        tools: Places = "auto",
        environment: Mapping[str, str | None] | None = None,
        auto_reboot: bool = False,
        session_options: Mapping[str, Any] | None = None,
        show_images: bool = False,
    ) -> None:
        kernels = [kernel_id]

        def boot() -> ExistingGateway:
            # In the place of a kernel that is gone comes one of our own.
            wanted = kernels.pop() if kernels else None
            return ExistingGateway(Endpoint(url, token or "", wanted, ca_certificates))

        super().__init__(
            boot,
            additional_imports,
            logger,
            allow_pickle,
            timeout=timeout,
            max_logs_length=max_logs_length,
            payload_limits=payload_limits,
            tools=tools,
            environment=environment,
            auto_reboot=auto_reboot,
            show_images=show_images,
            session_options={
                "authorization": authorization,
                "kernel_name": kernel_name,
                "connect_timeout": connect_timeout,
                **(session_options or {}),
            },
        )
        self._settings |= {
            "url": _without_secrets(url),
            "authorization": authorization,
            "kernel_name": kernel_name,
            "ca_certificates": ca_certificates,
            "connect_timeout": connect_timeout,
        }


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
