"""What every subject measures with: turns, quantiles, and what a section of the report consists of."""

from __future__ import annotations

import argparse
import gc
import json
import math
import resource
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Name = TypeVar("Name", bound=str)

OURS = "Sandkernel"
FLOOR = "floor: jupyter_client over ZMQ"
FLOOR_AS_IT_IS = "the same, its kernel as it comes"
WEBSOCKET = "minimal websocket client"
KERNEL_CLIENT = "jupyter-kernel-client"
SMOLAGENTS = "smolagents"
SHARES = {"median": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Goal:
    """What is to be reached, and what was.

    Attributes:
        item: The number of the item in the list of goals.
        what: What was measured.
        reached: The figure; `None` where it could not be had.
        limit: What it may be at most, or must be at least.
        unit: The figure's unit; "x" for a ratio.
        at_least: Whether the limit is a lower one.
        shortfall: Why it is missed where it is, and what would be needed.
    """

    item: int
    what: str
    reached: float | None
    limit: float
    unit: str = "x"
    at_least: bool = False
    shortfall: str = ""

    @property
    def met(self) -> bool:
        if self.reached is None:
            return False
        return self.reached >= self.limit if self.at_least else self.reached <= self.limit


@dataclass(frozen=True)
class Table:
    """Rows under a title; numbers are shown with three digits that matter."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    note: str = ""

    def markdown(self) -> str:
        lines = [f"**{self.title}**", "", _row(self.head), _row(["---"] * len(self.head))]
        lines += [_row([show(cell) for cell in row]) for row in self.rows]
        return "\n".join([*lines, *(["", self.note] if self.note else [])])


@dataclass(frozen=True)
class Chart:
    """Bars, for those who would rather look than read."""

    title: str
    unit: str
    bars: Mapping[str, float]


@dataclass
class Section:
    """What a subject has measured."""

    title: str
    command: str = ""
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Section:
        return cls(
            saved["title"],
            saved["command"],
            [Table(**table) for table in saved["tables"]],
            [Goal(**goal) for goal in saved["goals"]],
            [Chart(**chart) for chart in saved["charts"]],
        )

    def markdown(self) -> str:
        parts = [f"## {self.title}", f"`{self.command}`", *(table.markdown() for table in self.tables)]
        return "\n\n".join([*parts, goals_table(self.goals).markdown(), *shortfalls(self.goals)])


def goals_table(goals: Sequence[Goal]) -> Table:
    head = ("item", "goal", "limit", "reached", "")
    rows = [
        (
            str(goal.item),
            goal.what,
            f"{'at least' if goal.at_least else 'at most'} {show(goal.limit)} {goal.unit}",
            f"{show(goal.reached)} {goal.unit if goal.reached is not None else ''}".strip(),
            "met" if goal.met else "**missed**",
        )
        for goal in goals
    ]
    return Table("Goals", head, rows)


def shortfalls(goals: Sequence[Goal]) -> list[str]:
    """What there is to say of the goals that were missed."""
    said: dict[str, list[str]] = {}
    for goal in goals:
        if not goal.met:
            said.setdefault(goal.shortfall or "No reason is known yet.", []).append(goal.what)
    return [f"Missed: {'; '.join(whats)}. {reason}" for reason, whats in said.items()]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def show(cell: str | float | None) -> str:
    """Three digits that matter, and no exponent."""
    if cell is None:
        return "-"
    if isinstance(cell, str) or cell == 0:
        return str(cell)
    digits = max(0, 2 - math.floor(math.log10(abs(cell))))
    return f"{cell:,.{digits}f}"


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def interleaved(
    cases: Mapping[Name, Callable[[], object]], runs: int, *, warm_up: int = 3
) -> dict[Name, list[float]]:
    """Seconds of each run of each case; they take turns, so that whatever else the machine does hits all.

    A case whose run is more than what is to be measured returns its seconds, a float.
    """
    taken: dict[Name, list[float]] = {name: [] for name in cases}
    gc.collect()
    for turn in range(warm_up + runs):
        for name, case in cases.items():
            began = time.perf_counter()
            outcome = case()
            seconds = outcome if isinstance(outcome, float) else time.perf_counter() - began
            if turn >= warm_up:
                taken[name].append(seconds)
    return taken


def latency_table(title: str, taken: Mapping[Name, Sequence[float]], base: Name, note: str = "") -> Table:
    """Quantiles in milliseconds, and their ratios to those of `base`."""
    head = ["", *SHARES, "runs", *(f"{name}, of {base.partition(':')[0]}" for name in SHARES)]
    rows = [
        [
            name,
            *(quantile(values, share) * 1000 for share in SHARES.values()),
            str(len(values)),
            *(quantile(values, share) / quantile(taken[base], share) for share in SHARES.values()),
        ]
        for name, values in taken.items()
    ]
    return Table(f"{title} (ms)", head, rows, note)


def processor_time() -> float:
    """Seconds of this process's processor time, user and system, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


PROCESSOR_NOTE = (
    "About a third of it is the sleeping and waking of threads (perf), some three for an execution "
    "(getrusage). Where others use the cores, a switch costs more."
)


def resident_bytes() -> int:
    """The memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def main(measure: Callable[[bool], Section], document: str | None, subject: str) -> None:
    """Run a subject alone: print its section, and write it for the report where that is asked for."""
    parser = argparse.ArgumentParser(description=document)
    parser.add_argument(
        "--quick", action="store_true", help="a few runs: whether it works, not how fast it is"
    )
    parser.add_argument("--json", type=Path, help="write the section here")
    arguments, _ = parser.parse_known_args()
    section = measure(arguments.quick)
    section.command = f".venv/bin/python benches/python/{subject}.py"
    print(section.markdown())
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(section), indent=1), encoding="utf-8")
