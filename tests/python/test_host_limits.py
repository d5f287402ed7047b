"""The table of what a kernel can take of its host, and the program that measures it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from host_attacks import INPUTS

DIRECTORY = Path(__file__).parent
TABLE = (DIRECTORY.parents[1] / "docs" / "limits.md").read_text()


@pytest.mark.parametrize("name", [each.name for each in INPUTS])
def test_every_input_has_its_row(name: str) -> None:
    (row,) = (line for line in TABLE.splitlines() if line.startswith(f"| {name} |"))
    peak = row.split("|")[6]
    assert "MiB" in peak


@pytest.mark.parametrize("name", ["arguments", "final answers", "replies"])
def test_an_attack_stays_within_its_budget(name: str) -> None:
    # In a process of its own: what it grows by is not that of the tests.
    done = subprocess.run(
        [sys.executable, "host_limits.py", name],
        stdout=subprocess.PIPE,
        check=False,
        cwd=DIRECTORY,
        timeout=110,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) >= 3
    # How long the interpreter's lock is held is for `make floods`: it depends on the machine.
    wrong = [(each["attack"], what) for each in reports for what in each["wrong"] if "lock" not in what]
    assert wrong == []
