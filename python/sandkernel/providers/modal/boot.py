"""From a definition to a running sandbox, with whatever was begun undone when it fails."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from sandkernel.concurrency.cancellation import regardless
from sandkernel.exceptions import (
    BootError,
    ConfigurationError,
    GatewayError,
    KernelNotFoundError,
    SandkernelError,
)
from sandkernel.providers.modal import output, sdk
from sandkernel.providers.modal.definition import KERNEL_TAG
from sandkernel.providers.modal.lifeline import Lifeline
from sandkernel.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandkernel.providers.endpoint import Endpoint
    from sandkernel.providers.modal.definition import Definition
    from sandkernel.providers.modal.report import BootReport

__all__ = ["ask_end", "boot", "connect", "tunnel_url"]

# One call of Modal's API that has nothing to wait for.
CALL_SECONDS = 20.0
# A `create` in flight when it is interrupted: until its answer, or until the sandbox can be found.
UNDO_SECONDS = 10.0
OUTPUT_SECONDS = 2.0
# Between the end of a sandbox's tunnels and Modal's knowing why.
VERDICT_SECONDS = 3.0
GRACE_SECONDS = 0.5


async def boot(
    definition: Definition, report: BootReport, *, boot_timeout: float, build_timeout: float
) -> tuple[Lifeline, str]:
    """Create a sandbox.

    Args:
        definition: What to create.
        report: Is told the stages.
        boot_timeout: The seconds that the creation, and then the tunnel, may take.
        build_timeout: The seconds that a new image may take to be built.

    Returns:
        What ends the sandbox, and the URL of the gateway's tunnel.

    Raises:
        BootError: It failed; or one of its kind, or a `ConfigurationError`. Nothing is left running.
    """
    modal = sdk.load()
    options = definition.options
    call_seconds = min(CALL_SECONDS, boot_timeout)
    if options.get("app") is None:
        where = {
            name: options[name] for name in ("client", "environment_name") if options.get(name) is not None
        }
        lookup = modal.App.lookup.aio(definition.app_name, create_if_missing=True, **where)
        options["app"] = await sdk.call(lookup, call_seconds, f"looking up the app {definition.app_name!r}")
        report.finished("app")
    build = getattr(options["image"], "build", None)
    if build is not None:
        await sdk.call(build.aio(options["app"]), build_timeout, "building the image")
        report.finished("image")
    sandbox = await _create(definition, boot_timeout)
    lifeline = Lifeline(sandbox, options.get("idle_timeout"))
    report.sandbox_id, report.dashboard_url = sandbox.object_id, sdk.dashboard_url(sandbox)
    try:
        report.finished("sandbox")
        url = await tunnel_url(sandbox, definition.port, boot_timeout)
        report.finished("tunnel")
    except BaseException:
        await regardless(lifeline.end())
        raise
    return lifeline, url


async def _create(definition: Definition, seconds: float) -> Any:  # noqa: ANN401 a modal.Sandbox
    modal = sdk.load()

    async def create() -> Any:  # noqa: ANN401 so what the call itself raises is the future's
        return await modal.Sandbox.create.aio(*definition.entrypoint, **definition.arguments())

    creation = asyncio.ensure_future(create())
    try:
        return await sdk.call(asyncio.shield(creation), seconds, "creating the sandbox")
    except asyncio.CancelledError:
        await regardless(_undo(creation, definition))
        raise
    except BaseException as error:
        if sdk.is_certain(error):
            raise
        # Its answer may be lost, and not the sandbox.
        if not creation.done():
            creation.cancel()
        found = await regardless(_find(definition))
        if found is None:
            raise
        return found


async def _undo(creation: asyncio.Future[Any], definition: Definition) -> None:
    """End the sandbox that is being created."""
    await asyncio.wait({creation}, timeout=UNDO_SECONDS)
    sandbox = None
    if creation.done() and not creation.cancelled() and creation.exception() is None:
        sandbox = creation.result()
    else:
        creation.cancel()
        sandbox = await _find(definition)
    if sandbox is not None:
        await Lifeline(sandbox, definition.options.get("idle_timeout")).end()


async def _find(definition: Definition) -> Any | None:  # noqa: ANN401 a modal.Sandbox
    """Return the sandbox of this definition, if it was created."""

    async def search() -> Any | None:  # noqa: ANN401
        tags = {KERNEL_TAG: definition.kernel_id}
        options = {"client": definition.options["client"]} if definition.options.get("client") else {}
        app_id = definition.options["app"].app_id
        async for sandbox in sdk.load().Sandbox.list.aio(app_id=app_id, tags=tags, **options):
            return sandbox
        return None

    with contextlib.suppress(Exception):
        return await asyncio.wait_for(search(), UNDO_SECONDS)
    return None


async def tunnel_url(sandbox: Any, port: int, seconds: float) -> str:  # noqa: ANN401 a modal.Sandbox
    """Return the URL of a sandbox's tunnel.

    Raises:
        BootError: It has none in time.
    """
    tunnels = await _tunnels(sandbox, seconds)
    if port not in tunnels:
        raise BootError(f"The sandbox {sandbox.object_id} has no tunnel to port {port}")
    return str(tunnels[port].url)


async def port_url(sandbox: Any, port: int, seconds: float) -> str:  # noqa: ANN401 a modal.Sandbox
    """Return the address of a tunnel: `https://`, or `http://` with the port of an unencrypted one.

    Raises:
        ConfigurationError: There is no tunnel to that port.
        BootError: Modal does not say in time.
    """
    tunnels = await _tunnels(sandbox, seconds)
    if port not in tunnels:
        named = ", ".join(map(str, sorted(tunnels)))
        raise ConfigurationError(
            f"The sandbox {sandbox.object_id} has no tunnel to port {port}, only to {named}. Modal opens "
            f"tunnels when it makes a sandbox: create_kwargs={{'encrypted_ports': [{port}]}}"
        )
    tunnel = tunnels[port]
    if getattr(tunnel, "unencrypted_host", ""):
        return f"http://{tunnel.unencrypted_host}:{tunnel.unencrypted_port}"
    return str(tunnel.url)


async def _tunnels(sandbox: Any, seconds: float) -> dict[int, Any]:  # noqa: ANN401 a modal.Sandbox
    # The SDK's own limit is in whole seconds; ours comes first.
    tunnels: dict[int, Any] = await sdk.call(
        sandbox.tunnels.aio(int(seconds) + 5), seconds, "opening the tunnel"
    )
    return tunnels


async def ask_end(sandbox: Any) -> str | None:  # noqa: ANN401 a modal.Sandbox
    """Wait for a sandbox to end.

    Returns:
        `"timeout"` where its lifetime was over; otherwise what is known of it: "it exited with status 1".
    """
    modal = sdk.load()
    try:
        await sandbox.wait.aio(raise_on_termination=False)
    except modal.exception.SandboxTimeoutError:
        return "timeout"
    code = sandbox.returncode
    return f"with return code {code}" if code is not None else "for an unknown reason"


async def connect(
    lifeline: Lifeline,
    endpoint: Endpoint,
    options: Mapping[str, Any],
    lifetime: float | None,
    *,
    may_create: bool,
) -> Session:
    """Open a session as soon as the gateway is there; give up as soon as the sandbox has ended.

    Args:
        lifeline: The sandbox.
        endpoint: Its gateway.
        options: Further arguments of `Session.connect`.
        lifetime: The seconds that it may live; `None` for no limit, or one that is not known.
        may_create: Whether a kernel is created where the one that is on its way is not there: not in a
            sandbox that was taken over.

    Raises:
        BootError: The gateway did not become ready; `.output` has the sandbox's last output.
    """
    sandbox = lifeline.sandbox
    opening = asyncio.ensure_future(_open(endpoint, options, may_create=may_create))
    ending = asyncio.ensure_future(ask_end(sandbox))
    try:
        await asyncio.wait({opening, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            opening.cancel()
            await asyncio.wait({opening})
        if not opening.cancelled() and opening.exception() is None:
            return opening.result()
        if not ending.done():
            await asyncio.wait({ending}, timeout=GRACE_SECONDS)
        if ending.done() and ending.exception() is None:
            lifeline.done()
            raise await _ended(sandbox, ending.result(), endpoint.token, lifetime)
        error = opening.exception()
        if isinstance(error, (BootError, GatewayError)):
            text = await output.last_output(sandbox, OUTPUT_SECONDS, endpoint.token)
            if isinstance(error, BootError):
                error.output = text
        raise error or BootError("the session could not be opened")
    except asyncio.CancelledError:
        opening.cancel()
        await asyncio.wait({opening})
        if not opening.cancelled() and opening.exception() is None:
            opening.result().close()
        raise
    finally:
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)


async def _open(endpoint: Endpoint, options: Mapping[str, Any], *, may_create: bool) -> Session:
    options = {"ca_certificates": endpoint.ca_certificates, **options}
    try:
        return await Session.aconnect(
            endpoint.url,
            endpoint.token,
            kernel_id=endpoint.kernel_id,
            owns_kernel=endpoint.kernel_id is not None,
            **options,
        )
    except KernelNotFoundError:
        if not may_create:
            raise
        # A gateway before version 3 takes no kernel that was started for it.
        return await Session.aconnect(endpoint.url, endpoint.token, **options)


async def _ended(sandbox: Any, reason: str | None, token: str, lifetime: float | None) -> SandkernelError:  # noqa: ANN401
    text = await output.last_output(sandbox, OUTPUT_SECONDS, token)
    if reason == "timeout":
        limit = f" of {lifetime:g} s" if lifetime else ""
        message = (
            f"The lifetime{limit} of the sandbox was over before its gateway was ready: give a longer one"
        )
    else:
        message = f"The sandbox ended {reason} before its gateway was ready. {output.explain(text)}"
    shown = f"\nIts last output:\n{text[-2000:]}" if text else ""
    return BootError(f"{message}{shown}", output=text)
