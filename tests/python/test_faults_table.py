"""Every test that the table of faults names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_names_tests_that_exist() -> None:
    rows = [line for line in (ROOT / "docs" / "faults.md").read_text().splitlines() if line.startswith("| ")]
    named = [name for row in rows[1:] for name in re.findall(r"`(\w+)` \|$", row)]
    assert len(named) == len(rows) - 1 > 15
    rust = [*(ROOT / "tests").glob("*.rs"), *(ROOT / "src").rglob("*.rs")]
    sources = [*rust, *(ROOT / "tests" / "python").glob("test_*.py")]
    defined = re.findall(r"(?:def|fn) (\w+)\(", "\n".join(path.read_text() for path in sources))
    assert set(named) <= set(defined)
