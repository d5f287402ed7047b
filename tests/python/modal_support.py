"""What the tests of sandboxes on Modal share: a local stand-in, which none may leave a sandbox in."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modal
import pytest

from sandkernel.testing import LocalModal
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Iterator

__all__ = ["cloud", "local_modal", "program", "until"]


@pytest.fixture(scope="session")
def local_modal() -> Iterator[LocalModal]:
    # What smolagents wants to install is there already, or is not needed here.
    with LocalModal(environment={"PIP_NO_INDEX": "1", "UV_NO_INDEX": "1"}) as cloud:
        # The threads that the stand-in and the SDK keep are there from now on: none is a test's.
        naps = (asyncio.to_thread(time.sleep, 0.1) for _ in range(40))
        cloud._wait(_all(naps), 30)
        with cloud.activate():
            modal.App.lookup("tests", create_if_missing=True)
        yield cloud


async def _all(naps: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*naps)


@pytest.fixture
def cloud(local_modal: LocalModal) -> Iterator[LocalModal]:
    """A stand-in that this process uses; each test has a client and, of sandboxes, none of its own."""
    with local_modal.activate():
        yield local_modal
        try:
            local_modal.assert_no_running_sandboxes()
        finally:
            local_modal.reset()


def program(cloud: LocalModal, text: str, **options: Any) -> subprocess.Popen[str]:
    """Start a Python program that uses the stand-in; a warning in it is an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
        env={**os.environ, **cloud.environment()},
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
