"""Fixtures: a stand-in for Modal's servers, started once, in which no test may leave a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandkernel.testing import LocalModal

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def local_modal() -> Iterator[LocalModal]:
    with LocalModal() as cloud, cloud.activate():
        yield cloud


@pytest.fixture
def cloud(local_modal: LocalModal) -> Iterator[LocalModal]:
    yield local_modal
    try:
        local_modal.assert_no_running_sandboxes()
    finally:
        local_modal.reset()
