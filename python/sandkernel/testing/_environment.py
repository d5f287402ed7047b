"""What a process in a sandbox finds in its environment, and how its ports are told apart from others'."""

from __future__ import annotations

import os
import re
import shlex
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MARKER = "MODAL_SANDBOX_ID"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def base_environment(
    *, sandbox_id: str, task_id: str, image_id: str, environment_name: str, python: str, directory: Path
) -> dict[str, str]:
    """Make the environment that a sandbox has of its own: nothing of this process's gets in.

    The home directory, the temporary files and the packages that are installed at run time are in
    `directory`.
    """
    home, temporary, packages = (directory / name for name in ("home", "tmp", "packages"))
    for each in (home, temporary):
        each.mkdir(parents=True, exist_ok=True)
    # Without these two, a `pip install` in the sandbox would change the interpreter's own environment.
    site_packages = sysconfig.get_path("purelib", "posix_prefix", {"base": str(packages)})
    return {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_LOCAL",
        "MODAL_ENVIRONMENT": environment_name,
        "MODAL_IMAGE_ID": image_id,
        "MODAL_REGION": "local",
        MARKER: sandbox_id,
        "MODAL_TASK_ID": task_id,
        # Not resolved: in a virtual environment it is the link's directory that has `jupyter` beside
        # `python`.
        "PATH": os.pathsep.join([str(Path(python).parent), SYSTEM_PATH]),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_PREFIX": str(packages),
        "PYTHONPATH": site_packages,
        "TMPDIR": str(temporary),
    }


def image_environment(commands: Iterable[str]) -> dict[str, str]:
    """Read the variables that an image's `ENV` lines set."""
    variables: dict[str, str] = {}
    for command in commands:
        keyword, _, rest = command.strip().partition(" ")
        if keyword.upper() != "ENV":
            continue
        try:
            words = shlex.split(rest)
        except ValueError:
            continue
        if "=" in words[0]:
            variables.update((name, value) for name, _, value in (word.partition("=") for word in words))
        else:
            variables[words[0]] = " ".join(words[1:])
    return variables


def localize(texts: Sequence[str], ports: Mapping[int, int]) -> list[str]:
    """Replace the sandbox's port numbers by those that stand for them on this machine.

    All sandboxes share the ports of one machine, so what an entrypoint is told to listen on has to change. A
    number counts as a port if it is the whole text, or follows `=`, `:` or a blank and nothing else adjoins
    it.
    """
    for container_port, local_port in ports.items():
        pattern = re.compile(rf"(^|[=:\s]){container_port}(?=$|[\s/,;)'\"])")
        texts = [pattern.sub(rf"\g<1>{local_port}", text) for text in texts]
    return list(texts)
