"""What the kernels of a local sandbox can import, and where what is installed goes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kernel_client import KernelClient, run
from sandkernel.exceptions import ConfigurationError, PackageInstallError
from sandkernel.providers.local import LocalSandbox, installer
from sandkernel.providers.local.environment import Environment, Host
from wheels import make_wheel, only_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@pytest.fixture
def wheels(nothing_left_behind: Path) -> Path:
    directory = nothing_left_behind / "wheels"
    make_wheel(directory, "sandalpha")
    make_wheel(directory, "sandbeta", requires=("sandalpha>=1",))
    return directory


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Every command that the installer ran."""
    commands: list[Sequence[str]] = []
    original = installer.run

    def counting(command: Sequence[str], *arguments: object) -> None:
        commands.append(command)
        original(command, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(installer, "run", counting)
    return commands


@pytest.fixture(params=["uv", "pip"])
def with_installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pip":
        monkeypatch.setattr(installer, "find_uv", lambda: None)
    else:
        assert installer.find_uv() is not None
    return str(request.param)


@pytest.fixture(autouse=True)
def host_stays_as_it_is() -> Iterator[None]:
    """Fail a test that changes the environment that the tests run in."""

    def entries() -> list[str]:
        return sorted(
            str(entry)
            for directory in (*Host.of(None).packages, Path(sys.prefix) / "bin")
            for entry in Path(directory).iterdir()
            if entry.name != "__pycache__"
        )

    before = entries()
    yield
    assert entries() == before


def cache(directory: Path) -> list[Path]:
    return list((directory / "cache" / "sandkernel" / "packages").iterdir())


def test_packages_are_installed_once_and_cached(
    with_installer: str, wheels: Path, runs: list[Sequence[str]], nothing_left_behind: Path
) -> None:
    for _ in range(2):
        with LocalSandbox(["sandbeta>=1"], environment=only_from(wheels)) as sandbox:
            assert run(sandbox.endpoint, "import sandbeta, sandalpha; sandalpha.version").result == "'1.0'"
    assert len(runs) == 1
    assert with_installer in runs[0][0] or "pip" in runs[0]
    assert len(cache(nothing_left_behind)) == 1
    with LocalSandbox(["sandalpha"], environment=only_from(wheels)):
        assert len(runs) == 2
    assert len(cache(nothing_left_behind)) == 2


# What a sandbox's code can do to the directory that its packages are in.
CHANGES = {
    "a .pth file": "open(os.path.join(home, 'x.pth'), 'w').write('import sys; sys.changed = True')",
    "a module of another name": "open(os.path.join(home, 'x.py'), 'w').close()",
    "a module of the same length": (
        "path = os.path.join(home, 'sandalpha.py'); text = open(path).read()\n"
        "open(path, 'w').write(text.replace('1.0', '6.6'))"
    ),
    "a module that is gone": "os.unlink(os.path.join(home, 'sandbeta.py'))",
    "a link": "os.symlink('/tmp', os.path.join(home, 'link'))",
    "the record itself": "open(os.path.join(home, '.sandkernel-listing'), 'w').close()",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_one_sandbox_changes_is_not_in_the_next(
    wheels: Path, runs: list[Sequence[str]], nothing_left_behind: Path, change: str
) -> None:
    code = f"import os, sandbeta\nhome = os.path.dirname(sandbeta.__file__)\n{change}"
    look = "import sys, sandalpha, sandbeta; (sandalpha.version, hasattr(sys, 'changed'))"
    options = {"environment": only_from(wheels)}
    with LocalSandbox(["sandbeta"], **options) as first:
        assert run(first.endpoint, code).error is None
        with LocalSandbox(["sandbeta"], **options) as second:
            assert run(second.endpoint, look).result == "('1.0', False)"
            # The first one goes on with what it has.
            assert run(first.endpoint, "os.path.exists(home)").result == "True"
        with LocalSandbox(["sandbeta"], **options) as third:
            assert run(third.endpoint, look).result == "('1.0', False)"
    assert len(runs) == len(cache(nothing_left_behind)) == 2


def test_what_is_installed_later_is_no_link_to_the_users_cache(wheels: Path) -> None:
    change = (
        "import os, sandalpha\npath = sandalpha.__file__\ntext = open(path).read()\n"
        "with open(path, 'w') as file: file.write(text.replace('1.0', '6.6'))\nos.stat(path).st_nlink"
    )
    inside = "!uv pip install --quiet --no-index --find-links {} sandalpha\n"
    for install in ("host", "kernel"):
        with LocalSandbox(environment=only_from(wheels)) as sandbox:
            if install == "host":
                sandbox.install(["sandalpha"])
            else:
                assert run(sandbox.endpoint, inside.format(wheels)).error is None
            assert run(sandbox.endpoint, "import sandalpha; sandalpha.version").result == "'1.0'"
            assert run(sandbox.endpoint, change).result == "1"


def test_bytecode_changes_nothing(wheels: Path, runs: list[Sequence[str]]) -> None:
    code = (
        "import os, shutil, sandbeta, importlib\nhome = os.path.dirname(sandbeta.__file__)\n"
        "shutil.rmtree(os.path.join(home, '__pycache__'), ignore_errors=True)\n"
        "importlib.reload(sandbeta); os.listdir(home)"
    )
    for _ in range(2):
        with LocalSandbox(["sandbeta"], environment=only_from(wheels)) as sandbox:
            assert run(sandbox.endpoint, code).error is None
    assert len(runs) == 1


def test_what_the_host_has_is_not_installed_again(
    runs: list[Sequence[str]], nothing_left_behind: Path
) -> None:
    requirements = ["pytest>=1", "Pytest", "jupyter_client", 'sandalpha; python_version < "3"']
    with LocalSandbox(requirements) as sandbox:
        assert run(sandbox.endpoint, "import pytest; pytest.__name__").result == "'pytest'"
    assert runs == []
    assert not (nothing_left_behind / "cache" / "sandkernel").exists()


def test_what_the_host_has_in_another_version_is_installed_for_the_sandbox(
    wheels: Path, runs: list[Sequence[str]]
) -> None:
    make_wheel(wheels, "pluggy", "99.0")
    with LocalSandbox(["pluggy>=99"], environment=only_from(wheels)) as sandbox:
        assert run(sandbox.endpoint, "import pluggy; pluggy.version").result == "'99.0'"
    assert len(runs) == 1


def test_an_extra_that_the_host_lacks_is_installed() -> None:
    parsed = installer.parse(["jupyter_client[no-such-extra]", "jupyter_client[test]"])
    assert [str(r) for r in installer.unsatisfied(parsed, Host.of(None).packages)] == ["jupyter_client[test]"]


def test_a_package_that_does_not_exist_raises_with_the_installers_words(
    with_installer: str, wheels: Path, nothing_left_behind: Path
) -> None:
    del with_installer
    with pytest.raises(PackageInstallError, match="sandnowhere") as caught:
        LocalSandbox(["sandnowhere"], environment=only_from(wheels))
    assert "sandnowhere" in caught.value.output
    assert caught.value.output.splitlines()[-1] in str(caught.value)
    assert cache(nothing_left_behind) == []


def test_an_installation_that_takes_too_long_ends_with_all_its_processes(wheels: Path) -> None:
    with pytest.raises(PackageInstallError, match=r"longer than 0\.001 s"):
        LocalSandbox(["sandalpha"], environment=only_from(wheels), install_timeout=0.001)


def test_many_at_once_share_one_complete_directory(wheels: Path, nothing_left_behind: Path) -> None:
    requirements, host = installer.parse(["sandbeta"]), Host.of(None)
    found: list[Path] = []

    def install() -> None:
        found.append(
            installer.cached_packages(requirements, host, installer.find_uv(), only_from(wheels), 60)
        )

    threads = [threading.Thread(target=install) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache(nothing_left_behind) == list(set(found))
    assert len(found) == 4
    assert (found[0] / "sandalpha.py").exists()


def test_install_reaches_a_running_kernel_and_this_sandbox_alone(
    with_installer: str, wheels: Path, runs: list[Sequence[str]], nothing_left_behind: Path
) -> None:
    del with_installer
    with LocalSandbox(environment=only_from(wheels)) as sandbox, KernelClient(sandbox.endpoint) as client:
        assert client.run("import sandbeta").error == "ModuleNotFoundError: No module named 'sandbeta'"
        sandbox.install(["sandbeta"])
        venv = str(sandbox.directory.parent / "venv")
        assert venv in str(client.run("import sandbeta, sandalpha; sandalpha.__file__").result)
        sandbox.install(["sandbeta", "sandalpha>=1", "pytest"])
        assert len(runs) == 1
        with pytest.raises(PackageInstallError, match="sandnowhere"):
            sandbox.install(["sandnowhere"])
        with pytest.raises(ConfigurationError, match="--target"):
            sandbox.install(["--target=/"])
    assert not (nothing_left_behind / "cache" / "sandkernel").exists()


@pytest.mark.parametrize(
    "command",
    [
        "!pip install {wheel}",
        "%pip install {wheel}",
        "!python -m pip install {wheel}",
        "!uv pip install {wheel}",
        "import subprocess, sys; subprocess.run([sys.executable, '-m', 'pip', 'install', '{wheel}'])",
        # Of the environment that the tests run in, by its path: as far as one can go wrong.
        "!{host}/bin/pip install {wheel}",
    ],
)
def test_what_the_agent_installs_goes_into_the_venv(
    command: str, wheels: Path, monkeypatch: pytest.MonkeyPatch, nothing_left_behind: Path
) -> None:
    # Whatever the user has set for an environment of theirs.
    for name, value in {
        "PIP_TARGET": str(nothing_left_behind / "elsewhere"),
        "PIP_USER": "1",
        "UV_SYSTEM_PYTHON": "1",
        "UV_TARGET": str(nothing_left_behind / "elsewhere"),
    }.items():
        monkeypatch.setenv(name, value)
    wheel = next(wheels.glob("sandalpha-*"))
    with LocalSandbox() as sandbox, KernelClient(sandbox.endpoint) as client:
        outcome = client.run(command.format(wheel=wheel, host=sys.prefix))
        assert outcome.error is None
        found = client.run("import sandalpha; sandalpha.__file__")
        assert str(sandbox.directory.parent / "venv" / "lib") in str(found.result), outcome
    assert not (nothing_left_behind / "elsewhere").exists()


def test_the_kernel_sees_what_the_host_has_from_a_prefix_of_its_own() -> None:
    with LocalSandbox(environment={"SANDKERNEL_GREETING": "hello"}) as sandbox:
        code = "import sys, os, pytest; [sys.prefix, os.environ['SANDKERNEL_GREETING'], pytest.__file__]"
        venv, greeting, path = eval(str(run(sandbox.endpoint, code).result))
    assert venv == str(sandbox.directory.parent / "venv")
    assert greeting == "hello"
    assert path == pytest.__file__


def test_a_host_without_pip_has_one_in_the_venv(nothing_left_behind: Path, wheels: Path) -> None:
    host = dataclasses.replace(Host.of(None), packages=())
    environment = Environment(nothing_left_behind / "venv", host, None, None)
    environment.create()
    command = [environment.directory / "bin" / "pip", "install", next(wheels.glob("sandalpha-*"))]
    subprocess.run(command, check=True, capture_output=True)
    assert (environment.packages / "sandalpha.py").exists()


def test_a_host_without_any_pip_has_uv_as_one(
    nothing_left_behind: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = dataclasses.replace(Host.of(None), packages=())
    environment = Environment(nothing_left_behind / "venv", host, None, installer.find_uv())
    monkeypatch.setattr(Environment, "_bundled_pip", lambda _: None)
    environment.create()
    command = [environment.python, "-m", "pip", "install", next(wheels.glob("sandalpha-*"))]
    variables = {name: value for name, value in environment.variables({}).items() if value is not None}
    subprocess.run(command, check=True, capture_output=True, env=variables)
    assert (environment.packages / "sandalpha.py").exists()
