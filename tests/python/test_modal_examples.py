"""The examples for Modal run, on the local stand-in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("modal_boto3.py", ["the key is there", "The agent's answer: {'boto3': "]),
        ("modal_gpu.py", ["sum of the weights: 500.0"]),
        ("modal_asyncio.py", ["'ADA' after", "'GRACE' after", "3", "kept: 42"]),
    ],
)
def test_an_example(name: str, expected: list[str]) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), "--local"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    for text in expected:
        assert text in done.stdout
    assert done.stderr == ""


def test_the_suite() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "modal_pytest")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
