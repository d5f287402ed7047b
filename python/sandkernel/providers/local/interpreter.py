"""What is to know about an interpreter; run as a program, it prints that as JSON."""

from __future__ import annotations

import json
import os
import site
import sys
import sysconfig


def describe() -> dict[str, object]:
    """The fields of `environment.Host` for the interpreter that runs this."""
    packages = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        packages.append(site.getusersitepackages())
    return {
        "python": sys.executable,
        "base_python": getattr(sys, "_base_executable", None) or sys.executable,
        "prefix": sys.prefix,
        "version": list(sys.version_info[:3]),
        "platform": f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}",
        "packages": [path for path in dict.fromkeys(packages) if os.path.isdir(path)],  # noqa: PTH112 stays light
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe()))
