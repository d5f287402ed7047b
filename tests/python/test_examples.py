"""The examples that need neither an account nor a model run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def test_files_and_kernels() -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "files_and_kernels.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "from 1.txt: 15",
        "from 100.txt: 510",
        "no numbers.txt: ValueError: invalid literal for int() with base 10: 'five'",
        "downloaded: ['from 1.txt', 'from 10.txt', 'from 100.txt']",
        "SandboxFileNotFoundError True",
        "'the first kernel' and 'the second kernel'",
    ):
        assert line in done.stdout.splitlines()
