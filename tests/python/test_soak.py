"""Random faults for some seconds; `make soak` makes them for longer."""

from __future__ import annotations

import random

from soak import soak

SECONDS = 9.0


def test_nothing_is_lost_doubled_or_left() -> None:
    seed = random.randrange(1 << 32)
    counts = soak(SECONDS, seed)
    assert counts.clean, f"seed {seed}\n{counts}"
    assert counts.faults.total() >= 5, counts
