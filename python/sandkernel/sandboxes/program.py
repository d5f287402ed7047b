"""The program that runs in a gateway's process, as one text: it needs no file of ours where it runs."""

from __future__ import annotations

from pathlib import Path

__all__ = ["program"]

PACKAGE = Path(__file__).parent.parent


def program() -> str:
    """Return the text of the bootstrap, with the text of the journal that it brings along."""
    journal = (PACKAGE / "journal.py").read_text(encoding="utf-8")
    bootstrap = (PACKAGE / "bootstrap.py").read_text(encoding="utf-8")
    return f"JOURNAL = {journal!r}\nexec(compile({bootstrap!r}, 'bootstrap.py', 'exec'))\n"
