"""Modal's SDK: loaded when it is needed, never waited for without end, its errors told as ours."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from sandkernel.concurrency import exit_handlers
from sandkernel.exceptions import (
    BootError,
    ConfigurationError,
    CredentialsError,
    PackageInstallError,
    SandkernelError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import ModuleType

__all__ = ["call", "dashboard_url", "is_certain", "load", "translate"]

T = TypeVar("T")


def load() -> ModuleType:
    """Import the `modal` package.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    first = "modal" not in sys.modules
    try:
        import modal  # noqa: PLC0415 it takes a third of a second
        import modal.exception  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "modal":
            raise
        raise ModuleNotFoundError(
            "Sandboxes on Modal need the modal package: pip install 'sandkernel[modal]'", name="modal"
        ) from error
    if first:
        exit_handlers.come_first()
    return modal


async def call(awaitable: Awaitable[T], seconds: float, doing: str) -> T:
    """Await a call of the SDK.

    Args:
        awaitable: The call.
        seconds: How long it may take.
        doing: What is done, for the error: "looking up the app".

    Raises:
        BootError: It failed or took too long; or one of its kind, or a `ConfigurationError`.
    """
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except asyncio.TimeoutError as error:
        raise BootError(
            f"Modal did not answer within {seconds:g} s while {doing}: check the network, MODAL_SERVER_URL "
            "if it is set, and https://status.modal.com"
        ) from error
    except Exception as error:
        translated = translate(error, doing)
        if translated is None:
            raise
        raise translated from error


def translate(error: Exception, doing: str) -> SandkernelError | None:
    """Return an error of the SDK as one of ours, with what to do about it; `None` where it is none."""
    errors = load().exception
    if isinstance(error, _OF_ARGUMENTS) and not isinstance(error, (errors.Error, OSError, SandkernelError)):
        # Some arguments are only looked at when a message is made of them: what is raised says which, or why.
        return ConfigurationError(
            f"Modal's SDK does not take the arguments for {doing}: {type(error).__name__}: {error!s:.500}"
        )
    if not isinstance(error, (errors.Error, OSError)) or isinstance(error, SandkernelError):
        return None
    reason = f"{error}".strip() or type(error).__name__
    text = f"{doing} failed on Modal: {reason}"
    text = text[0].upper() + text[1:]

    for names, kind, advice in _MEANINGS:
        # Older releases lack some of them.
        if isinstance(error, tuple(getattr(errors, name) for name in names if hasattr(errors, name))):
            return kind(f"{text}. {advice}" if advice else text)
    return BootError(text)


_OF_ARGUMENTS = (TypeError, ValueError, AttributeError, LookupError, OverflowError)
_MEANINGS: tuple[tuple[tuple[str, ...], type[SandkernelError], str], ...] = (
    (
        ("AuthError",),
        CredentialsError,
        "Run `modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET",
    ),
    (
        ("PermissionDeniedError",),
        CredentialsError,
        "The token's workspace may not do this: look at `modal profile current`, or ask its owner",
    ),
    (
        ("ImageBuildError",),
        PackageInstallError,
        "Run it under `modal.enable_output()` to see the output of the build",
    ),
    (
        ("AlreadyExistsError",),
        ConfigurationError,
        "Take another name, or take the sandbox over with ModalExecutor.from_name",
    ),
    (
        ("NotFoundError",),
        ConfigurationError,
        "It must exist in the workspace and environment that are in use",
    ),
    (("InvalidError",), ConfigurationError, ""),
    (
        ("ResourceExhaustedError",),
        BootError,
        "Modal is out of capacity, or a limit is reached: try later, or ask for less",
    ),
)


def is_certain(error: BaseException) -> bool:
    """Whether a `Sandbox.create` that raised this made no sandbox: only then nothing is to be looked for."""
    return isinstance(
        error.__cause__ if isinstance(error, SandkernelError) else error,
        tuple(
            getattr(load().exception, name)
            for name in (
                "AuthError",
                "PermissionDeniedError",
                "InvalidError",
                "AlreadyExistsError",
                "NotFoundError",
                "ResourceExhaustedError",
                "RemoteError",
            )
            if hasattr(load().exception, name)
        ),
    )


def dashboard_url(sandbox: Any) -> str:  # noqa: ANN401 a modal.Sandbox
    """Return where a sandbox is shown on Modal's site."""
    return f"https://modal.com/id/{sandbox.object_id}"
