"""What is asked of `modal.Sandbox.create`: the user's arguments and ours, merged."""

from __future__ import annotations

import difflib
import inspect
import operator
import secrets as random
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandkernel import arguments
from sandkernel._sandkernel import __version__
from sandkernel.exceptions import ConfigurationError
from sandkernel.providers.modal import entrypoint, sdk

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DEFAULT_IDLE_TIMEOUT", "DEFAULT_LIFETIME", "EXPIRES_TAG", "KERNEL_TAG", "PORT_TAG", "Definition"]

DEFAULT_LIFETIME = 300
"""Seconds; what smolagents' `ModalExecutor` has."""

DEFAULT_IDLE_TIMEOUT = 60
"""Seconds. Our open connection keeps a sandbox busy, so this only counts once its host is gone."""

GATEWAY_PACKAGES = ("jupyter_kernel_gateway", "ipykernel")
MADE_BY = "sandkernel"
KERNEL_TAG = "sandkernel-kernel"
PORT_TAG = "sandkernel-port"
EXPIRES_TAG = "sandkernel-expires"
TOKEN_VARIABLE = "KG_AUTH_TOKEN"  # noqa: S105 the name of a variable


@dataclass
class Definition:
    """A sandbox that is to be created.

    Attributes:
        options: The arguments of `Sandbox.create`, without `app` where none was given.
        port: Where the gateway listens.
        app_name: The app to look up where none was given.
        kernel_id: The kernel that starts with the gateway. No other sandbox has it, so it also tells this one
            from all others.
        token: What opens the gateway.
    """

    options: dict[str, Any]
    port: int
    app_name: str
    kernel_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    token: str = field(default_factory=lambda: random.token_urlsafe(32), repr=False)

    @classmethod
    def of(
        cls,
        create_kwargs: Mapping[str, Any],
        conveniences: Mapping[str, Any],
        packages: Sequence[str],
        *,
        app_name: str,
        port: int,
    ) -> Definition:
        """Merge what the user gave with what we need; what the user gave is not changed.

        Raises:
            ConfigurationError: Two of them contradict each other.
        """
        packages = arguments.texts(packages, "packages")
        options = arguments.mapping(create_kwargs, "create_kwargs", "arguments of modal.Sandbox.create")
        for name, value in conveniences.items():
            if value is None:
                continue
            if name in options:
                raise ConfigurationError(f"{name!r} is given twice: as an argument and in create_kwargs")
            options[name] = value
        _check_names(options)
        if not isinstance(port, int) or not 0 < port < 1 << 16:
            raise ConfigurationError(f"port is a number from 1 to 65535, not {port!r}")
        this = cls(options, port, app_name)
        options["image"] = _image(options.get("image"), packages)
        # Modal takes a `timeout` of `None` for persistent sandboxes alone, and says so itself.
        options.setdefault("timeout", DEFAULT_LIFETIME)
        lifetime = _seconds(options, "timeout")
        if lifetime is None or lifetime > DEFAULT_IDLE_TIMEOUT:
            options.setdefault("idle_timeout", DEFAULT_IDLE_TIMEOUT)
        _seconds(options, "idle_timeout")
        for kind in ("h2_ports", "unencrypted_ports"):
            if port in _several(options, kind):
                raise ConfigurationError(
                    f"port {port} is among the {kind}, and the gateway needs it encrypted and on HTTP/1.1: "
                    "give another port="
                )
        ports = _several(options, "encrypted_ports")
        options["encrypted_ports"] = ports if port in ports else [*ports, port]
        token = sdk.load().Secret.from_dict({TOKEN_VARIABLE: this.token})
        options["secrets"] = [*_several(options, "secrets"), token]
        options["tags"] = {
            "made-by": MADE_BY,
            "sandkernel-version": __version__,
            **arguments.mapping(options.get("tags"), "tags", "texts by their names"),
            KERNEL_TAG: this.kernel_id,
            PORT_TAG: str(port),
        }
        return this

    @property
    def lifetime(self) -> float | None:
        """The seconds that the sandbox may live; `None` for one without an end."""
        return _seconds(self.options, "timeout")

    @property
    def entrypoint(self) -> list[str]:
        """The command that the sandbox runs."""
        return entrypoint.command(self.port, self.kernel_id)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `Sandbox.create`, for a sandbox that is created now."""
        if self.lifetime is None:
            return self.options
        expires = str(int(time.time() + self.lifetime))
        return {**self.options, "tags": {**self.options["tags"], EXPIRES_TAG: expires}}


def _check_names(options: Mapping[str, Any]) -> None:
    """Refuse arguments that the installed release of Modal's SDK does not have."""
    known = set(inspect.signature(sdk.load().Sandbox.create).parameters)
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            meant = f": did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(
                f"create_kwargs has {name!r:.100}, and modal.Sandbox.create of modal "
                f"{sdk.load().__version__} takes no such argument{meant}"
            )


def _seconds(options: Mapping[str, Any], name: str) -> int | None:
    value = options.get(name)
    try:
        return None if value is None else operator.index(value)
    except TypeError:
        raise ConfigurationError(f"{name} is a whole number of seconds, not {value!r:.100}") from None


def _several(options: Mapping[str, Any], name: str) -> list[Any]:
    value = options.get(name)
    if value is None:
        return []
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{name} is a sequence, not {type(value).__name__}: write [...]")
    return list(value)


def _image(image: Any, packages: Sequence[str]) -> Any:  # noqa: ANN401 a modal.Image
    """Put packages on the user's image, or on one of ours; Modal builds a layer only once."""
    if image is not None and not isinstance(image, sdk.load().Image):
        raise ConfigurationError(f"image is a modal.Image, not {type(image).__name__}: {image!r:.100}")
    if image is None:
        # With uv in it, later packages are installed in a fraction of pip's time.
        needed = [*GATEWAY_PACKAGES, "uv", *packages]
        return sdk.load().Image.debian_slim().uv_pip_install(*needed)
    return image.uv_pip_install(*packages) if packages else image
