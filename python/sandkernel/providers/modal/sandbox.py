"""A kernel gateway in a sandbox on Modal."""

from __future__ import annotations

import asyncio
import re
import weakref
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from sandkernel.concurrency import bridge
from sandkernel.concurrency.exit_handlers import watch_for_termination
from sandkernel.exceptions import ConfigurationError, SandboxExpired, SandboxGone
from sandkernel.providers.base import Provider
from sandkernel.providers.endpoint import Endpoint
from sandkernel.providers.modal import boot, sdk
from sandkernel.providers.modal.definition import (
    EXPIRES_TAG,
    KERNEL_TAG,
    PORT_TAG,
    TOKEN_VARIABLE,
    Definition,
)
from sandkernel.providers.modal.lifeline import Lifeline
from sandkernel.providers.modal.report import BootReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

    from sandkernel._sandkernel import Execution
    from sandkernel.session import Session

__all__ = ["ModalSandbox"]


class ModalSandbox(Provider):
    """A kernel gateway in a sandbox on Modal, with one kernel already on its way.

    The gateway may not be ready yet: `connect` waits for it. The sandbox is terminated by `terminate`, at the
    end of a `with` block, at garbage collection, at the exit of the interpreter, and by SIGTERM unless that
    has a handler; when this process is killed, by its `idle_timeout`. A forked child can neither use it nor
    end it.

    Args:
        packages: Requirements (PEP 508) to put into the image, as a layer that Modal builds once.
        create_kwargs: What else `modal.Sandbox.create` takes; it is not changed.
        app_name: The app to look up, and to make where there is none, unless `create_kwargs` has an `app`.
        port: Where the gateway listens in the sandbox.
        boot_timeout: The seconds that the sandbox, and then its gateway, may take.
        build_timeout: The seconds that a new image may take to be built.
        on_stage: Called with the name of each finished stage of the boot and the seconds that it took, in
            whichever thread that happens.
        conveniences: Arguments of `modal.Sandbox.create` by themselves; those that are `None` do not count.

    Raises:
        ConfigurationError: An argument can't work, or names something that does not exist on Modal.
        CredentialsError: Modal refuses the token.
        BootError: The sandbox can't be had. Nothing is left running.
        PackageInstallError: The image can't be built.
        ModuleNotFoundError: The `modal` package is not installed.
    """

    knows_its_end = True
    _lifetime: float | None = None

    def __init__(
        self,
        packages: Sequence[str] = (),
        *,
        create_kwargs: Mapping[str, Any] | None = None,
        app_name: str = "smolagent-executor",
        port: int = 8888,
        boot_timeout: float = 120.0,
        build_timeout: float = 1800.0,
        on_stage: Callable[[str, float], None] | None = None,
        **conveniences: Any,  # noqa: ANN401 those of the SDK
    ) -> None:
        watch_for_termination()
        definition = Definition.of(
            {} if create_kwargs is None else create_kwargs,
            conveniences,
            packages,
            app_name=app_name,
            port=port,
        )
        report = BootReport(on_stage=on_stage)
        lifeline, url = bridge.run(
            lambda: boot.boot(definition, report, boot_timeout=boot_timeout, build_timeout=build_timeout)
        )
        lifetime = definition.lifetime
        expires = None if lifetime is None else datetime.now(timezone.utc) + timedelta(seconds=lifetime)
        endpoint = Endpoint(url, definition.token, definition.kernel_id)
        self._adopt(lifeline, endpoint, report, port=port, boot_timeout=boot_timeout, expires_at=expires)
        self._lifetime = lifetime
        self.is_new = True

    def _adopt(
        self,
        lifeline: Lifeline,
        endpoint: Endpoint,
        report: BootReport,
        *,
        port: int,
        boot_timeout: float,
        expires_at: datetime | None,
    ) -> None:
        self._lifeline = lifeline
        self._endpoint = endpoint
        self._port = port
        self._report = report
        self._boot_timeout = boot_timeout
        self._expires_at = expires_at
        self._booted_at = datetime.now(timezone.utc)
        self._finalizer = weakref.finalize(self, lifeline.abandon)
        # At exit, all sandboxes are ended at once, before the SDK's own exit handlers.
        self._finalizer.atexit = False

    @classmethod
    def attach(
        cls,
        sandbox_id: str | None = None,
        *,
        app_name: str = "smolagent-executor",
        name: str | None = None,
        token: str | None = None,
        client: Any = None,  # noqa: ANN401 a modal.Client
        boot_timeout: float = 60.0,
        on_stage: Callable[[str, float], None] | None = None,
    ) -> Self:
        """Take over a running sandbox that a `ModalSandbox` made, here or elsewhere.

        Args:
            sandbox_id: Its id; or its name:
            app_name: The name of its app.
            name: Its name in the app.
            token: The gateway's token. By default it is read in the sandbox, where it is part of the
                environment that its secrets make: whoever may run commands in the sandbox may have it.
            client: A `modal.Client`.
            boot_timeout: The seconds that the look-up, and then the gateway, may take.
            on_stage: As for the constructor.

        Raises:
            SandboxGone: It has ended.
            ConfigurationError: There is none of that name or id, or it was not made by this package.
        """
        watch_for_termination()
        report = BootReport(on_stage=on_stage)
        find = _find(sandbox_id, app_name, name, client)
        lifeline, endpoint, port, expires_at = bridge.run(lambda: _attach(find, token, report, boot_timeout))
        self = cls.__new__(cls)
        self._adopt(lifeline, endpoint, report, port=port, boot_timeout=boot_timeout, expires_at=expires_at)
        return self

    @property
    def endpoint(self) -> Endpoint:
        """How to reach the gateway, and the kernel that is on its way."""
        return self._endpoint

    @property
    def sandbox(self) -> Any:  # noqa: ANN401 a modal.Sandbox
        """The `modal.Sandbox`."""
        return self._lifeline.sandbox

    @property
    def id(self) -> str:
        """Its id on Modal."""
        return str(self.sandbox.object_id)

    @property
    def port(self) -> int:
        """Where the gateway listens in the sandbox."""
        return self._port

    @property
    def boot_report(self) -> BootReport:
        """What the boot took."""
        return self._report

    @property
    def booted_at(self) -> datetime:
        """When it was created, or taken over."""
        return self._booted_at

    @property
    def expires_at(self) -> datetime | None:
        """When its lifetime will be over, to within some seconds; `None` where that is not known."""
        return self._expires_at

    def connect(self, options: Mapping[str, Any]) -> Session:
        """Wait for the gateway, and open a session on its kernel.

        Args:
            options: Further arguments of `Session.connect`.

        Raises:
            BootError: It did not become ready, or the sandbox ended; `.output` has its last output.
            ForkError: The sandbox belongs to the process that this one was forked off.
            ClosedError: It was terminated.
        """
        self._lifeline.require()
        options = {"connect_timeout": self._boot_timeout, **options}
        session = bridge.run(
            lambda: boot.connect(
                self._lifeline, self._endpoint, options, self._lifetime, may_create=self.is_new
            )
        )
        self._report.finished("gateway")
        return session

    def watch(self, on_end: Callable[[], object]) -> None:
        """Have a function called, in a thread, when Modal says that the sandbox has ended."""
        sandbox = self.sandbox

        async def wait() -> None:
            await boot.ask_end(sandbox)
            on_end()

        self._lifeline.watch(wait)

    def port_url(self, port: int) -> str:
        """Return the address of the tunnel to a port of the sandbox.

        Args:
            port: Where a server listens in the sandbox. Modal opens tunnels when it makes a sandbox: the port
                is one of `encrypted_ports`, `h2_ports` or `unencrypted_ports`.

        Raises:
            ConfigurationError: There is no tunnel to it.
            BootError: Modal does not say.
            ForkError: The sandbox belongs to the process that this one was forked off.
            ClosedError: It was terminated.
        """
        self._lifeline.require()
        return bridge.run(
            lambda: boot.port_url(self.sandbox, port, min(self._boot_timeout, boot.CALL_SECONDS))
        )

    def exit_error(self, execution: Execution | None = None) -> SandboxGone | None:
        """Ask Modal whether the sandbox has ended, after its connection broke: for some seconds.

        Args:
            execution: What was under way.

        Returns:
            An error that says so, or `None` where the sandbox still runs.
        """
        if not self._lifeline.owned:
            return None

        async def ask() -> str | None:
            try:
                return await asyncio.wait_for(boot.ask_end(self.sandbox), boot.VERDICT_SECONDS)
            except Exception:  # noqa: BLE001 then the cause is what broke the connection
                return None

        reason = bridge.run(ask)
        if reason is None:
            return None
        self._lifeline.done()
        if reason == "timeout":
            limit = f" of {self._lifetime:g} s" if self._lifetime else ""
            return SandboxExpired(
                f"The sandbox {self.id} reached its lifetime{limit} and was ended by Modal: all state is "
                "gone. Give a longer lifetime (at most 86400 s), and look at expires_at",
                execution,
            )
        return SandboxGone(
            f"The sandbox {self.id} ended {reason}: all state is gone. It may have run out of memory, or "
            f"been terminated by its idle_timeout or by someone else: see {self._report.dashboard_url}",
            execution,
        )

    def detach(self) -> str:
        """Leave it running on purpose.

        It ends when its lifetime is over, or earlier by its `idle_timeout` once nobody is connected.

        Returns:
            Its id, for `attach`.
        """
        self._lifeline.require()
        self._finalizer.detach()
        self._lifeline.detach()
        return self.id

    def terminate(self) -> None:
        """End it. May be called again, from any thread; in a forked child it does nothing."""
        self._lifeline.terminate()
        if self._lifeline.ended:
            self._finalizer.detach()

    def __repr__(self) -> str:
        ended, detached = self._lifeline.ended, self._lifeline.detached
        return f"<ModalSandbox {self.id}{' ended' if ended else ' detached' if detached else ''}>"


