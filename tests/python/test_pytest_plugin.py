"""The fixtures that come with the package, in suites of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def suite(*arguments: object, cwd: Path = EXAMPLES) -> subprocess.CompletedProcess[str]:
    # The plugins of this suite's own are none of theirs.
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    options += ["-p", "no:asyncio"] if cwd != EXAMPLES else []
    command = [sys.executable, "-W", "error", "-m", "pytest", *options, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, cwd=cwd)


def test_the_example() -> None:
    done = suite(EXAMPLES / "pytest_suite")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_it_costs_nothing_who_does_not_use_it(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "import sys\n"
        "def test_own(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.has_plugin('sandkernel')\n"
        "    heavy = {'smolagents', 'modal', 'numpy', 'psutil', 'trustme', 'sandkernel.testing'}\n"
        "    assert not heavy & {*sys.modules}\n"
    )
    done = suite(tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_sandbox_left_running_fails_the_test(tmp_path: Path) -> None:
    (tmp_path / "test_left.py").write_text(
        "from sandkernel import ModalExecutor\n"
        "def test_left(sandkernel_modal):\n"
        "    ModalExecutor(app_name='left').detach()\n"
    )
    done = suite(tmp_path, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 passed, 1 error" in done.stdout


def test_packages_of_the_suite(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def sandkernel_packages():\n"
        "    return ['no such requirement']\n"
    )
    (tmp_path / "test_it.py").write_text("def test_it(sandkernel_executor): pass\n")
    done = suite(tmp_path, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ConfigurationError" in done.stdout
    assert "no such requirement" in done.stdout


def test_options_of_the_suites_sandbox(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def sandkernel_sandbox_options():\n"
        "    return {'environment': {'GREETING': 'hello'}, 'inherit_environment': True}\n"
    )
    (tmp_path / "test_it.py").write_text(
        "def test_it(sandkernel_executor):\n"
        '    code = \'import os; os.environ["GREETING"], os.environ["HOME"]\'\n'
        "    assert sandkernel_executor(code).output == repr(('hello', __import__('os').environ['HOME']))\n"
    )
    done = suite(tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
