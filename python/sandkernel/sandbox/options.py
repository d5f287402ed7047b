"""The options of `Sandbox.create`, by what takes them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from sandkernel import arguments, packages
from sandkernel.exceptions import ConfigurationError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from sandkernel.providers.base import Provider
    from sandkernel.session import Authorization

__all__ = [
    "Backend",
    "Blueprint",
    "BootOptions",
    "CreateOptions",
    "GatewayOptions",
    "LocalOptions",
    "ModalOptions",
    "blueprint",
]

Backend = Literal["local", "modal"]


class BootOptions(TypedDict, total=False):
    """What `Sandbox.create("local")` and `Sandbox.create("modal")` take.

    Attributes:
        boot_timeout: The seconds that the sandbox, and then its gateway, may take to become ready. Default:
            60 on this machine, 120 on Modal.
        on_stage: Called with the name of each finished stage of the boot, and its seconds.
    """

    boot_timeout: float
    on_stage: Callable[[str, float], None] | None


class LocalOptions(TypedDict, total=False):
    """What `Sandbox.create("local")` takes besides; see `LocalSandbox`.

    Attributes:
        python: The interpreter of the kernel. Default: the one that runs this.
        install_timeout: The seconds that one installation may take. Default: 600.
        inherit_environment: Whether the sandbox has all of this process's environment variables, keys among
            them, and this user's home directory. Default: `False`; see `LocalSandbox`.
    """

    python: str | os.PathLike[str] | None
    install_timeout: float
    inherit_environment: bool


class ModalOptions(TypedDict, total=False):
    """What `Sandbox.create("modal")` takes besides; see `ModalExecutor` for each.

    Attributes:
        app_name: The Modal app that the sandbox belongs to; it is made where there is none.
        port: Where the gateway listens in the sandbox. Default: 8888.
        create_kwargs: Any other arguments of `modal.Sandbox.create`, such as `encrypted_ports`.
        image: A `modal.Image` with a gateway. Default: one of ours.
        secrets: `modal.Secret`s, which become environment variables of the code.
        volumes: `modal.Volume`s by the path to mount them at.
        gpu: The GPU to reserve, such as `"T4"`.
        cpu: The cores to reserve, or a pair of reserved and most.
        memory: The MiB to reserve, or a pair of reserved and most.
        region: Where to run it.
        env: Environment variables of the sandbox, which Modal keeps with its description.
        name: A name for the sandbox, unique in the app.
        tags: Tags for the sandbox, besides ours.
        lifetime: The seconds after which Modal ends the sandbox. Default: 300.
        idle_timeout: The seconds after which Modal ends it when nothing is connected. Default: 60.
        build_timeout: The seconds that a new image may take to be built. Default: 1800.
    """

    app_name: str
    port: int
    create_kwargs: Mapping[str, Any] | None
    image: Any
    secrets: Sequence[Any] | None
    volumes: Mapping[str, Any] | None
    gpu: str | None
    cpu: float | tuple[float, float] | None
    memory: int | tuple[int, int] | None
    region: str | Sequence[str] | None
    env: Mapping[str, str] | None
    name: str | None
    tags: Mapping[str, str] | None
    lifetime: int | None
    idle_timeout: int | None
    build_timeout: float


class GatewayOptions(TypedDict, total=False):
    """What `Sandbox.create(url=...)` takes besides; see `Session.connect`.

    Attributes:
        token: The gateway's token. It travels in a header, and stands in no log.
        authorization: How the token travels: "token" (the default), "bearer" or "query".
        kernel_id: A kernel to share, which `close()` leaves running. Default: one is started and deleted.
        kernel_name: The kind of kernel to start. Default: the gateway's own.
        ca_certificates: A file of certificates to trust in addition, in PEM.
        connect_timeout: The seconds that the gateway may take to become ready. Default: 60.
    """

    token: str | None
    authorization: Authorization
    kernel_id: str | None
    kernel_name: str | None
    ca_certificates: str | None
    connect_timeout: float


class CreateOptions(BootOptions, LocalOptions, ModalOptions, GatewayOptions, total=False):
    """All of them: `Sandbox.create` refuses those that its backend does not have."""


class Blueprint(TypedDict):
    """The arguments of the constructor of `Sandbox` that a backend makes."""

    sandbox: Callable[[], Provider]
    packages: Sequence[str]
    installed: Sequence[str]
    environment: Mapping[str, str | None] | None
    session_options: Mapping[str, Any]


def blueprint(
    backend: str | None,
    url: str | None,
    given: Mapping[str, Any],
    *,
    wanted: Sequence[str],
    environment: Mapping[str, str | None] | None,
) -> Blueprint:
    """Return how a sandbox is booted; nothing is begun yet.

    Args:
        backend: "local" or "modal"; `None` where there is a URL.
        url: The address of a gateway that runs; `None` where there is a backend.
        given: The options of the backend, or of the gateway.
        wanted: Packages, by the names under which they are imported, or as requirements.
        environment: Environment variables of the kernels.

    Raises:
        ConfigurationError: There is no such backend, both or neither of backend and URL, or an option that
            the backend does not have.
    """
    if url is not None:
        if backend is not None:
            raise ConfigurationError(
                f"Sandbox.create takes a backend or a url, not both: {backend!r:.60} and {url!r:.200}"
            )
        return _gateway(url, given, wanted, environment)
    if backend is None:
        raise ConfigurationError(
            "Sandbox.create takes a backend, 'local' or 'modal', or the url of a gateway"
        )
    plans = {"local": _local, "modal": _modal}
    if not isinstance(backend, str) or backend not in plans:
        raise ConfigurationError(
            f"There is no backend {backend!r:.60}{_meant(backend, plans)}: 'local' is this machine, 'modal' "
            "is Modal, and url= is a gateway that runs already"
        )
    return plans[backend](given, wanted, environment)


def _meant(name: object, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(str(name), known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _require_known(given: Mapping[str, Any], known: Mapping[str, object], subject: str) -> None:
    for name in given:
        if name not in known:
            raise ConfigurationError(
                f"{subject} has no option {name!r:.60}{_meant(name, known)}: it has "
                f"{', '.join(sorted(known))}"
            )


def _local(
    given: Mapping[str, Any], wanted: Sequence[str], environment: Mapping[str, str | None] | None
) -> Blueprint:
    from sandkernel.providers.local import LocalSandbox  # noqa: PLC0415 not needed for the others

    _require_known(
        given, {**BootOptions.__annotations__, **LocalOptions.__annotations__}, "Sandbox.create('local')"
    )
    requirements = packages.requirements(wanted)
    variables = arguments.variables(environment, "environment")
    arguments.flag(given.get("inherit_environment", False), "inherit_environment")
    return {
        "sandbox": lambda: LocalSandbox(requirements, environment=variables, **given),
        "packages": (),
        "installed": requirements,
        # The gateway's process starts with them, and so do its kernels.
        "environment": None,
        "session_options": {},
    }


def _modal(
    given: Mapping[str, Any], wanted: Sequence[str], environment: Mapping[str, str | None] | None
) -> Blueprint:
    from sandkernel.providers.modal import ModalSandbox  # noqa: PLC0415 not needed for the others

    _require_known(
        given, {**BootOptions.__annotations__, **ModalOptions.__annotations__}, "Sandbox.create('modal')"
    )
    requirements = packages.requirements(wanted)
    options = dict(given)
    lifetime = options.pop("lifetime", None)
    return {
        "sandbox": lambda: ModalSandbox(requirements, timeout=lifetime, **options),
        "packages": (),
        "installed": requirements,
        "environment": environment,
        "session_options": {},
    }


def _gateway(
    url: str, given: Mapping[str, Any], wanted: Sequence[str], environment: Mapping[str, str | None] | None
) -> Blueprint:
    from sandkernel.providers.endpoint import Endpoint  # noqa: PLC0415 not needed for the others
    from sandkernel.providers.gateway import ExistingGateway  # noqa: PLC0415

    _require_known(given, GatewayOptions.__annotations__, "Sandbox.create(url=...)")
    kernels = [given.get("kernel_id")]
    token, certificates = given.get("token"), given.get("ca_certificates")

    def boot() -> ExistingGateway:
        # In the place of a kernel that is gone comes one of our own.
        kernel_id = kernels.pop() if kernels else None
        return ExistingGateway(Endpoint(url, token or "", kernel_id, certificates))

    names = ("authorization", "kernel_name", "connect_timeout")
    return {
        "sandbox": boot,
        "packages": wanted,
        "installed": (),
        "environment": environment,
        "session_options": {name: given[name] for name in names if name in given},
    }
