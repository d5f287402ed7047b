"""Some random faults, the same ones each time; `make soak` makes others, and for longer."""

from __future__ import annotations

from soak import soak

STEPS = 10
# Of those of the first 2000 seeds with which every kind of fault comes, the one that takes the least time.
SEED = 523


def test_nothing_is_lost_doubled_or_left() -> None:
    counts = soak(seed=SEED, steps=STEPS)
    assert counts.clean, f"seed {SEED}\n{counts}"
    assert counts.faults.total() == counts.executions == 2 * STEPS, counts
    assert len(counts.faults) >= 12, counts
