"""What the public sees changes on purpose only."""

from __future__ import annotations

from typing import Any

import pytest

import public_api
import sandkernel
from sandkernel import Session


def test_the_package_is_what_the_snapshot_says() -> None:
    difference = public_api.difference()
    if difference:
        pytest.fail(
            f"The public face of the package has changed:\n{difference}\n"
            f"If that is meant: {public_api.RENEW}, and say so in CHANGELOG.md.",
            pytrace=False,
        )


def test_a_changed_signature_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def restart(self: Session, *, quickly: bool = False) -> None: ...

    monkeypatch.setattr(Session, "restart", restart)
    changes = [line for line in public_api.difference().splitlines() if line.startswith(("+ ", "- "))]
    assert changes == [
        "-    restart method: (self) -> None",
        "+    restart method: (self: Session, *, quickly: bool = False) -> None",
    ]


def test_a_name_that_only_warns_is_deprecated(monkeypatch: pytest.MonkeyPatch) -> None:
    given: Any = sandkernel.__getattr__

    def with_warning(name: str) -> object:
        if name == "Session":
            public_api.warnings.warn("Session is an old name", DeprecationWarning, stacklevel=2)
        return given(name)

    monkeypatch.setattr(sandkernel, "__all__", [name for name in sandkernel.__all__ if name != "Session"])
    monkeypatch.delitem(vars(sandkernel), "Session")
    monkeypatch.setattr(sandkernel, "__getattr__", with_warning)
    assert "+deprecated: sandkernel.Session" in public_api.difference()
