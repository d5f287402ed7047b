"""The `Sandbox` in an environment that has the extra `local` and nothing else: no smolagents, no modal."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sandkernel

PACKAGE = Path(sandkernel.__file__).parent.parent


def needed(name: str, extras: set[str]) -> dict[str, importlib.metadata.Distribution]:
    """The distributions that one needs, itself included, as this environment has them."""
    found: dict[str, importlib.metadata.Distribution] = {}
    pending = [(name, extras)]
    while pending:
        name, extras = pending.pop()
        if canonicalize_name(name) in found:
            continue
        distribution = importlib.metadata.distribution(name)
        found[canonicalize_name(name)] = distribution
        for text in distribution.requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                pending.append((requirement.name, set(requirement.extras)))
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with `sandkernel[local]`: links to the packages of this one."""
    directory = tmp_path_factory.mktemp("alone") / "venv"
    venv.create(directory, symlinks=True, with_pip=False)
    [packages] = (directory / "lib").glob("python*/site-packages")
    for name, distribution in needed("sandkernel", {"local"}).items():
        if name == "sandkernel":
            packages.joinpath("sandkernel.pth").write_text(f"{PACKAGE}\n")
            continue
        for top in {
            path.parts[0] for path in distribution.files or () if path.parts[0] not in ("..", "__pycache__")
        }:
            link = packages / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))).resolve())
    return directory / "bin" / "python"


def run(python: Path | str, program: str) -> str:
    done = subprocess.run(
        [python, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_imports_no_framework() -> None:
    program = """
        import sys
        import sandkernel
        sandkernel.Sandbox
        sandkernel.SandboxPool
        imported = {name.partition(".")[0] for name in sys.modules}
        print(sorted(imported & {"smolagents", "modal", "rich", "numpy"}))
    """
    assert run(sys.executable, program) == "[]\n"


def test_the_whole_sandbox_works_without_smolagents_and_modal(python: Path) -> None:
    program = """
        import asyncio, importlib.util
        assert not [name for name in ("smolagents", "modal", "numpy") if importlib.util.find_spec(name)]

        from sandkernel import ConfigurationError, PayloadError, Sandbox, SandboxPool, VariableNotFoundError

        def double(number: int) -> int:
            return 2 * number

        def main():
            with Sandbox.create("local", timeout=60) as sandbox:
                assert sandbox.run("x = 6 * 7\\nx").text == "42"
                assert sandbox.run("1 / 0").error.name == "ZeroDivisionError"
                assert list(sandbox.stream("x"))[-1].text == "42"
                sandbox.set(numbers=[1, 2, 3])
                assert sandbox.get("numbers") == [1, 2, 3]
                sandbox.provide(double=double)
                assert sandbox.run("double(x)").text == "84"
                sandbox.run("import threading; lock = threading.Lock()")
                for name, kind in (("lock", PayloadError), ("nowhere", VariableNotFoundError)):
                    try:
                        sandbox.get(name)
                    except kind:
                        continue
                    raise AssertionError(name)
                sandbox.files.write("a.txt", "1")
                with sandbox.new_kernel(inherit=True) as kernel:
                    text = kernel.run("open('a.txt').read(), numbers, double(1)").text
                    assert text == "('1', [1, 2, 3], 2)"
                assert [each.result().text for each in sandbox.run_many(["1", "double(1)"])] == ["1", "2"]
                sandbox.interrupt()
                sandbox.restart()
                assert sandbox.run("double(numbers[0])").text == "2"
                assert sandbox.install(["json"]) == []
                assert sandbox.port_url(8000) == "http://127.0.0.1:8000"
                assert sandbox.is_alive()
            with SandboxPool(1, lambda: Sandbox.create("local", timeout=60)) as pool:
                with pool.acquire(60) as pooled:
                    assert pooled.run("1").text == "1"

        async def amain():
            async with await Sandbox.acreate("local", timeout=60) as sandbox:
                assert (await sandbox.arun("1")).text == "1"
                assert [event async for event in sandbox.astream("2")][-1].text == "2"
                await sandbox.aset(given=1)
                assert await sandbox.aget("given") == 1
                await sandbox.aprovide(double=double)
                assert (await sandbox.arun("double(given)")).text == "2"
                async with await sandbox.anew_kernel() as kernel:
                    assert (await kernel.arun("1")).text == "1"
                assert [each.result().text for each in await sandbox.arun_many(["1"])] == ["1"]
                await sandbox.ainterrupt()
                await sandbox.arestart()
                assert (await sandbox.arun("given")).text == "1"

        main()
        asyncio.run(amain())
        try:
            Sandbox.create("modal")
        except ModuleNotFoundError as error:
            print(error)
    """
    assert (
        run(python, program) == "Sandboxes on Modal need the modal package: pip install 'sandkernel[modal]'\n"
    )


def test_what_needs_smolagents_says_so(python: Path) -> None:
    program = """
        import sandkernel
        try:
            sandkernel.LocalExecutor
        except ModuleNotFoundError as error:
            print(error.name)
    """
    assert run(python, program) == "smolagents\n"
