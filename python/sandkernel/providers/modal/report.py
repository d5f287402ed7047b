"""What a boot took."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BootReport"]


@dataclass
class BootReport:
    """How a sandbox was booted.

    Attributes:
        stages: The seconds that each stage took, in order: "app", "image", "sandbox", "tunnel", "gateway",
            "kernel" and, where some had to be installed, "packages".
        sandbox_id: The sandbox's id on Modal; empty before it has one.
        dashboard_url: Where Modal's site shows it.
    """

    stages: dict[str, float] = field(default_factory=dict)
    sandbox_id: str = ""
    dashboard_url: str = ""
    on_stage: Callable[[str, float], None] | None = field(default=None, repr=False, compare=False)
    _last: float = field(default_factory=time.monotonic, repr=False, compare=False)

    @property
    def total(self) -> float:
        """The seconds that all stages took."""
        return sum(self.stages.values())

    def finished(self, stage: str) -> None:
        """Take note that a stage has ended, and the next one begins."""
        now = time.monotonic()
        self.stages[stage] = now - self._last
        self._last = now
        if self.on_stage is not None:
            self.on_stage(stage, self.stages[stage])

    def __str__(self) -> str:
        stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self.stages.items())
        return f"{self.total:.2f} s ({stages})"
