"""Modal's local stand-in in a process of its own: its tunnels take no processor time from who is measured."""

from __future__ import annotations

import os
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.managers import BaseManager
from typing import TYPE_CHECKING

from sandkernel.testing import LocalModal

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cloud:
    """What a bench asks of the stand-in."""

    def __init__(self) -> None:
        self._modal = LocalModal(environment={"PIP_NO_INDEX": "1"}).start()

    def environment(self) -> dict[str, str]:
        """The variables by which a process uses it."""
        return self._modal.environment()

    def add_round_trip(self, seconds: float) -> None:
        """Make everything that goes through a tunnel take that much longer, there and back."""
        self._modal.faults.round_trip = seconds

    def bytes_passed(self) -> int:
        """How many bytes have gone through all tunnels, in both directions, as they are on the wire."""
        return sum(tunnel.bytes_passed for box in self._modal.sandboxes for tunnel in box.tunnels.values())

    def stop(self) -> None:
        """End all sandboxes."""
        self._modal.stop()


class _Manager(BaseManager):
    pass


_Manager.register("Cloud", Cloud)


@contextmanager
def cloud() -> Iterator[Cloud]:
    """A stand-in for this process and those that it starts; before Modal's SDK is first used here."""
    with _Manager(ctx=get_context("spawn")) as manager:
        stand_in: Cloud = manager.Cloud()  # type: ignore[attr-defined]
        os.environ.update(stand_in.environment())
        try:
            yield stand_in
        finally:
            stand_in.stop()
