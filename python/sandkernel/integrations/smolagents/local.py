"""An executor on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sandkernel import arguments, packages
from sandkernel.integrations.smolagents.executor import KernelExecutor
from sandkernel.providers.local import LocalSandbox

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from sandkernel.integrations.smolagents.placement import Places
    from sandkernel.serialization import PayloadLimits

__all__ = ["LocalExecutor"]


class LocalExecutor(KernelExecutor):
    """Runs an agent's code in a kernel on this machine: no account is needed.

    This is no isolation boundary. The code runs as your user: it can read and write your files, and use your
    network. It has a home directory of its own, and none of your environment variables that may be secret; on
    Linux 6.12 and later it can't reach your processes either (see `LocalSandbox`). For code that you don't
    trust, run the gateway in a container or a virtual machine of its own.

    Args:
        additional_imports: Packages to install, by the names under which they are imported, or as
            requirements. They go into an environment of their own, never into yours.
        logger: A logger of smolagents; `None` for silence.
        allow_pickle: Whether values without a safe form travel as pickles; see `KernelExecutor`.
        timeout: The seconds that an execution may take; `None` for no limit.
        max_logs_length: The characters of an execution's output that the model is shown.
        payload_limits: What a final answer, and the arguments of a call of a tool on the host, may hold; see
            `PayloadLimits`.
        tools: Where the tools run; see `KernelExecutor`.
        boot_timeout: The seconds that the gateway may take to become ready.
        install_timeout: The seconds that one installation may take.
        python: The interpreter of the kernel; by default the one that runs this.
        environment: Environment variables of the kernel; see `KernelExecutor`. The kernel's process starts
            with them, and the installer sees them, too.
        inherit_environment: Whether the kernel has all of this process's environment variables, keys among
            them, and your home directory; see `LocalSandbox`.
        on_stage: Called with the name of each finished stage of the boot and the seconds that it took.
        auto_reboot: Whether a sandbox that has ended is followed by another one; see `KernelExecutor`.
        session_options: What else `Session.connect` takes, for example `max_output_bytes`.
        show_images: Whether the model sees the images that its code displays; see `KernelExecutor`.

    Raises:
        BootError: The gateway did not become ready.
        PackageInstallError: A package can't be installed.
        ConfigurationError: A package's name is no requirement, or `inherit_environment` is no bool.
    """

    executor_type: ClassVar[str] = "sandkernel.LocalExecutor"

    def __init__(
        self,
        additional_imports: Sequence[str] = (),
        logger: Any = None,  # noqa: ANN401 smolagents takes several
        allow_pickle: bool = False,  # noqa: FBT001, FBT002 smolagents' signature
        *,
        timeout: float | None = None,
        max_logs_length: int = 20_000,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        boot_timeout: float = 60.0,
        install_timeout: float = 600.0,
        python: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str | None] | None = None,
        inherit_environment: bool = False,
        on_stage: Callable[[str, float], None] | None = None,
        tools: Places = "auto",
        auto_reboot: bool = False,
        session_options: Mapping[str, Any] | None = None,
        show_images: bool = False,
    ) -> None:
        additional_imports = arguments.texts(additional_imports, "additional_imports")
        requirements = packages.requirements(additional_imports)

        variables = arguments.variables(environment, "environment")
        arguments.flag(inherit_environment, "inherit_environment")

        def boot() -> LocalSandbox:
            return LocalSandbox(
                requirements,
                python=python,
                boot_timeout=boot_timeout,
                install_timeout=install_timeout,
                environment=variables,
                inherit_environment=inherit_environment,
                on_stage=on_stage,
            )

        super().__init__(
            boot,
            additional_imports,
            logger,
            allow_pickle,
            timeout=timeout,
            max_logs_length=max_logs_length,
            payload_limits=payload_limits,
            tools=tools,
            install=False,
            auto_reboot=auto_reboot,
            session_options=session_options,
            show_images=show_images,
        )
