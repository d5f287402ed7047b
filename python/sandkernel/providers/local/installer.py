"""Installs packages, with uv or else with pip, into a cache or into the venv of one sandbox."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from sandkernel import arguments
from sandkernel._sandkernel import printable
from sandkernel.concurrency.cancellation import Cancellation
from sandkernel.exceptions import ConfigurationError, PackageInstallError
from sandkernel.providers.local import listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sandkernel.providers.local.environment import Environment, Host

__all__ = ["cached_packages", "find_uv", "install", "unsatisfied"]

ABANDONED_AFTER = 24 * 3600.0
MESSAGE_LINES = 3


# uv asks `sysconfig`, which up to Python 3.12 shows a second thread what the first has not filled in yet.
_finding_uv = threading.Lock()


def find_uv() -> str | None:
    """The path of uv: that of the installed package, otherwise the one on the PATH."""
    if importlib.util.find_spec("uv") is not None:
        import uv  # noqa: PLC0415 optional

        with _finding_uv, contextlib.suppress(FileNotFoundError):
            return os.fspath(uv.find_uv_bin())
    return shutil.which("uv")


def parse(requirements: Iterable[str]) -> list[Requirement]:
    """Parse requirements, leaving out those whose marker does not hold here.

    Raises:
        ConfigurationError: One is no PEP 508 requirement, and the message names it; or they are no sequence
            of texts.
    """
    parsed = []
    for text in arguments.texts(requirements, "packages"):
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise ConfigurationError(f"{text!r} is no package requirement: {error}") from error
        if requirement.marker is None or requirement.marker.evaluate():
            parsed.append(requirement)
    return parsed


def unsatisfied(requirements: Iterable[Requirement], search_path: Sequence[str]) -> list[Requirement]:
    """Those of the requirements that the packages on a path do not satisfy."""
    return [requirement for requirement in requirements if not _satisfied(requirement, search_path)]


def _satisfied(requirement: Requirement, search_path: Sequence[str]) -> bool:
    if requirement.url:
        return False
    found = next(iter(importlib.metadata.distributions(name=requirement.name, path=list(search_path))), None)
    if found is None or not requirement.specifier.contains(found.version, prereleases=True):
        return False
    for extra in requirement.extras:
        for text in found.requires or ():
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
                continue
            if not _satisfied(needed, search_path):
                return False
    return True


def cached_packages(
    requirements: Sequence[Requirement],
    host: Host,
    uv: str | None,
    variables: Mapping[str, str | None],
    timeout: float,
) -> Path:
    """A directory with packages and all that they need, installed by this or an earlier process.

    Args:
        requirements: What it shall hold.
        host: The environment whose interpreter they are for.
        uv: The path of uv, if there is one.
        variables: Environment variables for the installer, beside our own; `None` stands for none.
        timeout: How long the installer may take, in seconds.

    Returns:
        The directory. It is complete: a half-made one is never seen, however many processes make it at once.
        And it holds what was installed: one that was changed since, by the code of some sandbox, is left to
        those that use it, and another one is made.

    Raises:
        PackageInstallError: The installer failed, or took too long.
    """
    names = sorted(_normalized(requirement) for requirement in requirements)
    identity = json.dumps([names, host.version[:2], host.platform, host.prefix])
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sandkernel" / "packages"
    name = hashlib.sha256(identity.encode()).hexdigest()
    places = (home / f"{name}-{number}" for number in itertools.count(1))
    final = next(place for place in places if not place.is_dir() or listing.is_unchanged(place))
    if final.is_dir():
        return final
    home.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(home)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=home))
    try:
        texts = [str(requirement) for requirement in requirements]
        target = ["--target", str(making / "packages")]
        if uv:
            command = [
                uv,
                "pip",
                "install",
                "--compile-bytecode",
                "--python",
                host.python,
                *target,
                "--",
                *texts,
            ]
        else:
            command = [host.python, "-m", "pip", "install", "--no-input", *target, "--", *texts]
        run(command, texts, variables, timeout)
        listing.record(making / "packages")
        # Where another process was first, its directory is as good as ours.
        with contextlib.suppress(OSError):
            (making / "packages").rename(final)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return final


def install(
    requirements: Sequence[Requirement],
    environment: Environment,
    variables: Mapping[str, str | None],
    timeout: float,
) -> None:
    """Install packages into the venv of one sandbox.

    Raises:
        PackageInstallError: The installer failed, or took too long.
    """
    texts = [str(requirement) for requirement in requirements]
    python = str(environment.python)
    if environment.uv:
        command = [environment.uv, "pip", "install", "--python", python, "--", *texts]
    else:
        command = [python, "-m", "pip", "install", "--no-input", "--", *texts]
    run(command, texts, variables, timeout)


def run(
    command: Sequence[str], texts: Sequence[str], variables: Mapping[str, str | None], timeout: float
) -> None:
    """Run an installer; nothing of it goes on after this returns or raises."""
    # What redirects an installation is the user's wish for an environment of theirs, not for ours.
    redirecting = {
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_ROOT",
        "PIP_USER",
        "UV_TARGET",
        "UV_PREFIX",
        "UV_SYSTEM_PYTHON",
    }
    environ = {name: value for name, value in os.environ.items() if name not in redirecting}
    environ.update({"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0", "NO_COLOR": "1"})
    # By default uv's files are links to those of the user's cache, which the code of a sandbox could change.
    environ["UV_LINK_MODE"] = "copy"
    environ.update({name: value for name, value in variables.items() if value is not None})
    for name in [name for name, value in variables.items() if value is None]:
        environ.pop(name, None)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ,
        start_new_session=True,
    )

    def kill() -> None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)

    with process:
        try:
            with Cancellation.following(kill):
                output = process.communicate(timeout=timeout)[0]
        except BaseException as error:
            kill()
            rest = process.communicate()[0]
            if isinstance(error, subprocess.TimeoutExpired):
                raise PackageInstallError(
                    f"installing {', '.join(texts)} took longer than {timeout:g} s", output=_text(rest)
                ) from None
            raise
    Cancellation.check()
    if process.returncode != 0:
        words = _text(output)
        last = "\n".join(words.splitlines()[-MESSAGE_LINES:])
        raise PackageInstallError(f"installing {', '.join(texts)} failed: {last}", output=words)


def _text(output: bytes) -> str:
    return printable(output.decode(errors="replace")).strip()


def _normalized(requirement: Requirement) -> str:
    copy = Requirement(str(requirement))
    copy.name = canonicalize_name(copy.name)
    copy.marker = None
    return str(copy)


def _remove_abandoned(home: Path) -> None:
    """Remove what processes that were killed left half made."""
    for path in home.glob(".making-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                shutil.rmtree(path, ignore_errors=True)
