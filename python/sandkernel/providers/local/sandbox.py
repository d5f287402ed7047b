"""A kernel gateway in a subprocess of this machine."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
import uuid
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from sandkernel import arguments
from sandkernel.exceptions import BootError, SandboxGone
from sandkernel.providers.base import Provider
from sandkernel.providers.endpoint import Endpoint
from sandkernel.providers.local import inheritance, installer
from sandkernel.providers.local.environment import Environment, Host
from sandkernel.providers.local.process import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sandkernel._sandkernel import Execution

__all__ = ["LocalSandbox"]


class LocalSandbox(Provider):
    """A kernel gateway in a subprocess of this machine, with one kernel already on its way.

    **This is no isolation boundary.** The code runs as the user that runs this, and can read and write the
    files and reach the networks that the user can. The sandbox gives an own working directory, an own home
    directory, an own environment of packages, and environment variables without those of this process that
    may be secret. Its processes end with it: at `terminate`, at the end of a `with` block, at garbage
    collection, at the exit of the interpreter, and when this process is killed, the gateway, its kernels and
    all that they started are ended, and the directory is removed. A forked child neither ends the sandbox nor
    can use it.

    On Linux 6.12 and later, where Landlock is among the system's security modules, the kernels are confined
    (`confinement`): with all that they start, they can't send signals to other processes than their own,
    can't read or write the memory or the environment of others, and can't connect to abstract unix sockets of
    others. Programs that gain privileges, such as `sudo`, gain none in them.

    Packages go into a cache, `$XDG_CACHE_HOME/sandkernel/packages` (default `~/.cache`), once for each set of
    requirements and interpreter; to get newer versions of unpinned ones, remove it. The environment that
    Python runs in here is seen by the kernels, and never written to.

    Args:
        packages: Requirements (PEP 508) that the kernels can import. What the environment has already is not
            installed again.
        python: The interpreter of the gateway and the kernels, in an environment with
            `jupyter-kernel-gateway` and `ipykernel`. Default: the one that runs this.
        boot_timeout: How long the gateway may take to become ready, in seconds, without the installation.
        install_timeout: How long one installation may take, in seconds.
        environment: Further environment variables for the kernels and the installer; `None` removes one.
        inherit_environment: Whether the sandbox has all of this process's environment variables, keys among
            them, and this user's home directory. Default: it has those by which programs run and find each
            other (`PATH`, the locale, `TMPDIR`, proxies without their credentials, files of certificate
            authorities, those of Python and CUDA; `sandkernel.providers.local.inheritance` lists them), and a
            home directory of its own.
        on_stage: Called with the name of each finished stage of the boot ("environment", "packages",
            "gateway") and the seconds that it took.

    Raises:
        ConfigurationError: A requirement, a variable or `inherit_environment` is malformed.
        BootError: The gateway did not become ready; `.output` has its last output. Nothing is left running.
        PackageInstallError: A package can't be installed; `.output` has the installer's words.
    """

    # What it says of itself is believed until code of an agent has run in it.
    is_new = True
    can_install = True
    knows_its_end = True

    def __init__(
        self,
        packages: Sequence[str] = (),
        *,
        python: str | os.PathLike[str] | None = None,
        boot_timeout: float = 60.0,
        install_timeout: float = 600.0,
        environment: Mapping[str, str | None] | None = None,
        inherit_environment: bool = False,
        on_stage: Callable[[str, float], None] | None = None,
    ) -> None:
        requirements = installer.parse(packages)
        self._variables = arguments.variables(environment, "environment")
        arguments.flag(inherit_environment, "inherit_environment")
        self._install_timeout = install_timeout
        host = Host.of(python)
        root = Path(tempfile.mkdtemp(prefix="sandkernel-")).resolve()
        process = GatewayProcess(host.python, root)
        self._process = process
        self._finalizer = weakref.finalize(self, process.terminate)
        stages = _Stages(on_stage)
        try:
            uv = installer.find_uv()
            missing = installer.unsatisfied(requirements, host.packages)
            cached = None
            if missing:
                cached = installer.cached_packages(missing, host, uv, self._variables, install_timeout)
                stages.finished("packages")
            self._environment = Environment(root / "venv", host, cached, uv)
            self._environment.create()
            stages.finished("environment")
            environ = dict(os.environ)
            if not inherit_environment:
                home = root / "home"
                home.mkdir(mode=0o700)
                environ = {**inheritance.allowed(environ), "HOME": str(home)}
            token, kernel_id = secrets.token_urlsafe(32), str(uuid.uuid4())
            report = process.start(
                {
                    "token": token,
                    "ip": "127.0.0.1",
                    "port": 0,
                    # On one machine a client that stands still is busy, not gone.
                    "ping_interval": 0,
                    "kernel_id": kernel_id,
                    "kernel_python": str(self._environment.python),
                    "environment": {**self._environment.variables(environ), **self._variables},
                },
                environ,
                time.monotonic() + boot_timeout,
            )
            stages.finished("gateway")
        except BaseException as error:
            self.terminate()
            if isinstance(error, BootError):
                error.output = process.output()
            elif isinstance(error, OSError):
                raise BootError(f"the local sandbox can't be set up: {error}") from error
            raise
        self._confinement = str(report.get("confinement"))
        self._endpoint = Endpoint(f"http://127.0.0.1:{report['port']}", token, report["kernel_id"])

    @property
    def endpoint(self) -> Endpoint:
        """How to reach the gateway, and the kernel that is on its way."""
        return self._endpoint

    @property
    def directory(self) -> Path:
        """The working directory of the kernels; it is removed with the sandbox."""
        return self._process.root / "work"

    @property
    def process_id(self) -> int:
        """The process id of the gateway."""
        return self._process.process_id

    @property
    def confinement(self) -> str:
        """`"on"` where kernels can't reach processes outside of the sandbox; otherwise `"off: "` and why."""
        return self._confinement

    def output(self) -> str:
        """The last output of the gateway's process, at most 64 KiB; also after `terminate`."""
        return self._process.output()

    def install(self, requirements: Sequence[str]) -> None:
        """Install packages for the kernels of this sandbox alone; running kernels can import them at once.

        Args:
            requirements: Requirements (PEP 508). What the kernels can import already is not installed again.

        Raises:
            ConfigurationError: A requirement is malformed.
            ClosedError: The sandbox was terminated.
            ForkError: The sandbox belongs to the process that this one was forked off.
            PackageInstallError: A package can't be installed; `.output` has the installer's words.
        """
        self._process.require_owned()
        missing = installer.unsatisfied(installer.parse(requirements), self._environment.search_path)
        if missing:
            installer.install(missing, self._environment, self._variables, self._install_timeout)

    def watch(self, on_end: Callable[[], object]) -> None:
        """Have a function called, in a thread, when the gateway's process has ended."""
        self._process.watch(on_end)

    def port_url(self, port: int) -> str:
        """Return the address of a server in the sandbox, which is one on this machine.

        Args:
            port: Where it listens.
        """
        return f"http://127.0.0.1:{port}"

    def exit_error(self, execution: Execution | None = None) -> SandboxGone | None:
        """Find out whether the gateway's process has ended by itself, after its connection broke.

        Args:
            execution: What was under way.

        Returns:
            An error that says so, or `None` where it still runs, or was terminated here.
        """
        status = self._process.ended_with()
        if status is None:
            return None
        how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
        return SandboxGone(
            f"The local sandbox ended {how}: all state is gone. It may have run out of memory",
            execution,
        )

    def terminate(self) -> None:
        """End the gateway, its kernels and all that they started, and remove the directory.

        Takes some milliseconds, 4 seconds at worst. May be called again, from any thread; in a forked child
        it does nothing.
        """
        self._process.terminate()
        if self._process.terminated:
            self._finalizer.detach()

    def __repr__(self) -> str:
        state = "terminated" if self._process.terminated else f"process {self.process_id}"
        return f"<LocalSandbox {state} in {str(self._process.root)!r}>"


class _Stages:
    """Tells a callback how long each stage of the boot took."""

    def __init__(self, callback: Callable[[str, float], None] | None) -> None:
        self._callback = callback
        self._began = time.monotonic()

    def finished(self, name: str) -> None:
        now = time.monotonic()
        if self._callback is not None:
            self._callback(name, now - self._began)
        self._began = now
