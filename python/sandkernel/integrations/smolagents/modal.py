"""An executor on Modal."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from smolagents.monitoring import LogLevel

from sandkernel import arguments, packages
from sandkernel.concurrency.cancellation import in_thread
from sandkernel.concurrency.exit_handlers import watch_for_termination
from sandkernel.integrations.smolagents.executor import KernelExecutor
from sandkernel.integrations.smolagents.logger import logger_of
from sandkernel.providers.modal import ModalSandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from typing_extensions import Self

    from sandkernel.integrations.smolagents.placement import Places
    from sandkernel.providers.modal.report import BootReport
    from sandkernel.serialization import PayloadLimits

__all__ = ["ModalExecutor"]

E = TypeVar("E", bound="ModalExecutor")


class ModalExecutor(KernelExecutor):
    """Runs an agent's code in a kernel in a sandbox on Modal.

    Takes the place of smolagents' class of the same name, with the same arguments in the same order. Modal
    credentials are needed, as `modal token new` writes them, or in `MODAL_TOKEN_ID` and `MODAL_TOKEN_SECRET`.

    The sandbox is terminated by `cleanup()`, `delete()`, the end of a `with` block, garbage collection, the
    exit of the interpreter and SIGTERM (unless the program handles that itself); when the process is killed,
    by Modal after `idle_timeout`. `detach()` leaves it running, and `from_id` and `from_name` take it over
    with all its state, in this process or another.

    Args:
        additional_imports: Packages, by the names under which they are imported, or as requirements. They go
            into the image, as a layer that Modal builds once and keeps.
        logger: A logger of smolagents, which is told the stages of the boot; `None` for silence.
        allow_pickle: Whether values without a safe form travel as pickles; see `KernelExecutor`.
        app_name: The Modal app that the sandbox belongs to; it is made where there is none.
        port: Where the gateway listens in the sandbox.
        create_kwargs: Any other arguments of `modal.Sandbox.create`. They are merged with ours (secrets,
            encrypted_ports, tags), and the dictionary is not changed.
        timeout: The seconds that an execution may take; `None` for no limit. The sandbox's own is `lifetime`.
        max_logs_length: The characters of an execution's output that the model is shown.
        payload_limits: What a final answer, and the arguments of a call of a tool on the host, may hold; see
            `PayloadLimits`.
        tools: Where the tools run; see `KernelExecutor`.
        image: A `modal.Image` with Python, `jupyter_kernel_gateway` and `ipykernel`; one of ours by default.
        secrets: `modal.Secret`s, which become environment variables of the agent's code.
        volumes: `modal.Volume`s by the path to mount them at.
        gpu: The GPU to reserve, such as `"T4"` or `"H100:2"`.
        cpu: The cores to reserve, or a pair of reserved and most.
        memory: The MiB to reserve, or a pair of reserved and most.
        region: Where to run it.
        env: Environment variables of the sandbox, which Modal keeps with its description.
        environment: Environment variables of the kernels, which Modal does not see; see `KernelExecutor`.
        name: A name for the sandbox, unique in the app; for `from_name`.
        tags: Tags for the sandbox, besides ours.
        lifetime: The seconds after which Modal ends the sandbox, whatever it does: 300 by default (as
            smolagents has it), at most 86,400. It is the `timeout` of `modal.Sandbox.create`.
        idle_timeout: The seconds after which Modal ends it when nothing is connected to it: 60 by default.
            The executor is connected all the time, so this only counts when its process is gone, or after
            `detach()`.
        boot_timeout: The seconds that the sandbox, and then its gateway, may take.
        build_timeout: The seconds that a new image may take to be built.
        auto_reboot: Whether a sandbox that has ended is followed by another one; see `KernelExecutor`. Its
            lifetime begins anew.
        session_options: What else `Session.connect` takes, for example `max_output_bytes`.
        show_images: Whether the model sees the images that its code displays; see `KernelExecutor`.

    Attributes:
        port: Where the gateway listens in the sandbox.

    Raises:
        ModuleNotFoundError: The `modal` package is not installed.
        ConfigurationError: An argument can't work, or names something that does not exist on Modal.
        CredentialsError: Modal refuses the token.
        BootError: The sandbox, or its gateway, did not get ready; `.output` has its last output.
        PackageInstallError: The image can't be built.
    """

    executor_type: ClassVar[str] = "sandkernel.ModalExecutor"

    def __init__(  # noqa: PLR0917 smolagents' signature
        self,
        additional_imports: Sequence[str] = (),
        logger: Any = None,  # noqa: ANN401 smolagents takes several
        allow_pickle: bool = False,  # noqa: FBT001, FBT002 smolagents' signature
        app_name: str = "smolagent-executor",
        port: int = 8888,
        create_kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        max_logs_length: int = 20_000,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        tools: Places = "auto",
        environment: Mapping[str, str | None] | None = None,
        image: Any = None,  # noqa: ANN401 a modal.Image
        secrets: Sequence[Any] | None = None,
        volumes: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        cpu: float | tuple[float, float] | None = None,
        memory: int | tuple[int, int] | None = None,
        region: str | Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        lifetime: int | None = None,
        idle_timeout: int | None = None,
        boot_timeout: float = 120.0,
        build_timeout: float = 1800.0,
        auto_reboot: bool = False,
        session_options: Mapping[str, Any] | None = None,
        show_images: bool = False,
    ) -> None:
        additional_imports = arguments.texts(additional_imports, "additional_imports")
        requirements = packages.requirements(additional_imports)
        plain = {
            "gpu": gpu,
            "cpu": cpu,
            "memory": memory,
            "region": region,
            "name": name,
            "idle_timeout": idle_timeout,
        }

        given = {
            key: None if value is None else arguments.mapping(value, key, of)
            for key, value, of in (
                ("volumes", volumes, "modal.Volumes by the paths to mount them at"),
                ("env", env, "texts by the names of variables"),
                ("tags", tags, "texts by their names"),
            )
        }

        def boot(on_stage: Callable[[str, float], None]) -> ModalSandbox:
            return ModalSandbox(
                requirements,
                create_kwargs=create_kwargs,
                app_name=app_name,
                port=port,
                boot_timeout=boot_timeout,
                build_timeout=build_timeout,
                on_stage=on_stage,
                image=image,
                secrets=secrets,
                volumes=given["volumes"],
                env=given["env"],
                tags=given["tags"],
                timeout=lifetime,
                **plain,
            )

        self._start(
            boot,
            additional_imports,
            logger,
            allow_pickle,
            timeout=timeout,
            max_logs_length=max_logs_length,
            payload_limits=payload_limits,
            tools=tools,
            environment=environment,
            install=False,
            auto_reboot=auto_reboot,
            session_options=session_options,
            show_images=show_images,
        )
        self.port = port
        times = {"lifetime": lifetime, "boot_timeout": boot_timeout, "build_timeout": build_timeout}
        self._settings |= {
            "app_name": app_name,
            "port": port,
            **{key: value for key, value in (plain | times).items() if value is not None},
        }

    def _start(
        self,
        boot: Callable[[Callable[[str, float], None]], ModalSandbox],
        additional_imports: Sequence[str],
        logger: Any,  # noqa: ANN401
        allow_pickle: bool,  # noqa: FBT001
        **options: Any,  # noqa: ANN401 those of `KernelExecutor`
    ) -> None:
        logger = logger_of(logger)

        def begin() -> ModalSandbox:
            sandbox = boot(self._on_stage)
            logger.log(
                f"Modal sandbox {sandbox.id}: {sandbox.boot_report.dashboard_url}", level=LogLevel.INFO
            )
            return sandbox

        with _status(logger) as self._on_stage:
            super().__init__(begin, additional_imports, logger, allow_pickle, **options)
        self._on_stage = functools.partial(_log_stage, logger)
        report = self.boot_report
        if options["install"] and self.installed_packages:
            report.finished("packages")
        logger.log(f"The sandbox is ready after {report}", level=LogLevel.INFO)

    @classmethod
    def from_id(
        cls,
        sandbox_id: str,
        additional_imports: Sequence[str] = (),
        logger: Any = None,  # noqa: ANN401 smolagents takes several
        allow_pickle: bool = False,  # noqa: FBT001, FBT002 as the constructor has it
        *,
        token: str | None = None,
        client: Any = None,  # noqa: ANN401 a modal.Client
        timeout: float | None = None,
        max_logs_length: int = 20_000,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        tools: Places = "auto",
        environment: Mapping[str, str | None] | None = None,
        boot_timeout: float = 60.0,
        session_options: Mapping[str, Any] | None = None,
        show_images: bool = False,
    ) -> Self:
        """Take over a running sandbox, with the state of its kernel; what takes it over also ends it.

        Args:
            sandbox_id: Its id: `sandbox_id` of the executor that made it, or what `detach()` returned.
            additional_imports: Packages to install in it, where its kernel does not have them yet.
            logger: As for the constructor.
            allow_pickle: As for the constructor.
            token: The gateway's token. By default it is read in the sandbox, which Modal lets those do who
                own it.
            client: A `modal.Client`; by default that of the environment.
            timeout: As for the constructor.
            max_logs_length: As for the constructor.
            payload_limits: As for the constructor.
            tools: As for the constructor.
            environment: As for the constructor.
            boot_timeout: The seconds that the look-up, and then the gateway, may take.
            session_options: As for the constructor.
            show_images: As for the constructor.

        Raises:
            SandboxGone: The sandbox has ended.
            ConfigurationError: There is none of that id, or it was not made by this package.
            KernelNotFoundError: Its kernel is gone.
        """
        self = cls.__new__(cls)
        attach = functools.partial(
            ModalSandbox.attach, sandbox_id, token=token, client=client, boot_timeout=boot_timeout
        )
        self._reattach(
            attach,
            additional_imports,
            logger,
            allow_pickle,
            timeout=timeout,
            max_logs_length=max_logs_length,
            payload_limits=payload_limits,
            tools=tools,
            environment=environment,
            session_options=session_options,
            show_images=show_images,
        )
        return self

    @classmethod
    def from_name(
        cls,
        name: str,
        additional_imports: Sequence[str] = (),
        logger: Any = None,  # noqa: ANN401 smolagents takes several
        allow_pickle: bool = False,  # noqa: FBT001, FBT002 as the constructor has it
        app_name: str = "smolagent-executor",
        *,
        token: str | None = None,
        client: Any = None,  # noqa: ANN401 a modal.Client
        timeout: float | None = None,
        max_logs_length: int = 20_000,
        payload_limits: PayloadLimits | Mapping[str, int] | None = None,
        tools: Places = "auto",
        environment: Mapping[str, str | None] | None = None,
        boot_timeout: float = 60.0,
        session_options: Mapping[str, Any] | None = None,
        show_images: bool = False,
    ) -> Self:
        """Do what `from_id` does, for a sandbox that was given a `name`.

        Args:
            name: The name of the sandbox.
            app_name: The app that it belongs to.
            additional_imports: As for `from_id`.
            logger: As for `from_id`.
            allow_pickle: As for `from_id`.
            token: As for `from_id`.
            client: As for `from_id`.
            timeout: As for `from_id`.
            max_logs_length: As for `from_id`.
            payload_limits: As for `from_id`.
            tools: As for `from_id`.
            environment: As for `from_id`.
            boot_timeout: As for `from_id`.
            session_options: As for `from_id`.
            show_images: As for `from_id`.
        """
        self = cls.__new__(cls)
        attach = functools.partial(
            ModalSandbox.attach,
            app_name=app_name,
            name=name,
            token=token,
            client=client,
            boot_timeout=boot_timeout,
        )
        self._reattach(
            attach,
            additional_imports,
            logger,
            allow_pickle,
            timeout=timeout,
            max_logs_length=max_logs_length,
            payload_limits=payload_limits,
            tools=tools,
            environment=environment,
            session_options=session_options,
            show_images=show_images,
        )
        return self

    def _reattach(self, attach: Callable[..., ModalSandbox], *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        self._start(lambda on_stage: attach(on_stage=on_stage), *arguments, install=True, **options)
        self.port = self._modal.port

    # What it is.

    @property
    def sandbox(self) -> Any:  # noqa: ANN401 a modal.Sandbox
        """The `modal.Sandbox`, as smolagents' executor has it: for its files, for `exec` and so on."""
        return self._modal.sandbox

    @property
    def sandbox_id(self) -> str:
        """The sandbox's id on Modal, for `from_id`."""
        return self._modal.id

    @property
    def dashboard_url(self) -> str:
        """Where Modal's site shows the sandbox."""
        return self._modal.boot_report.dashboard_url

    @property
    def boot_report(self) -> BootReport:
        """The seconds that each stage of the boot took."""
        return self._modal.boot_report

    @property
    def expires_at(self) -> datetime | None:
        """When Modal will end the sandbox, to within some seconds; `None` where that is not known."""
        return self._modal.expires_at

    @property
    def booted_at(self) -> datetime:
        """When the sandbox was created, or taken over."""
        return self._modal.booted_at

    def detach(self) -> str:
        """Close this executor and leave its sandbox running, with the state of its kernel.

        Its further kernels are deleted. It ends when its lifetime is over, or earlier by its `idle_timeout`
        once nothing is connected to it: give one that is long enough when you create it.

        Returns:
            The sandbox's id, for `from_id`.
        """
        self._require_open()
        self._runner.kernels.close()
        sandbox_id = self._modal.detach()
        session = self._reboots.detach()
        if session is not None:
            session.close()
        self._runner.tell_closed()
        return sandbox_id

    # Async twins.

    @classmethod
    async def acreate(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 those of the constructor
        """Construct an executor without holding up the event loop; the arguments are the constructor's.

        Cancelling it undoes what was begun: no sandbox is left running.
        """
        return await _construct(functools.partial(cls, *args, **kwargs))

    @classmethod
    async def afrom_id(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 those of `from_id`
        """Do what `from_id` does, without holding up the event loop."""
        return await _construct(functools.partial(cls.from_id, *args, **kwargs))

    @classmethod
    async def afrom_name(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 those of `from_name`
        """Do what `from_name` does, without holding up the event loop."""
        return await _construct(functools.partial(cls.from_name, *args, **kwargs))

    # How it is done.

    @property
    def _modal(self) -> ModalSandbox:
        return cast("ModalSandbox", self._sandbox)

    def _connected(self) -> None:
        # The kernel answers: whoever is handed this executor later does not wait for that.
        self._drive(self._provision.prepare())
        self.boot_report.finished("kernel")


async def _construct(construct: Callable[[], E]) -> E:
    watch_for_termination()
    return await in_thread(construct, lambda executor: executor.cleanup())


def _log_stage(logger: Any, stage: str, seconds: float) -> None:  # noqa: ANN401
    logger.log(f"Modal: {stage} {seconds:.2f} s", level=LogLevel.INFO)


@contextmanager
def _status(logger: Any) -> Iterator[Callable[[str, float], None]]:  # noqa: ANN401
    """Log the stages of a boot and, where a terminal shows the log, what is waited for."""
    console = getattr(logger, "console", None)
    level = getattr(logger, "level", LogLevel.OFF)
    live = None
    # Of loggers of other kinds, and of mocks, anything may come.
    is_shown = isinstance(level, int) and level >= LogLevel.INFO
    if console is not None and is_shown and getattr(console, "is_terminal", False) is True:
        live = console.status("Starting a sandbox on Modal ...")
        live.start()

    def on_stage(stage: str, seconds: float) -> None:
        _log_stage(logger, stage, seconds)
        if live is not None:
            live.update(f"Starting a sandbox on Modal: {_NEXT.get(stage, 'almost ready')} ...")

    try:
        yield on_stage
    finally:
        if live is not None:
            live.stop()


_NEXT = {
    "app": "building the image",
    "image": "creating the sandbox",
    "sandbox": "opening the tunnel",
    "tunnel": "waiting for the gateway",
    "gateway": "waiting for the kernel",
}
