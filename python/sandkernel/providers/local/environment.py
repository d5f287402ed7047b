"""An environment of a kernel's own: a venv made by hand in milliseconds, on top of an existing one."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandkernel.exceptions import BootError
from sandkernel.providers.local import interpreter
from sandkernel.providers.local.process import MARKER

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Environment", "Host"]

QUERY_TIMEOUT = 30.0


@dataclass(frozen=True)
class Host:
    """The environment that a sandbox stands on: it is read from, never written to.

    Attributes:
        python: Its interpreter.
        base_python: The interpreter that its venv, if it is one, was made from.
        prefix: Its directory.
        version: Of Python: major, minor, micro.
        platform: The operating system, machine and implementation that its packages are for.
        packages: Its directories of installed packages.
    """

    python: str
    base_python: str
    prefix: str
    version: tuple[int, ...]
    platform: str
    packages: tuple[str, ...]

    @classmethod
    def of(cls, python: str | os.PathLike[str] | None) -> Host:
        """Describe the environment of an interpreter; `None`: of this one.

        Raises:
            BootError: There is no such interpreter, or it does not run.
        """
        if python is None:
            fields = interpreter.describe()
        else:
            command = [os.fspath(python), interpreter.__file__]
            try:
                done = subprocess.run(
                    command, capture_output=True, check=True, timeout=QUERY_TIMEOUT, stdin=subprocess.DEVNULL
                )
                fields = json.loads(done.stdout)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                raise BootError(f"the interpreter {command[0]!r} does not run: {error}") from error
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Environment:
    """A venv of a sandbox's own, without a copy of pip in it.

    Attributes:
        directory: Where it is.
        host: What it stands on.
        cached: A directory of packages that come before the host's, if there is one.
        uv: The path of uv, if there is one.
    """

    directory: Path
    host: Host
    cached: Path | None
    uv: str | None

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.directory / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Its own packages."""
        return self.directory / "lib" / self._minor / "site-packages"

    @property
    def search_path(self) -> list[str]:
        """Every directory of packages that its kernels see, first to last."""
        return [str(self.packages), *([str(self.cached)] if self.cached else []), *self.host.packages]

    @property
    def _minor(self) -> str:
        return "python{}.{}".format(*self.host.version)

    def create(self) -> None:
        """Make it: a few links and files, where `venv` alone would take a second to install pip."""
        binaries = self.directory / "bin"
        binaries.mkdir(parents=True)
        self.packages.mkdir(parents=True)
        for name in ("python", "python3", self._minor):
            (binaries / name).symlink_to(self.host.base_python)
        (self.directory / "pyvenv.cfg").write_text(
            f"home = {Path(self.host.base_python).parent}\n"
            "include-system-site-packages = false\n"
            "version = {}.{}.{}\n".format(*self.host.version)
        )
        # Not plain lines: those would leave out the .pth files there, which editable installs need.
        lines = [f"import site; site.addsitedir({path!r})" for path in self.search_path[1:]]
        lines += self._provide_pip(binaries)
        (self.packages / "_sandkernel.pth").write_text("\n".join(lines) + "\n")

    def _provide_pip(self, binaries: Path) -> list[str]:
        """Make `pip` and `uv` in the kernel work on this venv; returns lines for its .pth file."""
        lines = []
        if self.uv:
            (binaries / "uv").symlink_to(self.uv)
        if not any((Path(path) / "pip" / "__main__.py").exists() for path in self.search_path[1:]):
            bundled = self._bundled_pip()
            if bundled:
                # pip runs from its wheel too.
                lines.append(str(bundled))
            elif self.uv:
                module = self.packages / "pip"
                module.mkdir()
                (module / "__init__.py").touch()
                (module / "__main__.py").write_text(
                    f"import os, sys\nos.execv({self.uv!r}, ['uv', 'pip', *sys.argv[1:]])\n"
                )
        for name in ("pip", "pip3"):
            script = binaries / name
            script.write_text(
                f"#!{self.python}\nimport runpy, sys\nsys.argv[0] = 'pip'\n"
                "runpy.run_module('pip', run_name='__main__', alter_sys=True)\n"
            )
            script.chmod(0o755)
        return lines

    def _bundled_pip(self) -> Path | None:
        """The wheel of pip that the interpreter's own `ensurepip` has; some distributions leave it out."""
        library = Path(self.host.base_python).resolve().parent.parent / "lib" / self._minor
        return max((library / "ensurepip" / "_bundled").glob("pip-*.whl"), default=None)

    def variables(self, environ: Mapping[str, str]) -> dict[str, str | None]:
        """What the kernels' environment variables become; `None`: unset.

        With these `!pip install`, `%pip install` and `!uv pip install` reach this venv, whatever the user
        has set.

        Args:
            environ: The variables that they are without these.
        """
        directories = [
            str(self.directory / "bin"),
            *([str(self.cached / "bin")] if self.cached else []),
            str(Path(self.host.prefix) / "bin"),
            environ.get("PATH", os.defpath),
        ]
        return {
            "PATH": os.pathsep.join(directories),
            "VIRTUAL_ENV": str(self.directory),
            "PYTHONHOME": None,
            "PIP_PYTHON": str(self.python),
            "PIP_USER": "0",
            "PIP_TARGET": None,
            "PIP_PREFIX": None,
            "PIP_ROOT": None,
            "PIP_NO_INPUT": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "UV_PYTHON": str(self.python),
            # By default its files are links to those of the user's cache, which the code could write to.
            "UV_LINK_MODE": "copy",
            "UV_SYSTEM_PYTHON": None,
            "UV_TARGET": None,
            "UV_PREFIX": None,
            "__PYVENV_LAUNCHER__": None,
            # The user's own profile, start-up files and history are not the agent's.
            "IPYTHONDIR": str(self.directory.parent / "ipython"),
            MARKER: str(self.directory.parent),
        }
