"""What measures works; how fast something is, is for `make bench`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).parent.parent.parent / "benches" / "python"


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(BENCHES))
    import measure  # noqa: PLC0415 it is no package

    return measure


def test_a_subject_saves_what_the_report_shows(measure: object, tmp_path: Path) -> None:
    saved = tmp_path / "section.json"
    command = [sys.executable, str(BENCHES / "journal.py"), "--quick", "--json", str(saved)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    section = measure.Section.of(json.loads(saved.read_text()))  # type: ignore[attr-defined]
    assert section.markdown() == printed.rstrip("\n")
    (head, *rows) = [
        line for line in printed.splitlines() if line.startswith("|  |") or "a journal |" in line
    ][:3]
    assert "median, of without a journal" in head
    assert all(float(row.split("|")[2]) > 0 for row in rows)


def test_goals_are_met_from_their_own_side(measure: object) -> None:
    goal = measure.Goal  # type: ignore[attr-defined]
    assert goal(1, "latency", 1.2, 1.2).met
    assert not goal(1, "latency", 1.21, 1.2, shortfall="It is slow.").met
    assert goal(1, "speed", 20.0, 20.0, at_least=True).met
    assert not goal(1, "speed", 19.9, 20.0, at_least=True).met
    assert not goal(1, "what could not be had", None, 1.0).met
    assert measure.shortfalls([goal(1, "latency", 2.0, 1.0, shortfall="It is slow.")]) == [  # type: ignore[attr-defined]
        "Missed: latency. It is slow."
    ]


def test_quantiles_are_of_the_values_themselves(measure: object) -> None:
    values = [float(value) for value in range(100, -1, -1)]
    quantile = measure.quantile  # type: ignore[attr-defined]
    assert [quantile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
