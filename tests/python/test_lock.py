"""The lock is for every clone: it names no index but the public one."""

from __future__ import annotations

import re
from pathlib import Path

LOCK = Path(__file__).parents[2] / "uv.lock"


def test_the_lock_names_the_public_index_only() -> None:
    hosts = set(re.findall(r"https?://([^/\"]+)", LOCK.read_text(encoding="utf-8")))
    assert hosts == {"files.pythonhosted.org", "pypi.org"}


def test_every_file_in_the_lock_has_a_hash() -> None:
    files = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if "url = " in line]
    assert len(files) > 100
    assert [line for line in files if 'hash = "sha256:' not in line] == []