def _find(sandbox_id: str | None, app_name: str, name: str | None, client: Any) -> Callable[[], Any]:  # noqa: ANN401
    """Return what looks a sandbox up."""
    if (sandbox_id is None) == (name is None):
        raise ConfigurationError("give either the id or the name of the sandbox")
    sandboxes = sdk.load().Sandbox
    options = {"client": client} if client is not None else {}
    if sandbox_id is not None:
        return lambda: sandboxes.from_id.aio(sandbox_id, **options)
    return lambda: sandboxes.from_name.aio(app_name, name, **options)


async def _attach(
    find: Callable[[], Any], token: str | None, report: BootReport, seconds: float
) -> tuple[Lifeline, Endpoint, int, datetime | None]:
    seconds = min(seconds, boot.CALL_SECONDS)
    sandbox = await sdk.call(find(), seconds, "looking up the sandbox")
    report.sandbox_id, report.dashboard_url = sandbox.object_id, sdk.dashboard_url(sandbox)
    if await sdk.call(sandbox.poll.aio(), seconds, "asking for the sandbox's state") is not None:
        raise SandboxGone(f"The sandbox {sandbox.object_id} has ended: its state is gone, create a new one")
    tags = await sdk.call(sandbox.get_tags.aio(), seconds, "reading the sandbox's tags")
    if not re.fullmatch(r"[0-9a-f-]{36}", tags.get(KERNEL_TAG, "")) or not tags.get(PORT_TAG, "").isdecimal():
        raise ConfigurationError(
            f"The sandbox {sandbox.object_id} was not made by sandkernel: it has no tag {KERNEL_TAG!r}"
        )
    report.finished("sandbox")
    port = int(tags[PORT_TAG])
    url = await boot.tunnel_url(sandbox, port, seconds)
    report.finished("tunnel")
    if token is None:
        token = await sdk.call(_read_token(sandbox), seconds, "reading the gateway's token in the sandbox")
    expires = tags.get(EXPIRES_TAG, "")
    expires_at = datetime.fromtimestamp(int(expires), timezone.utc) if expires.isdecimal() else None
    return Lifeline(sandbox, None), Endpoint(url, token, tags[KERNEL_TAG]), port, expires_at


async def _read_token(sandbox: Any) -> str:  # noqa: ANN401 a modal.Sandbox
    """Read the token in the environment that every command in the sandbox has."""
    process = await sandbox.exec.aio("sh", "-c", f'printf %s "${TOKEN_VARIABLE}"')
    token = str(await process.stdout.read.aio())
    if not re.fullmatch(r"[\w-]{16,200}", token):
        raise ConfigurationError("The sandbox's environment has no token of a gateway: give it as token=")
    return token
