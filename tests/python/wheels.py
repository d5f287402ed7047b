"""Wheels made on the spot: installing one needs no network."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make_wheel(directory: Path, name: str, version: str = "1.0", requires: tuple[str, ...] = ()) -> Path:
    """A wheel with one module that has its version."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    information = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"version = {version!r}\n")
        wheel.writestr(
            f"{information}/METADATA", metadata + "".join(f"Requires-Dist: {r}\n" for r in requires)
        )
        wheel.writestr(
            f"{information}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        names = [f"{name}.py", f"{information}/METADATA", f"{information}/WHEEL", f"{information}/RECORD"]
        wheel.writestr(f"{information}/RECORD", "".join(f"{entry},,\n" for entry in names))
    return path


def only_from(directory: Path) -> dict[str, str]:
    """The variables that make uv and pip see these wheels and no index."""
    return {
        "UV_FIND_LINKS": str(directory),
        "UV_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(directory),
        "PIP_NO_INDEX": "1",
    }
