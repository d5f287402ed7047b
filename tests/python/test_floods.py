"""Code that floods: memory stays bounded, what is left out is counted, and nothing else suffers.

Smaller than in `make floods`, and so that what is not bounded still shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import floods

ALLOWED = floods.OUTPUT_BYTES + (64 << 20)


@pytest.fixture(scope="module")
def reports() -> dict[str, Any]:
    """What a process of its own reports, whose memory is not that of the tests."""
    program = [sys.executable, floods.__file__, "--scale", "0.1", "--messages", "6000"]
    answer = subprocess.run(program, check=True, stdout=subprocess.PIPE, timeout=300).stdout
    return dict(json.loads(answer))


@pytest.mark.parametrize("name", [each.__name__ for each in floods.FLOODS])
def test_a_flood_harms_nobody(reports: dict[str, Any], name: str) -> None:
    report = reports[name]
    assert report["grown"] < ALLOWED
    # Nobody waits for the end of code whose interrupt a busy gateway has not taken in time.
    assert report["complete"] or report.get("restarted", False) is None
    # The connection is the same, the kernel too, and the other session went on all the time.
    assert (report["next"], report["generation"]) == ("42", 0)
    assert report["neighbour"]["executions"] > 1


@pytest.mark.parametrize("name", ["prints", "tiny_messages", "one_line"])
def test_head_and_tail_are_right_and_the_rest_is_counted(reports: dict[str, Any], name: str) -> None:
    report = reports[name]
    heads = {"prints": "0" * 20, "tiny_messages": "000000\n000001\n000002", "one_line": "head" + "é" * 16}
    assert report["head"] == heads[name]
    assert report["tail"].endswith(("\nend\n", "tail\n"))
    assert report["bytes"] == report["expected"]


def test_a_giant_result_is_named_as_left_out(reports: dict[str, Any]) -> None:
    report = reports["result"]
    assert report["omitted_results"] == 1
    assert report["text"].endswith(" bytes left out …]\n")
    assert report["head"] == "before\n"
    assert report["kept_in_kernel"] == str(report["expected"])


def test_an_endless_stream_ends_with_its_timeout(reports: dict[str, Any]) -> None:
    report = reports["endless"]
    assert not report["restarted"]
    assert report["head"].startswith("headxxxx")
    assert report["omitted"] > 0
