"""Packages that an executor installs."""

from __future__ import annotations

import uuid
import zipfile
from typing import TYPE_CHECKING

import pytest
from smolagents.utils import AgentError

from sandkernel import LocalExecutor
from sandkernel.exceptions import ConfigurationError, PackageInstallError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of our own, whose name no other has: no cache has it."""
    name = f"sandkernel_sample{uuid.uuid4().hex}"
    path = tmp_path_factory.mktemp("index") / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "value = 42\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n")
    return path


def index(wheel: Path, cache: Path) -> dict[str, str]:
    """What makes installers look nowhere but in the directory of our package."""
    directory = str(wheel.parent)
    return {
        "UV_FIND_LINKS": directory,
        "UV_NO_INDEX": "1",
        "PIP_FIND_LINKS": directory,
        "PIP_NO_INDEX": "1",
        "XDG_CACHE_HOME": str(cache),
    }


@pytest.fixture(scope="module")
def executor(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExecutor]:
    with LocalExecutor(timeout=60, environment=index(wheel, tmp_path_factory.mktemp("cache"))) as executor:
        yield executor


def test_a_package_is_there_at_once(executor: LocalExecutor, wheel: Path) -> None:
    name = wheel.name.partition("-")[0]
    with pytest.raises(AgentError, match="ModuleNotFoundError"):
        executor(f"import {name}")
    installed = executor.install_packages([name])
    assert [requirement.replace("-", "_") for requirement in installed] == [name]
    assert executor(f"import {name}; {name}.value").output == "42"
    assert executor.install_packages([name]) == [], "it was installed again"


def test_a_version_is_a_requirement_too(executor: LocalExecutor, wheel: Path) -> None:
    with pytest.raises(PackageInstallError, match=r"sandkernel.sample"):
        executor.install_packages([f"{wheel.name.partition('-')[0]}>=2"])


def test_additional_imports_are_there_from_the_start(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = wheel.name.partition("-")[0]
    # The cache of packages belongs to the user who runs the tests: this one is thrown away.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with LocalExecutor([name, "json", "os.path"], environment=index(wheel, tmp_path)) as executor:
        assert executor(f"import {name}; {name}.value").output == "42"


def test_a_package_that_does_not_exist(executor: LocalExecutor) -> None:
    with pytest.raises(PackageInstallError) as raised:
        executor.install_packages(["sandkernel-missing"])
    assert "sandkernel-missing" in str(raised.value) + raised.value.output
    assert executor("1").output == "1"


def test_the_kernels_own_installer_fails_in_its_own_words(executor: LocalExecutor, tmp_path: Path) -> None:
    missing = f"sandkernel-missing @ {(tmp_path / 'sandkernel_missing-1.0-py3-none-any.whl').as_uri()}"
    executor("pass")
    with pytest.raises(PackageInstallError) as raised:
        executor._drive(executor._provision.install_inside([missing]))
    assert "sandkernel-missing" in str(raised.value)
    assert "sandkernel_missing-1.0" in raised.value.output


def test_the_kernels_own_installer_installs(executor: LocalExecutor, wheel: Path) -> None:
    executor("pass")
    name = wheel.name.partition("-")[0]
    executor._drive(executor._provision.install_inside([f"{name} @ {wheel.as_uri()}"]))
    assert executor(f"import {name}; {name}.value").output == "42"


@pytest.mark.parametrize("name", ["numpy; rm -rf /", "--index-url=http://x", "$(id)", "a b", ""])
def test_what_is_no_requirement_is_refused(executor: LocalExecutor, name: str) -> None:
    with pytest.raises(ConfigurationError):
        executor.install_packages([name])


def test_standard_library_and_wildcard_are_skipped(executor: LocalExecutor) -> None:
    assert executor.install_packages(["json", "os.path", "*", "collections.abc"]) == []
