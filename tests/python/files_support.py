"""What the tests of files share: a session, and a look at what is left half done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandkernel import Session
from sandkernel.providers.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# More than one request takes.
SEVERAL_BLOCKS = 9 << 20


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    with LocalSandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def session(sandbox: LocalSandbox) -> Iterator[Session]:
    endpoint = sandbox.endpoint
    with Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id, timeout=60) as session:
        yield session


def half_done(*directories: Path) -> list[Path]:
    """What is on its way to become something else."""
    return [path for directory in directories for path in directory.rglob(".sandkernel-*")]
